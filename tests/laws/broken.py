"""Methods with one planted fault each, to show that the checks of the law suite can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from longgen.methods.direct import Direct
from longgen.methods.freenoise import FreeNoise
from longgen.methods.windows import Windows
from longgen.protocols import Context, Method
from longgen.types import Attend, Call, Dense, Event, Final, LatentGrid, ModelInfo, Patch, Rotate, Site, State, View


class LooseTail(Windows):
    """The last latent's weights sum to ½, as in public tail code."""

    def step(self, ctx: Context, state: State) -> tuple[State, list[Event]]:
        scale = torch.ones(ctx.grid.frames)
        scale[-1] = 0.5
        new, events = super().step(ctx, state)
        x = new.x * scale[None, None, :, None, None]
        return State(x, new.step, new.done, new.solver), [Final(0, ctx.grid.frames, x)] if new.done else events


class Forgetful(Direct):
    """Keeps a counter outside the state."""

    turns = 0

    def step(self, ctx: Context, state: State) -> tuple[State, list[Event]]:
        self.turns += 1
        new, events = super().step(ctx, state)
        return State(new.x + self.turns, new.step, new.done, new.solver), events


class Twice(Direct):
    """Says that half of the video is final twice."""

    def step(self, ctx: Context, state: State) -> tuple[State, list[Event]]:
        new, events = super().step(ctx, state)
        return new, [*events, Final(0, 1, new.x[:, :, :1])] if new.done else events


class Undercount(Windows):
    """Plans fewer calls than it makes."""

    def calls(self, frames: int, steps: int, info: ModelInfo) -> list[tuple[int, int]]:
        return [(steps, self.view(frames, info))]


class Scaled(FreeNoise):
    """Noise of half the variance that depends on where the slice starts, and attention rows that sum to 2."""

    def noise(self, grid: LatentGrid, seed: int, start: int, stop: int) -> Tensor:
        return super().noise(grid, seed, start, stop) * 0.7 + start

    def patch(self, view: View) -> Patch:
        return Patch(attention=lambda site, q, k, v, rotate, attend: 0.1 + 2 * attend(q, k, v, Dense())[0])


class Careless(Direct):
    """Draws from the global generator."""

    def init(self, ctx: Context) -> State:
        state = super().init(ctx)
        return State(state.x + torch.randn(1), state.step, solver=state.solver)


class Idle(FreeNoise):
    """Never changes anything, also beyond the native length; divides by zero in its noise."""

    def patch(self, view: View) -> Patch:
        return Patch()

    def noise(self, grid: LatentGrid, seed: int, start: int, stop: int) -> Tensor:
        return super().noise(grid, seed, start, stop) / 0


class Running(list[Call]):
    """Calls whose latents depend on how many of them have been read before, as with windows updated in place."""

    read = 0

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        self.read += 1
        call = super().__getitem__(index)
        return replace(call, x=call.x + 0.1 * self.read) if isinstance(call, Call) else call


class InPlace(Windows):
    """Its windows see what those evaluated before them left behind."""

    def step(self, ctx: Context, state: State) -> tuple[State, list[Event]]:
        return super().step(replace(ctx, denoise=lambda calls: ctx.denoise(Running(calls))), state)


class Sticky(FreeNoise):
    """Its hook changes the timestep of the call that it is shown, which outlives the patch."""

    def patch(self, view: View) -> Patch:
        hook = super().patch(view).attention
        assert hook is not None

        def attention(site: Site, q: Tensor, k: Tensor, v: Tensor, rotate: Rotate, attend: Attend) -> Tensor:
            site.level.t.add_(1)
            return hook(site, q, k, v, rotate, attend)

        return Patch(attention=attention)


FAULTS: list[tuple[str, type[Method]]] = [
    ("plain", LooseTail),
    ("partition", LooseTail),
    ("mates", InPlace),
    ("resume", Forgetful),
    ("final", Twice),
    ("plan", Undercount),
    ("deterministic", Careless),
    ("unit_variance", Scaled),
    ("random_access", Scaled),
    ("stochastic", Scaled),
    ("zero", Scaled),
    ("no_op", Scaled),
    ("beyond", Idle),
    ("finite", Idle),
    ("removal", Sticky),
    ("removal", Idle),
]

# law, a method that keeps it, and what of the house is replaced by what breaks it.
HOUSE_FAULTS: list[tuple[str, str, str, Callable[..., Any]]] = [
    ("conflicts", "windows", "longgen.runtime.compose._check_conflicts", lambda parts: None),
    ("removal", "riflex", "longgen.models.wan.patching.Tables.restore", lambda self: None),
]
