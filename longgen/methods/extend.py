"""Autoregressive chunks from text-to-video weights: each is denoised with the end of the last held in place.

Knows latents, levels and the solver. Does not know attention or prompts. Memory does not depend on the length.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from longgen.core.levels import at_sigmas
from longgen.core.windows import SIZE_SETTINGS, image_note, rounded, sizes
from longgen.errors import BadInput
from longgen.protocols import Context, Method, MethodInfo, Setting
from longgen.types import Call, Event, Final, Level, ModelInfo, Preview, State, add_noise

LAWS = ("plain", "partition", "mates", "resume", "final", "plan", "deterministic", "finite", "conflicts")


class Extend(Method):
    """Latent inpainting: at every level the prefix is α·z_prev + σ·ε with one ε, and its clean estimate is z_prev.

    "native" instead gives checkpoints trained for it the prefix clean: with its own timestep, or as a condition beside
    the noise. "auto" is native for checkpoints that need an image, whose place the prefix takes. A stabiliser, if the
    run has one, matches each later chunk to the first before it is emitted and continued.
    """

    info = MethodInfo(
        name="extend",
        title="Chunk after chunk, each continuing the end of the last",
        slots=("loop",),
        needs=frozenset({"windows"}),
        settings={n: Setting(*SIZE_SETTINGS[n]) for n in ("window", "overlap", "window_latents", "overlap_latents")}
        | {
            "condition": Setting("auto", "1", "how a chunk sees its prefix", choices=("auto", "inpaint", "native")),
            "soft": Setting(0.0, "1", "share of the model's own estimate in the last prefix latent", low=0.0, high=1.0),
            "condition_noise": Setting(0.0, "σ", "level to which the prefix is noised before use", low=0.0, high=0.5),
        },
        cost="n · ⌈(T − ov)/(U − ov)⌉ · forward(U)",
        finality="stream",
        window_order="chain",
        laws={name: {} for name in LAWS},
    )

    def fit(self, info: ModelInfo) -> Method:
        """ "auto" resolved."""
        if self.condition != "auto":
            return self
        native = info.needs_image and "prefix_condition" in info.capabilities
        return type(self)(**{**self.settings, "condition": "native" if native else "inpaint"})

    def span(self, chunk: int, frames: int, info: ModelInfo) -> tuple[int, int]:
        """[a, b) of a chunk. All have the window's length; the last ends at T, with a longer prefix."""
        length = self.view(frames, info)
        a = min(chunk * sizes(self.settings, info).stride, frames - length)
        return a, a + length

    def prefix(self, info: ModelInfo) -> int:
        return sizes(self.settings, info).overlap

    def windows(self, frames: int, info: ModelInfo) -> list[tuple[int, int]]:
        return [self.span(chunk, frames, info) for chunk in range(sizes(self.settings, info).count(frames))]

    def view(self, frames: int, info: ModelInfo) -> int:
        return min(sizes(self.settings, info).window, frames)

    def steps(self, frames: int, steps: int, info: ModelInfo) -> int:
        return steps * sizes(self.settings, info).count(frames)

    def calls(self, frames: int, steps: int, info: ModelInfo) -> list[tuple[int, int]]:
        return [(self.steps(frames, steps, info), self.view(frames, info))]

    def check(self, frames: int, info: ModelInfo) -> None:
        if sizes(self.settings, info).overlap < 1:
            raise BadInput("extend needs an overlap of at least one latent, else a chunk knows nothing of the last")
        if self.condition == "native" and "prefix_condition" not in info.capabilities:
            reason = info.refusals.get("prefix_condition", "it was not trained on clean prefix latents")
            raise BadInput(f"extend.condition native cannot run on {info.variant}: {reason}; use inpaint")
        if self.condition == "native" and self.soft:
            raise BadInput("extend.soft belongs to condition inpaint; a native prefix is never re-estimated")

    def notes(self, frames: int, info: ModelInfo) -> list[str]:
        sized = sizes(self.settings, info)
        blind = image_note(info, seen=False) if self.condition != "native" and sized.count(frames) > 1 else []
        told = f"extend: {sized.count(frames)} chunks, {sized.describe(info)}"
        return [*rounded(self.settings, sized, info), told, *blind]

    def init(self, ctx: Context) -> State:
        empty = torch.empty(1, ctx.grid.channels, 0, ctx.grid.height, ctx.grid.width, device=ctx.device)
        known = empty if ctx.known is None else ctx.known.to(empty)
        return self._enter(ctx, State(empty, extra={"chunk": 0, "row": 0, "last": known, "first": known}))

    def step(self, ctx: Context, state: State) -> tuple[State, list[Event]]:
        row, chunk = state.extra["row"], state.extra["chunk"]
        a, b = self.span(chunk, ctx.grid.frames, ctx.info)
        held, share = self._prefix(ctx, state)
        known = held.shape[2]
        (clean,) = ctx.denoise([Call(state.x, self._level(ctx, row, known, b - a), tuple(range(a, b)), chunk)])
        clean = _blend(clean, held, share)
        x, memory = ctx.solver.step(state.solver, state.x, clean, row, a)
        x = _blend(x, self._noised(ctx, held, a, row + 1), share)
        state = replace(state, x=x, step=state.step + 1, solver=memory, extra={**state.extra, "row": row + 1})
        if row + 1 < ctx.schedule.steps:
            return state, [Preview(row, clean[:, :, known:], a + known)]
        return self._leave(ctx, state, a, known)

    def _enter(self, ctx: Context, state: State) -> State:
        """The chunk's start noise, with its prefix at the first level."""
        a, b = self.span(state.extra["chunk"], ctx.grid.frames, ctx.info)
        held, share = self._prefix(ctx, state)
        x = _blend(ctx.noise(a, b).to(ctx.device), self._noised(ctx, held, a, 0), share)
        return replace(state, x=x, solver=ctx.solver.init(), extra={**state.extra, "row": 0})

    def _leave(self, ctx: Context, state: State, a: int, known: int) -> tuple[State, list[Event]]:
        """New latents are final; they and the prefix as it was are what the next chunk continues.

        The first look is that of the known beginning, if there is one, else of the first chunk.
        """
        new, last = state.x[:, :, known:], state.extra["last"]
        chunk, first = state.extra["chunk"], state.extra["first"]
        if first.shape[2] and ctx.stabilise is not None:
            new = ctx.stabilise(new, first)
        whole = torch.cat([last[:, :, last.shape[2] - known :], new], 2)
        extra = {**state.extra, "last": whole, "first": first if first.shape[2] else whole, "chunk": chunk + 1}
        done = chunk + 1 == sizes(self.settings, ctx.info).count(ctx.grid.frames)
        state = replace(state, done=done, extra=extra)
        events: list[Event] = [Final(a + known, a + known + new.shape[2], new)]
        if known and not chunk:
            events.insert(0, Final(0, known, last))
        return (state if done else self._enter(ctx, state)), events

    def _prefix(self, ctx: Context, state: State) -> tuple[Tensor, Tensor]:
        """The latents that this chunk continues [1, C, k, H, W], and how firmly each is held [k] (1: fully)."""
        last, chunk = state.extra["last"], state.extra["chunk"]
        a = self.span(chunk, ctx.grid.frames, ctx.info)[0]
        known = self.span(chunk - 1, ctx.grid.frames, ctx.info)[1] - a if chunk else last.shape[2]
        held, share = last[:, :, last.shape[2] - known :], torch.ones(known, device=last.device)
        if known and self.condition_noise:
            fresh = ctx.fresh("condition", a, a + known).to(held)
            held = add_noise(held, fresh, at_sigmas(ctx.schedule, torch.tensor([self.condition_noise]))[0])
        if known and self.soft:
            share[-1] = 1 - self.soft
        return held, share

    def _noised(self, ctx: Context, held: Tensor, start: int, row: int) -> Tensor:
        """The prefix at a row of the schedule, always with the noise that its latents started from."""
        known = held.shape[2]
        if self.condition == "native" or not known:
            return held
        return add_noise(held, ctx.noise(start, start + known).to(held), ctx.schedule[row])

    def _level(self, ctx: Context, row: int, known: int, length: int) -> Level:
        """One level for all; in the native way the prefix has its own, clean or noised a little."""
        level = ctx.schedule[row]
        if self.condition != "native" or not known:
            return level
        own = at_sigmas(ctx.schedule, torch.tensor([float(self.condition_noise)]))[0]
        return Level.cat([own.spread(known), level.spread(length - known)])


def _blend(x: Tensor, held: Tensor, share: Tensor) -> Tensor:
    """x with its first k latents replaced by `held`, as far as `share` [k] says."""
    known, share = held.shape[2], share[None, None, :, None, None]
    return torch.cat([share * held + (1 - share) * x[:, :, :known], x[:, :, known:]], 2)
