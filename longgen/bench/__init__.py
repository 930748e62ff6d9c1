"""Recorded benchmarks. Each is a function `run(rows, **options)` in a module of its own, listed here by name."""

from __future__ import annotations

BENCHES: dict[str, str] = {
    "model": "longgen.bench.model:run",
    "speed": "longgen.bench.speed:run",
}
