"""Peak bytes of tensors that the loop holds, against length: flat for streams, as theory says for the others.

Counted, not sampled: a dispatch mode follows every tensor made during sampling, so figures do not depend on the
allocator. Weights and what the model holds inside a call are subtracted by measuring live bytes between steps.
"""

from __future__ import annotations

import gc
from typing import Any

import torch

from longgen.api import Session
from longgen.bench.rows import Rows, listed
from longgen.bench.speed import METHODS, PROMPT
from longgen.config import Request
from longgen.runtime.run import Job
from longgen.types import LoadOptions

LENGTHS = (33, 129, 257)


def live_bytes() -> int:
    """Bytes of all tensor storages that are alive, each counted once; a compiler's stand-ins for tensors hold none."""
    from torch._subclasses.fake_tensor import FakeTensor
    from torch._subclasses.functional_tensor import FunctionalTensor

    seen: dict[int, int] = {}
    for thing in gc.get_objects():
        # By type: `isinstance` asks every object for its class, and lazy modules answer with warnings.
        kind = type(thing)
        if not issubclass(kind, torch.Tensor) or issubclass(kind, FakeTensor | FunctionalTensor):
            continue
        if thing.device.type != "meta":
            storage = thing.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
    return sum(seen.values())


def run(rows: Rows, model: str = "shapes", steps: int = 2, methods: str = "", lengths: str = "") -> None:
    """Peak of live bytes between steps, above what is alive before the run."""
    session = Session(model, LoadOptions())
    _ = session.model
    names = listed(methods) or list(METHODS)
    first = session.plan(Request(prompt=PROMPT, num_frames=1, num_inference_steps=1, method="direct"))
    session.run(first, Job())  # what a model makes once and keeps, tables and texts, is no run's own
    for name in names:
        for frames in [int(n) for n in listed(lengths)] or LENGTHS:
            plan = session.plan(Request(prompt=PROMPT, num_frames=frames, num_inference_steps=steps, method=name))
            gc.collect()
            before, peak = live_bytes(), 0

            def watch(_: Any) -> None:
                nonlocal peak
                peak = max(peak, live_bytes())

            session.run(plan, Job(on_progress=watch))
            values = {
                "peak_mib": (peak - before) / 2**20,
                "latents": plan.grid.frames,
                "model_hash": session.model_hash,
            }
            rows.add({"model": model, "method": name, "frames": frames}, values)
