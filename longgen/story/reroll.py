"""One shot made again in a finished video: everything outside it stays, bit for bit.

Knows a model, the clean latents of the finished run and which of them may change. The model is wrapped, so any loop
that ends with the whole video can be used as it is: it sees the kept latents at its own level, as the first run had
them on its way to their known end, and the windows that hold nothing but kept latents are not computed at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from longgen.protocols import Conditions, Denoiser, Model, Solver
from longgen.story.schedules import Ramps
from longgen.types import Call, LatentGrid, Patch, Schedule, add_noise


def free_latents(schedule: Ramps, shot: int, frames: int) -> Tensor:
    """[T] bool: the latents that see the text of `shot` at all: the shot, and the blends on both its sides."""
    return schedule.shot_weights(tuple(range(frames)))[:, shot] > 0


class Kept:
    """The finished video and what of it stays.

    Args:
        clean: final latents z of the finished run, [1, C, T, H, W].
        noise: its initial noise ε, of the same shape.
        free: [T] bool, latents that may change.
    """

    def __init__(self, clean: Tensor, noise: Tensor, free: Tensor) -> None:
        self.clean, self.noise, self.free = clean, noise, free

    def put(self, x: Tensor, frames: Sequence[int], kept: Tensor) -> Tensor:
        """x [1, C, t, H, W] of these absolute latents, with the kept ones replaced by those of `kept`."""
        free = self.free[list(frames)].to(x.device)[None, None, :, None, None]
        return torch.where(free, x, kept.to(x))


class KeptDenoiser:
    """Shows the model kept latents as α·z + σ·ε, and answers z for them."""

    def __init__(self, inner: Denoiser, kept: Kept, skip: bool) -> None:
        self.inner, self.kept, self.skip, self.info = inner, kept, skip, inner.info

    def denoise(self, call: Call) -> Tensor:
        frames = list(call.frames)
        clean = self.kept.clean[:, :, frames].to(call.x.device, torch.float32)
        if self.skip and not bool(self.kept.free[frames].any()):
            return clean
        noised = add_noise(clean, self.kept.noise[:, :, frames].to(clean), call.level)
        x = self.kept.put(call.x, call.frames, noised)
        estimate = self.inner.denoise(Call(x, call.level, call.frames, call.key))
        return self.kept.put(estimate, call.frames, clean)

    def denoise_batch(self, calls: Sequence[Call]) -> list[Tensor]:
        """One by one: most calls of a re-roll are skipped."""
        return [self.denoise(call) for call in calls]

    def patched(self, patch: Patch) -> AbstractContextManager[None]:
        return self.inner.patched(patch)


class KeptSolver:
    """The solver, with the kept latents put back after the last step, whatever its arithmetic made of them."""

    def __init__(self, inner: Solver, kept: Kept) -> None:
        self.inner, self.kept = inner, kept
        self.name, self.order, self.stochastic = inner.name, inner.order, inner.stochastic
        self.schedule: Schedule = inner.schedule

    def init(self, start: int = 0) -> Mapping[str, Any]:
        return self.inner.init(start)

    def step(self, memory: Mapping[str, Any], x: Tensor, clean: Tensor, row: int) -> tuple[Tensor, Mapping[str, Any]]:
        x, memory = self.inner.step(memory, x, clean, row)
        if row + 1 == self.schedule.steps:
            x = self.kept.put(x, range(x.shape[2]), self.kept.clean)
        return x, memory


class KeptModel:
    """A loaded model that can only change the free latents of one finished video.

    Args:
        model: any model.
        kept: the finished video.
        skip: leave out calls without a free latent; not for windows that read each other's keys.
    """

    def __init__(self, model: Model, kept: Kept, skip: bool = True) -> None:
        self.model, self.kept, self.skip = model, kept, skip
        self.info, self.device = model.info, model.device

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def denoiser(self, conditions: Conditions, grid: LatentGrid, steps: int) -> Denoiser:
        return KeptDenoiser(self.model.denoiser(conditions, grid, steps), self.kept, self.skip)

    def solver(self, name: str | None, steps: int, flow_shift: float | None) -> Solver:
        return KeptSolver(self.model.solver(name, steps, flow_shift), self.kept)

    def decode(self, chunks: Iterable[Tensor], chunk: int = 1) -> Iterator[Tensor]:
        return self.model.decode(chunks, chunk)

    def to_model(self, x: Tensor) -> Tensor:
        return self.model.to_model(x)

    def from_model(self, x: Tensor, grid: LatentGrid) -> Tensor:
        return self.model.from_model(x, grid)
