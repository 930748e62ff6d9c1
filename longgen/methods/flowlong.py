"""FlowLong (arXiv 2605.20910): windows fused as clean estimates; stochastic steps early, deterministic ones late.

Knows latents and calls. Does not know attention or prompts. It steps by its own rule: of the solver it uses the levels.
"""

from __future__ import annotations

from longgen.core.fuse import cut, fuse
from longgen.core.windows import SIZE_SETTINGS, Sizes, Window, image_head, image_note, plan, rounded, sizes
from longgen.protocols import Context, Method, MethodInfo, Setting
from longgen.types import Call, Event, Final, Level, ModelInfo, Preview, State, add_noise, ode_step


def noise_share(level: Level) -> float:
    """σ/(α + σ): the noise level in flow terms, for flow and variance-preserving models alike."""
    return float(level.sigma / (level.alpha + level.sigma))


class FlowLong(Method):
    """z = Σ_k w_k·z_k/Σ_k w_k over windows, then with (σ, α) → (σ', α')

    x' = α'·z + σ'·fresh noise              while σ ≥ s*: distant windows share z, and come to agree,
    x' = α'·z + σ'·(x − α·z)/σ              below: an Euler step, which keeps detail.
    """

    info = MethodInfo(
        name="flowlong",
        title="Fused windows, stochastic early and deterministic late",
        slots=("loop",),
        paper="2605.20910",
        needs=frozenset({"windows"}),
        settings={n: Setting(*row) for n, row in SIZE_SETTINGS.items()}
        | {
            "switch": Setting(
                0.6, "σ", "s*: steps at noise levels from here up are stochastic; above 1 none are", 0, 2
            ),
            "weights": Setting("linear", "1", "weights in a window", choices=("pyramid", "linear", "flat", "sine")),
            "anchor": Setting(None, "latents", "head of later windows that is context only; default 1", 0),
        },
        cost="n · ⌈(T − ov)/(U − ov)⌉ · forward(U)",
        laws={
            "plain": {"switch": 2.0},
            "partition": {"switch": 2.0},
            "mates": {},
            "resume": {},
            "final": {},
            "plan": {},
        }
        | {"deterministic": {}, "finite": {}, "conflicts": {}},
    )

    def sized(self, info: ModelInfo) -> Sizes:
        return sizes(self.settings, info)

    def plan_at(self, frames: int, info: ModelInfo) -> list[Window]:
        sized = self.sized(info)
        retain = image_head(info, sized)
        anchor = (0 if retain else min(1, sized.overlap)) if self.anchor is None else int(self.anchor)
        unit = sized.unit
        return plan(frames, sized, weights=self.weights, anchor=-(-anchor // unit) * unit, retain=retain)

    def view(self, frames: int, info: ModelInfo) -> int:
        return min(self.sized(info).window, frames)

    def calls(self, frames: int, steps: int, info: ModelInfo) -> list[tuple[int, int]]:
        return [(steps * len(self.plan_at(frames, info)), self.view(frames, info))]

    def windows(self, frames: int, info: ModelInfo) -> list[tuple[int, int]]:
        return [(w.body[0], w.body[-1] + 1) for w in self.plan_at(frames, info)]

    def check(self, frames: int, info: ModelInfo) -> None:
        self.plan_at(frames, info)

    def notes(self, frames: int, info: ModelInfo) -> list[str]:
        sized = self.sized(info)
        count = len(self.plan_at(frames, info))
        if frames <= sized.window:
            return [f"flowlong: one window covers the {frames} latents"]
        own = "flowlong steps by its own first-order rule; --solver gives the noise levels only"
        seen = image_note(info, bool(image_head(info, sized))) if count > 1 else []
        return [*rounded(self.settings, sized, info), f"{count} {sized.describe(info)}", own, *seen]

    def init(self, ctx: Context) -> State:
        return State(ctx.noise(0, ctx.grid.frames).to(ctx.device), ctx.start)

    def step(self, ctx: Context, state: State) -> tuple[State, list[Event]]:
        row, frames = state.step, ctx.grid.frames
        windows, level, then = self.plan_at(frames, ctx.info), ctx.schedule[row], ctx.schedule[row + 1]
        clean = fuse(
            ctx.denoise([Call(cut(state.x, w), level, w.frames, key) for key, w in enumerate(windows)]),
            windows,
            frames,
        )
        if noise_share(level) >= self.switch:
            x = add_noise(clean, ctx.fresh(f"flowlong/{row}", 0, frames).to(clean.device), then)
        else:
            x = ode_step(state.x, clean, level, then)
        done = row + 1 == ctx.schedule.steps
        event: Event = Final(0, frames, x) if done else Preview(row, clean)
        return State(x, row + 1, done), [event]
