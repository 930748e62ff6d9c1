"""Recorded benchmarks. Each is a function `run(rows, **options)` in a module of its own, listed here by name."""

from __future__ import annotations

BENCHES: dict[str, str] = {
    "attention": "longgen.bench.attention:run",
    "model": "longgen.bench.model:run",
    "metrics": "longgen.bench.metrics_validation:run",
    "metrics-judge": "longgen.bench.metrics_judge:run",
    "metrics-cost": "longgen.bench.metrics:run",
    "choosing": "longgen.bench.quality:choosing",
    "forward": "longgen.bench.forward:run",
    "hour": "longgen.bench.hour:run",
    "memory": "longgen.bench.memory:run",
    "quality": "longgen.bench.quality:run",
    "speed": "longgen.bench.speed:run",
    "startup": "longgen.bench.startup:run",
    "oracle": "longgen.bench.oracle:run",
    "story": "longgen.bench.story:run",
}
