"""Co-denoised overlapping windows, fused as clean estimates (MultiDiffusion over time; Gen-L-Video, arXiv 2305.18264).

Knows latents and calls. Does not know attention, prompts or models: it works on any of them.
"""

from __future__ import annotations

from collections import Counter

from longgen.core.fuse import cut, fuse
from longgen.core.windows import SIZE_SETTINGS, Sizes, Window, image_head, image_note, plan, rounded, sizes
from longgen.errors import BadInput
from longgen.protocols import Context, Method, MethodInfo, Setting
from longgen.types import Call, Event, Final, ModelInfo, Preview, State


class Windows(Method):
    """At every step: y_k = clean(x[window k]); y = Σ_k w_k·y_k / Σ_k w_k; one solver step on the whole latent.

    All windows see one x at one level, so fusing clean estimates, velocities or noises is the same; guidance is
    combined inside each call, before fusion.
    """

    info = MethodInfo(
        name="windows",
        title="Overlapping windows fused at every step",
        slots=("loop",),
        paper="2305.18264",
        needs=frozenset({"windows"}),
        settings={n: Setting(*row) for n, row in SIZE_SETTINGS.items()}
        | {
            "plan": Setting("static", "1", "where windows start", choices=("static", "uniform", "looped", "batched")),
            "starts": Setting("spread", "1", "static: evenly, or last one clamped", choices=("spread", "clamp")),
            "weights": Setting("pyramid", "1", "weights in a window", choices=("pyramid", "linear", "flat", "sine")),
            "anchor": Setting(None, "latents", "head of later windows that is context only; default 1", 0),
            "retain": Setting(
                None, "latents", "latents that every window sees, as 0 or 0,4; default none, or the image"
            ),
        },
        cost="n · ⌈(T − ov)/(U − ov)⌉ · forward(U)",
        laws={"plain": {}, "partition": {}, "mates": {}, "resume": {}, "final": {}, "plan": {}}
        | {"deterministic": {}, "finite": {}, "conflicts": {}},
    )

    def sized(self, info: ModelInfo) -> Sizes:
        return sizes(self.settings, info)

    def plan_at(self, frames: int, info: ModelInfo, step: int = 0) -> list[Window]:
        """The windows of one step."""
        sized = self.sized(info)
        retain = self.retained(frames, info)
        shown = self.retain is None and bool(retain)  # the image stands at the head instead
        anchor = (0 if shown else min(sized.unit, sized.overlap)) if self.anchor is None else int(self.anchor)
        return plan(
            frames,
            sized,
            step,
            planner=self.settings["plan"],
            placement=self.starts,
            weights=self.weights,
            anchor=-(-anchor // sized.unit) * sized.unit,
            retain=retain,
        )

    def retained(self, frames: int, info: ModelInfo) -> tuple[int, ...]:
        """The latents of `retain`, in whole temporal patches."""
        sized = self.sized(info)
        if self.retain is None:
            return image_head(info, sized)
        told, unit = str(self.retain), sized.unit
        try:
            wanted = {int(word) // unit * unit for word in told.split(",") if word.strip()}
        except ValueError:
            raise BadInput(f"windows.retain takes latent indices such as 0 or 0,4, not {self.retain!r}") from None
        if any(not 0 <= r < frames for r in wanted):
            raise BadInput(f"windows.retain {self.retain!r} names a latent outside 0 … {frames - 1}")
        return tuple(r + j for r in sorted(wanted) for j in range(unit))

    def view(self, frames: int, info: ModelInfo) -> int:
        return min(self.sized(info).window, frames)

    def calls(self, frames: int, steps: int, info: ModelInfo) -> list[tuple[int, int]]:
        still = self.settings["plan"] in {"static", "batched"}  # the same windows at every step
        lengths = Counter(len(w.frames) for s in range(1 if still else steps) for w in self.plan_at(frames, info, s))
        return [(count * (steps if still else 1), length) for length, count in sorted(lengths.items())]

    def windows(self, frames: int, info: ModelInfo) -> list[tuple[int, int]]:
        bodies = [w.body for w in self.plan_at(frames, info)]
        return [(b[0], b[-1] + 1 if b[-1] >= b[0] else frames) for b in bodies]  # a looped window ends at T here

    def check(self, frames: int, info: ModelInfo) -> None:
        self.plan_at(frames, info)

    def notes(self, frames: int, info: ModelInfo) -> list[str]:
        sized, count = self.sized(info), len(self.plan_at(frames, info))
        if frames <= sized.window:
            return [f"one window covers the {frames} latents: the same as direct"]
        seen = image_note(info, 0 in self.retained(frames, info))
        return [*rounded(self.settings, sized, info), f"{count} {sized.describe(info)}", *seen]

    def init(self, ctx: Context) -> State:
        return State(ctx.noise(0, ctx.grid.frames).to(ctx.device), ctx.start, solver=ctx.solver.init(ctx.start))

    def step(self, ctx: Context, state: State) -> tuple[State, list[Event]]:
        row, frames = state.step, ctx.grid.frames
        windows = self.plan_at(frames, ctx.info, row)
        level = ctx.schedule[row]
        clean = fuse(
            ctx.denoise([Call(cut(state.x, w), level, w.frames, key) for key, w in enumerate(windows)]),
            windows,
            frames,
        )
        x, memory = ctx.solver.step(state.solver, state.x, clean, row)
        done = row + 1 == ctx.schedule.steps
        event: Event = Final(0, frames, x) if done else Preview(row, clean)
        return State(x, row + 1, done, memory), [event]
