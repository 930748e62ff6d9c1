"""The run: noise → loop ⇄ denoise → final latents, as a stream of progress.

Knows the plan and a loaded model. Does not know decoding, files or the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from longgen.core.noise import latent_noise
from longgen.protocols import Conditions, Context, Denoiser, Model, PromptSchedule
from longgen.runtime import distribute
from longgen.runtime.checkpoint import Saved
from longgen.runtime.plan import Plan
from longgen.runtime.stretches import Stretch, stretches
from longgen.story.schedules import spans
from longgen.types import Call, Event, Final, State, View


@dataclass(frozen=True)
class Progress:
    """One step done: `done` of `total`, both over all rounds. Restored finals come first, with the restored state."""

    round: int
    done: int
    total: int
    state: State
    events: tuple[Event, ...]


class Sampler:
    """One generation on one model. Iterate over `run()`; `bank` and the progress's state are what a resume needs."""

    def __init__(self, plan: Plan, model: Model, conditions: Conditions, init: Tensor | None = None) -> None:
        """
        Args:
            init: x_T [1, C, T, H, W] to start from instead of the plan's own noise.
        """
        self.plan, self.model, self.init = plan, model, init
        self.solver = model.solver(plan.request.solver, plan.steps, plan.flow_shift)
        self.parts = stretches(plan.timeline, plan.grid, plan.seed)
        self.denoiser: Denoiser = model.denoiser(conditions, plan.grid, plan.steps)
        self.bank: dict[str, Tensor] = {}
        self.forwards = 0
        self.known = model.encode_video(plan.source.end(plan.size)) if plan.source else None

    @torch.no_grad()  # as a decorator it is off again at every yield; a `with` inside would leak to the consumer
    def run(self, saved: Saved | None = None) -> Generator[Progress]:
        """From the start, or from a saved state, to the last final latent, stretch by stretch."""
        made = max((f.stop for f in saved.finals), default=0) if saved else 0
        if saved:
            yield self._progress(self._holding(saved, made), saved.round, saved.state, tuple(saved.finals))
        for part in self.parts:
            if part.stop > made:
                resumed = saved if saved and not saved.state.done and part.start <= made else None
                yield from self._stretch(part, resumed)

    def _holding(self, saved: Saved, made: int) -> Stretch:
        """The stretch that a saved state belongs to."""
        return next(part for part in self.parts if part.stop > made - int(saved.state.done))

    def _stretch(self, part: Stretch, saved: Saved | None) -> Generator[Progress]:
        loop, wrapper = self.plan.composition.loop, self.plan.composition.wrapper
        rounds = wrapper.rounds() if wrapper else 1
        first = saved.round if saved else 0
        ctx = self._context(part)
        self.bank.clear()
        self.bank.update(saved.bank if saved else {})
        with self.denoiser.patched(self.plan.composition.patch(self._view(part))):
            state = saved.state if saved else loop.init(ctx)
            for round in range(first, rounds):
                last = round == rounds - 1
                finals: list[Final] = []
                while not state.done:
                    state, events = loop.step(ctx, state)
                    finals += [e for e in events if isinstance(e, Final) and not last]
                    shown = events if last else [e for e in events if not isinstance(e, Final)]
                    if not state.done or last:
                        yield self._progress(part, round, state, self._matched(part, part.show(shown)))
                if not last and wrapper:
                    x, row = wrapper.refine(ctx, torch.cat([f.x for f in finals], dim=2), round + 1)
                    state = loop.init(replace(ctx, noise=_sliced(x), start=row))
                    yield self._progress(part, round + 1, state, ())

    def _progress(self, part: Stretch, round: int, state: State, events: tuple[Event, ...]) -> Progress:
        """Later rounds start further down the schedule, so they have fewer steps than the first."""
        plan, wrapper = self.plan, self.plan.composition.wrapper
        rounds, skipped = (wrapper.rounds(), wrapper.restart(self.solver.schedule)) if wrapper else (1, 0)

        def steps(parts: Sequence[Stretch]) -> int:
            once = [plan.composition.loop.steps(p.frames, plan.steps, plan.info) for p in parts]
            return sum(n + (rounds - 1) * (n - skipped) for n in once)

        own = plan.composition.loop.steps(part.frames, plan.steps, plan.info)
        done = steps(self.parts[: self.parts.index(part)]) + state.step + round * (own - skipped)
        return Progress(round, done, steps(self.parts), state, events)

    def _matched(self, part: Stretch, events: list[Event]) -> tuple[Event, ...]:
        """Where a loop knows no chunks, stabilisers match the later shots of a stretch to its first one."""
        edits, loop = self.plan.composition.stabilisers, self.plan.composition.loop
        if not edits or loop.info.finality == "stream":
            return tuple(events)
        told = spans(self.plan.timeline, self.plan.grid.stride, self.plan.grid.lead_pad)
        inside = [(max(a, part.start), min(b, part.stop)) for a, b in told if a < part.stop and b > part.start]
        stabilise = _chained([m.stabilise for m in edits])

        def match(final: Final) -> Final:
            looks = [final.x[:, :, a - part.start : b - part.start] for a, b in inside]
            return replace(final, x=torch.cat([looks[0], *(stabilise(x, looks[0]) for x in looks[1:])], 2))

        return tuple(match(e) if isinstance(e, Final) else e for e in events)

    def _context(self, part: Stretch) -> Context:
        plan, grid = self.plan, self.plan.grid.with_frames(part.frames)
        stabilisers = plan.composition.stabilisers

        def fresh(tag: str, start: int, stop: int) -> Tensor:
            return latent_noise(grid, part.seed, start, stop, tag)

        return Context(
            denoise=lambda calls: self._denoise([part.place(call) for call in calls]),
            solver=self.solver.seeded(fresh) if self.solver.stochastic else self.solver,
            schedule=self.solver.schedule,
            grid=grid,
            info=plan.info,
            seed=part.seed,
            noise=lambda start, stop: self._noise(part, start, stop),
            fresh=fresh,
            device=self.model.device,
            bank=self.bank,
            stabilise=_chained([m.stabilise for m in stabilisers]) if stabilisers else None,
            known=None if part.start else self.known,
        )

    def noise(self, start: int, stop: int) -> Tensor:
        """x_T[start:stop) of the video, as the loop is given it; shots with a seed of their own draw from it."""
        inside = [(p, max(start, p.start), min(stop, p.stop)) for p in self.parts if p.start < stop and p.stop > start]
        return torch.cat([self._noise(part, a - part.first, b - part.first) for part, a, b in inside], dim=2)

    def _noise(self, part: Stretch, start: int, stop: int) -> Tensor:
        """x_T of the loop's latents [start, stop) in a stretch: its own, or what the run was given."""
        lead = stop - start
        if self.init is not None:
            lead = min(max(0, part.lead - start), lead)
        draw = self.plan.composition.noise.noise if self.plan.composition.noise else latent_noise
        grid = self.plan.grid.with_frames(part.frames)
        parts = part.seeds(self.plan.timeline, grid, start, start + lead) if lead or self.init is None else []
        drawn = [draw(grid, seed, a, b) for seed, a, b in parts]
        if self.init is not None:
            drawn.append(self.init[:, :, start + lead + part.first : min(part.stop, stop + part.first)])
        return drawn[0] if len(drawn) == 1 else torch.cat(drawn, dim=2)

    def _view(self, part: Stretch) -> View:
        plan, info = self.plan, self.plan.info
        return View(
            frames=plan.composition.loop.view(part.frames, info),
            native=info.native_latents,
            total=part.stop,
            tokens=plan.grid.tokens,
            layers=info.layers,
            rope=info.rope,
            schedule=self.solver.schedule,
            seconds_per_latent=info.stride / plan.fps,
            bank=self.bank,
        )

    def _denoise(self, calls: Sequence[Call]) -> list[Tensor]:
        self.forwards += len(calls)
        run = self._batched if self.plan.request.window_batch > 1 else self._singly
        if self.plan.request.parallel != "calls" or distribute.world() == 1:
            return run(calls)
        if len(calls) == 1 and not self._shares_keys:
            return self.denoiser.denoise_batch(calls, distribute.deal)
        return run(calls) if self.plan.composition.chain else distribute.spread(run, calls)

    @property
    def _shares_keys(self) -> bool:
        """Whether calls leave keys to each other, all of which every process must have."""
        return any("kv" in part.slots for part in self.plan.composition.parts)

    def _singly(self, calls: Sequence[Call]) -> list[Tensor]:
        return [self.denoiser.denoise(call) for call in calls]

    def _batched(self, calls: Sequence[Call]) -> list[Tensor]:
        size, results, start = self.plan.request.window_batch, list[Tensor](), 0
        while start < len(calls):
            stop = start + 1
            while stop < min(len(calls), start + size) and calls[stop].x.shape == calls[start].x.shape:
                stop += 1
            results += self.denoiser.denoise_batch(calls[start:stop])
            start = stop
        return results


def conditions(plan: Plan, prompts: PromptSchedule | None = None, **media: Tensor | None) -> Conditions:
    """What the denoiser is told: the plan's timeline as a prompt schedule, image and control if given."""
    return Conditions(plan.prompts if prompts is None else prompts, seed=plan.seed, fps=plan.fps, **media)


def texts(plan: Plan, prompts: PromptSchedule) -> list[str]:
    """All that the model will read in a run."""
    unguided = plan.info.embedded_guidance
    return [*prompts.texts, *([] if unguided else prompts.negatives)]


def _sliced(x: Tensor) -> Callable[[int, int], Tensor]:
    return lambda start, stop: x[:, :, start:stop]


def _chained(edits: list[Callable[[Tensor, Tensor], Tensor]]) -> Callable[[Tensor, Tensor], Tensor]:
    def stabilise(x: Tensor, reference: Tensor) -> Tensor:
        for edit in edits:
            x = edit(x, reference)
        return x

    return stabilise
