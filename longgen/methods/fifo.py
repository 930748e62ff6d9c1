"""FIFO-Diffusion and its zigzag form: a queue of latents at rising noise levels, denoised by one level per iteration.

Knows latents, levels and calls. Does not know attention or prompts. The queue's memory does not depend on the length.
Above the budget of 150 lines because MIGA's zigzag is the same walk with groups and a last stage, and shares the file.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from longgen.core import multistep
from longgen.core.levels import ladder
from longgen.core.queue import Course, Job, Queue, advance
from longgen.core.reflect import Redo, likeness
from longgen.core.windows import SIZE_SETTINGS, rounded, sizes
from longgen.errors import BadInput
from longgen.protocols import Context, Method, MethodInfo, Setting
from longgen.types import Call, Event, Final, Level, ModelInfo, Preview, State, add_noise

DIAGONAL = "the latents of a call have levels of their own, so a run never equals one pass over a common schedule"
RULES = ("first", "unipc")
LAWS = ("mates", "resume", "final", "plan", "deterministic", "finite", "conflicts")


class Fifo(Method):
    """x_i ← x_i one rung down, for every latent i of the queue, in windows that all read one state (arXiv 2405.11473).

    K = n·f rungs: n partitions of windows of f latents. With lookahead the cleaner half of each window is context.
    """

    info = MethodInfo(
        name="fifo",
        title="Diagonal queue: streams latents at constant memory",
        slots=("loop",),
        paper="2405.11473",
        needs=frozenset({"windows", "per_latent_level"}),
        settings={n: Setting(*SIZE_SETTINGS[n]) for n in ("window", "window_latents")}
        | {
            "partitions": Setting(4, "windows", "n: the queue holds n·f latents; 0: from the number of steps", 0, 256),
            "lookahead": Setting(True, "1", "overlap windows by half and keep their noisier half; doubles the cost"),
            "levels": Setting("uniform", "1", "equal steps in σ or along the table", choices=("uniform", "solver")),
            "group": Setting(1, "latents", "neighbours that share a level (MIGA's zigzag)", 1, 64),
            "rule": Setting("first", "1", "steps of first order, or UniPC with a memory per latent", choices=RULES),
            "start": Setting("trajectory", "1", "first filling", choices=("trajectory", "renoise", "grow")),
            "flush": Setting(True, "1", "let the queue run empty at the end; false feeds on, and latents forget T"),
        },
        cost="(T + K − f) · 2n · forward(f), half of it without lookahead",
        finality="stream",
        laws={name: {} for name in LAWS},
        exempt={"plain": DIAGONAL, "partition": DIAGONAL},
    )

    def course(self, frames: int, steps: int, info: ModelInfo) -> Course:
        """K = n·f/L rungs for n partitions and groups of L; n = 0: as many as steps, rounded up to whole windows."""
        window = self.view(frames, info)
        group = max(1, round(window / 3)) if self.group is None else int(self.group)
        top = -(-(int(self.partitions) or -(-steps * group // window)) * window // group)
        floor = round(self.settings.get("finish", 0.0) * top)
        guides = self.settings.get("guides", 0)
        guides = min(round(window / 5) if guides is None else int(guides), window - 1)
        queue = Queue(frames, window, top - floor, group, self.lookahead, self.start == "grow", not self.flush, guides)
        base = {"grow": 0, "renoise": steps, "trajectory": queue.rungs - queue.rung(0, 0)}[self.start]
        return Course(queue, base, floor, int(self.settings.get("passes", 1)))

    def view(self, frames: int, info: ModelInfo) -> int:
        return min(sizes(self.settings, info).window, frames)

    def calls(self, frames: int, steps: int, info: ModelInfo) -> list[tuple[int, int]]:
        return [(self.course(frames, steps, info).calls, self.view(frames, info))]

    def steps(self, frames: int, steps: int, info: ModelInfo) -> int:
        return self.course(frames, steps, info).steps

    def windows(self, frames: int, info: ModelInfo) -> list[tuple[int, int]]:
        return [(0, self.view(frames, info))]

    def check(self, frames: int, info: ModelInfo) -> None:
        if info.patch[0] > 1:
            raise BadInput(f"{self.info.name} moves single latents; {info.variant} joins {info.patch[0]} in one token")

    def notes(self, frames: int, info: ModelInfo) -> list[str]:
        course = self.course(frames, info.steps, info)
        queue, sized = course.queue, sizes(self.settings, info)
        how = f"{self.partitions} partitions" if self.partitions else f"{info.steps} steps rounded up to whole windows"
        note = f"{self.info.name}: {course.top} levels ({how}), a queue of {queue.slots} latents"
        last = f", {queue.guides} of them guides" if queue.guides else ""
        last += f", then {course.last} steps together" if course.last else ""
        return [*rounded(self.settings, sized, info), f"{note} in windows of {queue.window}{last}"]

    # ------------------------------------------------------------------------------------------------------------ loop

    def init(self, ctx: Context) -> State:
        course = self._course(ctx)
        x = _noise(ctx, *course.held(0))
        extra = {"lo": 0, "queue": x if course.base else x[:, :, :0], "memory": self._blank(x) if course.base else {}}
        return State(x, solver=ctx.solver.init() if self.start == "renoise" else self._blank(x), extra=extra)

    def step(self, ctx: Context, state: State) -> tuple[State, list[Event]]:
        course = self._course(ctx)
        if state.step < course.base:
            return self._base(ctx, state, course)
        if state.step < course.base + course.queue.iterations:
            return self._turn(ctx, state, course)
        return self._together(ctx, state, course)

    def _course(self, ctx: Context) -> Course:
        return self.course(ctx.grid.frames, ctx.schedule.steps, ctx.info)

    def _blank(self, x: Tensor) -> multistep.Memory:
        """Step memory of latents that have taken no step; {} for the first-order rule, which has none."""
        return multistep.blank(x) if self.rule == "unipc" else {}

    def _ladder(self, ctx: Context, course: Course) -> Level:
        return ladder(ctx.schedule, course.top, self.levels)

    def _base(self, ctx: Context, state: State, course: Course) -> tuple[State, list[Event]]:
        """One step of an ordinary clip of f latents. Latent i joins the queue from the true trajectory, as it is when
        the clip reaches its rung (TokensGen); or all are re-noised from the finished clip, as in the paper."""
        rungs, step, window = self._ladder(ctx, course), state.step, course.queue.window
        target, last = torch.tensor([course.rung(i, 0) for i in range(window)]), step + 1 == course.base
        queue, held = state.x, state.extra["memory"]
        if self.start == "renoise":
            (clean,) = ctx.denoise([Call(state.x, ctx.schedule[step], tuple(range(window)))])
            x, memory = ctx.solver.step(state.solver, state.x, clean, step)
            if last:
                queue = add_noise(x, ctx.fresh("fifo", 0, window).to(x), rungs[target])
        else:
            rung, job = course.top - step, Job((0, window), (0, window))
            x, (clean,), memory = advance(ctx.denoise, state.x, 0, [job], rungs, lambda _: rung, state.solver)
            joins = target == rung - 1
            queue = torch.where(joins.to(x.device)[None, None, :, None, None], x, state.extra["queue"])
            held = multistep.choose(joins, memory, held)
        if last:
            state = replace(state, x=queue, solver=held, extra={"lo": 0, "queue": queue[:, :, :0], "memory": {}})
        else:
            state = replace(state, x=x, solver=memory, extra={"lo": 0, "queue": queue, "memory": held})
        return replace(state, step=step + 1), [Preview(step, clean)]

    def _turn(self, ctx: Context, state: State, course: Course) -> tuple[State, list[Event]]:
        """One iteration: all windows read the old latents; each latent of the queue comes one rung down."""
        rungs, turn, lo = self._ladder(ctx, course), state.step - course.base, state.extra["lo"]
        jobs = course.queue.jobs(turn)
        x, cleans, memory = advance(ctx.denoise, state.x, lo, jobs, rungs, lambda i: course.rung(i, turn), state.solver)
        start = jobs[0].update[0]
        shown = torch.cat(cleans, 2)[:, :, : ctx.grid.frames - start]  # without what is fed past the end
        events: list[Event] = [Preview(state.step, shown, start)]
        a, b = course.queue.emitted(turn)
        if b > a and not course.floor:
            events.insert(0, Final(a, b, x[:, :, a - lo : b - lo].clone()))
        ahead, stop = course.held(turn + 1)
        have = lo + x.shape[2]
        new = _noise(ctx, have, max(stop, have)).to(x)
        x, memory = torch.cat([x[:, :, ahead - lo :], new], 2), multistep.part(memory, ahead - lo)
        state = replace(state, x=x, solver=multistep.join(memory, self._blank(new)), step=state.step + 1)
        return replace(state, done=state.step == course.steps, extra={**state.extra, "lo": ahead}), events

    def _together(self, ctx: Context, state: State, course: Course) -> tuple[State, list[Event]]:
        """One step of the common last stage (MIGA's second): all latents at one level, windows with moving cuts."""
        rungs, turn, frames = (
            self._ladder(ctx, course),
            state.step - course.base - course.queue.iterations,
            ctx.grid.frames,
        )
        turns, rung = divmod(turn, course.floor)[0], course.floor - turn % course.floor
        x, memory = state.x[:, :, :frames], state.solver
        if rung == course.floor:  # every pass begins without a history
            memory = self._blank(x)
            x = add_noise(x, ctx.fresh(f"miga{turns}", 0, frames).to(x), rungs[rung]) if turns else x
        x, cleans, memory = advance(ctx.denoise, x, 0, course.last_jobs(turn), rungs, lambda _: rung, memory)
        done = state.step + 1 == course.steps
        event: Event = Final(0, frames, x) if done else Preview(state.step, torch.cat(cleans, 2))
        return replace(state, x=x, solver=memory, step=state.step + 1, done=done), [event]


def _noise(ctx: Context, start: int, stop: int) -> Tensor:
    """Start noise of latents [start, stop); past the end of a given noise, fresh noise of the same latents."""
    drawn = ctx.noise(start, stop)
    if drawn.shape[2] < stop - start:
        drawn = torch.cat([drawn, ctx.fresh("feed", start + drawn.shape[2], stop).to(drawn)], 2)
    return drawn.to(ctx.device)


class Miga(Fifo):
    """FIFO in groups of L latents that share a level (zigzag); each call also sees M cleaner latents from further back,
    and the last levels are taken together (arXiv 2605.18233). With `reflect`, a group that drifts is made again."""

    info = replace(
        Fifo.info,
        name="miga",
        title="Zigzag queue whose last levels all latents take together",
        paper="2605.18233",
        settings={
            **Fifo.info.settings,
            "partitions": Setting(0, "windows", "n: the queue holds n·f latents; 0: from the number of steps", 0, 256),
            "group": Setting(None, "latents", "L: neighbours that share a level; default: a third of a window", 1, 64),
            "guides": Setting(None, "latents", "M: cleaner latents shown to each call; default: f/5", 0, 64),
            "finish": Setting(10 / 54, "1", "share of the levels that all latents take together", 0.0, 0.9),
            "passes": Setting(1, "1", "how often that last stage runs (2 in the public code)", 1, 8),
            "reflect": Setting(0, "1", "tries at making a group again that drifts; 0: none (public code: 3)", 0, 64),
            "drop": Setting(0.01, "1", "fall of likeness from group to group that counts as drift", 0.0, 2.0),
            "depth": Setting(
                None, "latents", "levels after which a group is looked at; default: 10/54 of all", 1, 4096
            ),
        },
        cost="(T/L + K) · 2KL/f · forward(f) + last stage",
        finality="end",
    )

    def notes(self, frames: int, info: ModelInfo) -> list[str]:
        extra = "miga.reflect makes groups again that drift, with more calls than planned"
        return [*super().notes(frames, info), *([extra] if self.reflect else [])]

    def _turn(self, ctx: Context, state: State, course: Course) -> tuple[State, list[Event]]:
        state, events = super()._turn(ctx, state, course)
        turn = state.step - course.base
        redo = self._redo(course, turn, state.extra["lo"]) if self.reflect and turn < course.queue.iterations else None
        return (self._reflected(ctx, state, course, redo, turn), events) if redo else (state, events)

    def _redo(self, course: Course, turn: int, lo: int) -> Redo | None:
        """The group that has come down `depth` levels, the two before it as guides, and all noisier ones."""
        queue, group = course.queue, course.queue.group
        depth = round(10 / 54 * course.top) if self.depth is None else int(self.depth)
        start = queue.front(turn) + (queue.rungs - depth - 1) * group
        first, stop = start - 2 * group, queue.entered(turn - 1)
        if not (0 < depth < queue.rungs and max(lo, 0) <= first and start + group <= stop):
            return None
        taken = tuple(course.top - course.rung(i, turn) for i in range(start, stop))
        guides = tuple(course.rung(i, turn) for i in range(first, start))
        half = queue.window // 2 if self.lookahead and queue.window > 1 else 0
        return Redo(first, start, taken, guides, queue.window, queue.window - half)

    def _reflected(self, ctx: Context, state: State, course: Course, redo: Redo, turn: int) -> State:
        """The state with the best of several tries, where a group has become less like the two before it."""
        lo, group, rungs = state.extra["lo"], course.queue.group, self._ladder(ctx, course)
        guides, old = state.x[:, :, redo.first - lo : redo.start - lo], state.x[:, :, redo.start - lo :]
        before, now = state.extra.get("likeness"), likeness(old[:, :, :group], guides)
        x, memory = state.x, state.solver
        for attempt in range(int(self.reflect) if before is not None and before - now > self.drop else 0):
            noise = ctx.fresh(f"reflect{turn}/{attempt}", redo.start, redo.stop).to(x)
            start = torch.cat([guides, noise], 2)
            new, own = redo.run(ctx.denoise, guides, noise, rungs, self._blank(start))
            found = likeness(new[:, :, :group], guides)
            if found > now:
                now, a, b = found, redo.start - lo, redo.stop - lo
                x = torch.cat([state.x[:, :, :a], new, state.x[:, :, b:]], 2)
                memory = multistep.join(multistep.part(state.solver, 0, a), own, multistep.part(state.solver, b))
        return replace(state, x=x, solver=memory, extra={**state.extra, "likeness": now})
