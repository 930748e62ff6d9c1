"""One call over the whole video: what plain diffusers does, at any length.

Knows the solver and the whole latent. Does not know windows.
"""

from __future__ import annotations

from longgen.protocols import Context, Method, MethodInfo
from longgen.types import Call, Event, Final, ModelInfo, Preview, State


class Direct(Method):
    """x ← step(x, clean(x)) over the schedule. The reference that other methods are compared with."""

    info = MethodInfo(
        name="direct",
        title="One pass over the whole video",
        slots=("loop",),
        cost="n · forward(T)",
        laws={"plain": {}, "partition": {}, "mates": {}, "resume": {}, "final": {}, "plan": {}}
        | {"deterministic": {}, "finite": {}, "conflicts": {}},
        global_positions=True,
    )

    def view(self, frames: int, info: ModelInfo) -> int:
        return frames

    def calls(self, frames: int, steps: int, info: ModelInfo) -> list[tuple[int, int]]:
        return [(steps, frames)]

    def init(self, ctx: Context) -> State:
        return State(ctx.noise(0, ctx.grid.frames).to(ctx.device), ctx.start, solver=ctx.solver.init(ctx.start))

    def step(self, ctx: Context, state: State) -> tuple[State, list[Event]]:
        row, frames = state.step, tuple(range(ctx.grid.frames))
        (clean,) = ctx.denoise([Call(state.x, ctx.schedule[row], frames)])
        x, memory = ctx.solver.step(state.solver, state.x, clean, row)
        done = row + 1 == ctx.schedule.steps
        event: Event = Final(0, ctx.grid.frames, x) if done else Preview(row, clean)
        return State(x, row + 1, done, memory), [event]
