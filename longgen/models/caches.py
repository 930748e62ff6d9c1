"""diffusers' step caches under windows, branches and experts: one context for each, emptied when a loop starts anew.

A cache compares a step with the step before, so a context must hold one trajectory only. Knows transformers with
diffusers' CacheMixin; does not know which cache is on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from longgen.errors import BadInput
from longgen.models.denoise import Job
from longgen.types import Patch


class StepCaches:
    """The cache contexts of one denoiser's transformers."""

    def __init__(self, experts: Sequence[Any]) -> None:
        self._experts = experts
        self._reached: dict[str, int] = {}  # context → last step seen

    @property
    def on(self) -> bool:
        return any(transformer.is_cache_enabled for transformer in self._experts)

    def check(self, patch: Patch) -> None:
        """Key/value sharing reads what other calls computed, which a cache may have skipped."""
        if self.on and patch.kv is not None:
            raise BadInput("a step cache cannot run beside key/value sharing; use --cache none")

    @contextmanager
    def context(self, transformer: Any, jobs: Sequence[Job], steps: int) -> Iterator[None]:
        """Runs one forward under the name of its trajectory, or of all those that share it."""
        level = jobs[0].call.level
        step, name = int(level.step.min()), "+".join(context_name(job) for job in jobs)
        if self.on:
            if not level.uniform:
                raise BadInput("a step cache needs one noise level per call; use --cache none with this method")
            self._renew(name, step)
        progress = {"step_index": step, "sigma": float(level.sigma.max()), "num_inference_steps": steps}
        with transformer.cache_context(name, **progress):
            yield

    def _renew(self, name: str, step: int) -> None:
        """Empties all contexts when one goes back: another round, or another chunk of the video."""
        if step <= self._reached.get(name, -1):
            for expert in self._experts:
                expert._reset_stateful_cache()
            self._reached.clear()
        self._reached[name] = step


def context_name(job: Job) -> str:
    """Expert, window or span of latents, branch, and text where outputs are mixed."""
    call = job.call
    window = f"w{call.key}" if call.key is not None else f"{call.frames[0]}-{call.frames[-1]}"
    return f"{job.expert}/{window}/{job.branch}/{job.slot}"
