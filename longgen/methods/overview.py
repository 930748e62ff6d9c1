"""Overview (ours, no paper): the whole video in one call while noise is high, windows of native length afterwards.

Knows latents and calls. Does not know attention, prompts or models. What a long call is good at, one layout and one
identity for the whole video, is decided at high noise; what it is bad at, detail beyond the native length, is decided
later, in windows that no model has to extrapolate for.
"""

from __future__ import annotations

from longgen.core.fuse import cut, fuse
from longgen.core.windows import SIZE_SETTINGS, Sizes, Window, image_head, image_note, plan, rounded, sizes
from longgen.protocols import Context, Method, MethodInfo, Setting
from longgen.types import Call, Event, Final, ModelInfo, Preview, State


class Overview(Method):
    """y = clean(x) in the first `until` of the steps, y = Σ_k w_k·clean(x[window k]) / Σ_k w_k in the others."""

    info = MethodInfo(
        name="overview",
        title="One call over everything while noise is high, fused windows afterwards",
        slots=("loop",),
        needs=frozenset({"windows"}),
        settings={n: Setting(*row) for n, row in SIZE_SETTINGS.items()}
        | {
            "until": Setting(0.45, "1", "share of the steps that see the whole video", 0.0, 1.0),
            "weights": Setting("pyramid", "1", "weights in a window", choices=("pyramid", "linear", "flat", "sine")),
            "anchor": Setting(None, "latents", "head of later windows that is context only; default 1", 0),
        },
        cost="until·n · forward(T) + (1 − until)·n · ⌈(T − ov)/(U − ov)⌉ · forward(U)",
        global_positions=True,
        laws={"plain": {}, "partition": {}, "mates": {}, "resume": {}, "final": {}, "plan": {}}
        | {"deterministic": {}, "finite": {}, "conflicts": {}},
    )

    def sized(self, info: ModelInfo) -> Sizes:
        return sizes(self.settings, info)

    def plan_at(self, frames: int, info: ModelInfo) -> list[Window]:
        sized = self.sized(info)
        retain = image_head(info, sized)
        anchor = (0 if retain else min(1, sized.overlap)) if self.anchor is None else int(self.anchor)
        anchor = -(-anchor // sized.unit) * sized.unit
        return plan(frames, sized, weights=self.weights, anchor=anchor, retain=retain)

    def whole(self, steps: int) -> int:
        """How many steps see everything."""
        return round(self.until * steps)

    def view(self, frames: int, info: ModelInfo) -> int:
        return frames if self.until > 0 else min(self.sized(info).window, frames)

    def calls(self, frames: int, steps: int, info: ModelInfo) -> list[tuple[int, int]]:
        whole, windows = self.whole(steps), self.plan_at(frames, info)
        return [(whole, frames), ((steps - whole) * len(windows), len(windows[0].frames))]

    def windows(self, frames: int, info: ModelInfo) -> list[tuple[int, int]]:
        return [(w.body[0], w.body[-1] + 1) for w in self.plan_at(frames, info)]

    def check(self, frames: int, info: ModelInfo) -> None:
        self.plan_at(frames, info)

    def notes(self, frames: int, info: ModelInfo) -> list[str]:
        sized, count = self.sized(info), len(self.plan_at(frames, info))
        if frames <= sized.window:
            return [f"overview: one window covers the {frames} latents: the same as direct"]
        told = f"overview: the first {self.until:.0%} of the steps see all {frames} latents, the others"
        seen = image_note(info, bool(image_head(info, sized)))
        return [*rounded(self.settings, sized, info), f"{told} {count} {sized.describe(info)}", *seen]

    def init(self, ctx: Context) -> State:
        return State(ctx.noise(0, ctx.grid.frames).to(ctx.device), ctx.start, solver=ctx.solver.init(ctx.start))

    def step(self, ctx: Context, state: State) -> tuple[State, list[Event]]:
        row, frames, level = state.step, ctx.grid.frames, ctx.schedule[state.step]
        if row < self.whole(ctx.schedule.steps):
            (clean,) = ctx.denoise([Call(state.x, level, tuple(range(frames)))])
        else:
            windows = self.plan_at(frames, ctx.info)
            calls = [Call(cut(state.x, w), level, w.frames, key) for key, w in enumerate(windows)]
            clean = fuse(ctx.denoise(calls), windows, frames)
        x, memory = ctx.solver.step(state.solver, state.x, clean, row)
        done = row + 1 == ctx.schedule.steps
        event: Event = Final(0, frames, x) if done else Preview(row, clean)
        return State(x, row + 1, done, memory), [event]
