"""One shot made again in a finished video: everything outside it stays, bit for bit.

Knows a model, the clean latents of the finished run and which of them may change. The model is wrapped, so any loop
can be used as it is: the model sees kept latents at the level of each call, on the way from their noise to their known
end, answers that end for them, and calls that hold nothing but kept latents are not computed at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from longgen.protocols import Conditions, Deal, Denoiser, Model, Solver
from longgen.story.schedules import Ramps
from longgen.types import Call, LatentGrid, Patch, add_noise


def free_latents(schedule: Ramps, shot: int, frames: int) -> Tensor:
    """[T] bool: the latents that see the text of `shot` at all: the shot, and the blends on both its sides.

    Each by itself, also where a window sees one text: which window a latent lies in is the loop's affair.
    """
    return schedule.weights_at([schedule.centre(i) for i in range(frames)])[:, shot] > 0


class Kept:
    """The finished video and what of it stays.

    Args:
        clean: final latents z of the finished run, [1, C, T, H, W].
        noise: its initial noise ε, of the same shape.
        free: [T] bool, latents that may change.
    """

    def __init__(self, clean: Tensor, noise: Tensor, free: Tensor) -> None:
        self.clean, self.noise, self.free = clean, noise, free

    def may_change(self, frames: Sequence[int]) -> Tensor:
        """[t] bool; what a queue feeds past the end of the video is free."""
        return torch.tensor([i >= len(self.free) or bool(self.free[i]) for i in frames])

    def of(self, whole: Tensor, frames: Sequence[int]) -> Tensor:
        """Latents of `clean` or `noise` by absolute index; past the end anything, it is never used."""
        return whole[:, :, [min(i, whole.shape[2] - 1) for i in frames]]

    def put(self, x: Tensor, frames: Sequence[int], kept: Tensor) -> Tensor:
        """x [1, C, t, H, W] of these absolute latents, with the kept ones replaced by those of `kept`."""
        free = self.may_change(frames).to(x.device)[None, None, :, None, None]
        return torch.where(free, x, kept.to(x))


class KeptDenoiser:
    """Shows the model kept latents as α·z + σ·ε, and answers z for them."""

    def __init__(self, inner: Denoiser, kept: Kept, skip: bool) -> None:
        self.inner, self.kept, self.skip, self.info = inner, kept, skip, inner.info

    def denoise(self, call: Call, deal: Deal | None = None) -> Tensor:
        clean = self.kept.of(self.kept.clean, call.frames).to(call.x.device, torch.float32)
        if self.skip and not bool(self.kept.may_change(call.frames).any()):
            return clean
        noised = add_noise(clean, self.kept.of(self.kept.noise, call.frames).to(clean), call.level)
        x = self.kept.put(call.x, call.frames, noised)
        shown = Call(x, call.level, call.frames, call.key)
        estimate = self.inner.denoise_batch([shown], deal)[0] if deal else self.inner.denoise(shown)
        return self.kept.put(estimate, call.frames, clean)

    def denoise_batch(self, calls: Sequence[Call], deal: Deal | None = None) -> list[Tensor]:
        """One by one: most calls of a re-roll are skipped."""
        return [self.denoise(call, deal) for call in calls]

    def patched(self, patch: Patch) -> AbstractContextManager[None]:
        return self.inner.patched(patch)


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
        return self.model.solver(name, steps, flow_shift)

    def decode(self, chunks: Iterable[Tensor], chunk: int = 1) -> Iterator[Tensor]:
        return self.model.decode(self._pinned(chunks), chunk)

    def _pinned(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Final latents in order, the kept ones bit for bit whatever a solver's arithmetic made of them."""
        at = 0
        for x in chunks:
            frames = range(at, at + x.shape[2])
            yield self.kept.put(x, frames, self.kept.clean[:, :, frames.start : frames.stop])
            at = frames.stop

    def to_model(self, x: Tensor) -> Tensor:
        return self.model.to_model(next(self._pinned([x])))

    def from_model(self, x: Tensor, grid: LatentGrid) -> Tensor:
        return self.model.from_model(x, grid)
