"""Autoregressive chunks from text-to-video weights: each is denoised with the end of the last held in place.

Knows latents, levels and the solver. Does not know attention or prompts. Memory does not depend on the length.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from longgen.core.levels import at_sigmas
from longgen.core.windows import SIZE_SETTINGS, Sizes, rounded, sizes, starts
from longgen.errors import BadInput
from longgen.protocols import Context, Method, MethodInfo, Setting
from longgen.types import Call, Event, Final, Level, ModelInfo, Preview, State, add_noise

LAWS = ("plain", "partition", "mates", "resume", "final", "plan", "deterministic", "finite", "conflicts")


class Extend(Method):
    """Latent inpainting: at every level the prefix is α·z_prev + σ·ε with one ε, and its clean estimate is z_prev.

    "native" instead shows checkpoints trained for it a clean prefix with its own timestep. A stabiliser, if the run has
    one, matches each later chunk to the first before it is emitted and continued.
    """

    info = MethodInfo(
        name="extend",
        title="Chunk after chunk, each continuing the end of the last",
        slots=("loop",),
        needs=frozenset({"windows"}),
        settings={n: Setting(*SIZE_SETTINGS[n]) for n in ("window", "overlap", "window_latents", "overlap_latents")}
        | {
            "condition": Setting("inpaint", "1", "how a chunk sees its prefix", choices=("inpaint", "native")),
            "soft": Setting(0.0, "1", "share of the model's own estimate in the last prefix latent", low=0.0, high=1.0),
            "condition_noise": Setting(0.0, "σ", "level to which the prefix is noised before use", low=0.0, high=0.5),
        },
        cost="n · ⌈(T − ov)/(U − ov)⌉ · forward(U)",
        finality="stream",
        window_order="chain",
        laws={name: {} for name in LAWS},
    )

    # ------------------------------------------------------------------------------------------------------- geometry

    def sized(self, info: ModelInfo) -> Sizes:
        return sizes(self.settings, info)

    def chunks(self, frames: int, info: ModelInfo) -> list[tuple[int, int]]:
        """[a, b) of every chunk. All have the window's length; the last ends at T, with a longer prefix."""
        sized, length = self.sized(info), self.view(frames, info)
        return [(a, a + length) for a in starts(frames, sized, "clamp")]

    def view(self, frames: int, info: ModelInfo) -> int:
        return min(self.sized(info).window, frames)

    def calls(self, frames: int, steps: int, info: ModelInfo) -> list[tuple[int, int]]:
        return [(steps * len(self.chunks(frames, info)), self.view(frames, info))]

    def steps(self, frames: int, steps: int, info: ModelInfo) -> int:
        return steps * len(self.chunks(frames, info))

    def windows(self, frames: int, info: ModelInfo) -> list[tuple[int, int]]:
        return self.chunks(frames, info)

    def check(self, frames: int, info: ModelInfo) -> None:
        if self.sized(info).overlap < 1:
            raise BadInput(
                "extend needs an overlap of at least one latent; without one its chunks know nothing of each other"
            )
        if self.condition == "native" and "prefix_condition" not in info.capabilities:
            reason = info.refusals.get("prefix_condition", "it was not trained on clean prefix latents")
            raise BadInput(f"extend.condition native cannot run on {info.variant}: {reason}; use inpaint")
        if self.condition == "native" and self.soft:
            raise BadInput("extend.soft belongs to condition inpaint; a native prefix is never re-estimated")

    def notes(self, frames: int, info: ModelInfo) -> list[str]:
        sized, count = self.sized(info), len(self.chunks(frames, info))
        return [*rounded(self.settings, sized, info), f"extend: {count} chunks, {sized.describe(info)}"]

    # ------------------------------------------------------------------------------------------------------------ loop

    def init(self, ctx: Context) -> State:
        empty = torch.empty(1, ctx.grid.channels, 0, ctx.grid.height, ctx.grid.width, device=ctx.device)
        extra = {"chunk": 0, "row": 0, "last": empty, "first": empty}
        return self._enter(ctx, State(empty, solver=ctx.solver.init(), extra=extra))

    def step(self, ctx: Context, state: State) -> tuple[State, list[Event]]:
        row, (a, b) = state.extra["row"], self._span(ctx, state)
        held, share = self._prefix(ctx, state)
        (clean,) = ctx.denoise([Call(state.x, self._level(ctx, row, held), tuple(range(a, b)), state.extra["chunk"])])
        clean = _blend(clean, held, share)
        x, memory = ctx.solver.step(state.solver, state.x, clean, row)
        x = _blend(x, self._noised(ctx, held, a, row + 1), share)
        state = replace(state, x=x, step=state.step + 1, solver=memory, extra={**state.extra, "row": row + 1})
        if row + 1 < ctx.schedule.steps:
            return state, [Preview(row, clean[:, :, held.shape[2] :], a + held.shape[2])]
        return self._leave(ctx, state, a, held.shape[2])

    def _span(self, ctx: Context, state: State) -> tuple[int, int]:
        return self.chunks(ctx.grid.frames, ctx.info)[state.extra["chunk"]]

    def _enter(self, ctx: Context, state: State) -> State:
        """The chunk's start noise, with its prefix at the first level."""
        a, b = self._span(ctx, state)
        held, share = self._prefix(ctx, state)
        x = _blend(ctx.noise(a, b).to(ctx.device), self._noised(ctx, held, a, 0), share)
        return replace(state, x=x, solver=ctx.solver.init(), extra={**state.extra, "row": 0})

    def _leave(self, ctx: Context, state: State, a: int, known: int) -> tuple[State, list[Event]]:
        """New latents are final; they and the prefix as it was are what the next chunk continues."""
        new = state.x[:, :, known:]
        chunk, first = state.extra["chunk"], state.extra["first"]
        if chunk and ctx.stabilise is not None:
            new = ctx.stabilise(new, first)
        whole = torch.cat([state.extra["last"][:, :, state.extra["last"].shape[2] - known :], new], 2)
        extra = {**state.extra, "last": whole, "first": first if chunk else whole, "chunk": chunk + 1}
        done = chunk + 1 == len(self.chunks(ctx.grid.frames, ctx.info))
        state = replace(state, done=done, extra=extra)
        event = Final(a + known, a + known + new.shape[2], new)
        return (state if done else self._enter(ctx, state)), [event]

    # ---------------------------------------------------------------------------------------------------------- prefix

    def _prefix(self, ctx: Context, state: State) -> tuple[Tensor, Tensor]:
        """The latents that this chunk continues [1, C, k, H, W], and how firmly each is held [k] (1: fully)."""
        last, chunk = state.extra["last"], state.extra["chunk"]
        chunks = self.chunks(ctx.grid.frames, ctx.info)
        known = chunks[chunk - 1][1] - chunks[chunk][0] if chunk else 0
        held, share = last[:, :, last.shape[2] - known :], torch.ones(known)
        if known and self.condition_noise:
            a = chunks[chunk][0]
            held = add_noise(held, ctx.fresh("condition", a, a + known).to(held), self._conditioned(ctx))
        if known and self.soft:
            share[-1] = 1 - self.soft
        return held, share.to(held.device)

    def _conditioned(self, ctx: Context) -> Level:
        """The level of the prefix as the model sees it in the native way: clean, or noised a little."""
        if not self.condition_noise:
            return ctx.schedule[ctx.schedule.steps]
        return at_sigmas(ctx.schedule, torch.tensor([self.condition_noise]))[0]

    def _noised(self, ctx: Context, held: Tensor, start: int, row: int) -> Tensor:
        """The prefix at a row of the schedule, always with the noise that its latents started from."""
        known = held.shape[2]
        if self.condition == "native" or not known:
            return held
        return add_noise(held, ctx.noise(start, start + known).to(held), ctx.schedule[row])

    def _level(self, ctx: Context, row: int, held: Tensor) -> Level:
        level, known = ctx.schedule[row], held.shape[2]
        if self.condition == "inpaint" or not known:
            return level
        fresh = self.view(ctx.grid.frames, ctx.info) - known
        return Level.cat([self._conditioned(ctx).spread(known), level.spread(fresh)])


def _blend(x: Tensor, held: Tensor, share: Tensor) -> Tensor:
    """x with its first k latents replaced by `held`, as far as `share` [k] says."""
    known = held.shape[2]
    if not known:
        return x
    share = share[None, None, :, None, None]
    return torch.cat([share * held + (1 - share) * x[:, :, :known], x[:, :, known:]], 2)
