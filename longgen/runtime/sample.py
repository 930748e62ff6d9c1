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
from longgen.story.schedules import cuts, seeds
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
        if self.solver.stochastic:
            self.solver = self.solver.seeded(self._fresh)
        self.denoiser: Denoiser = model.denoiser(conditions, plan.grid, plan.steps)
        self.bank: dict[str, Tensor] = {}
        self.forwards = 0
        self.known = model.encode_video(plan.source.end(plan.size)) if plan.source else None

    @torch.no_grad()  # as a decorator it is off again at every yield; a `with` inside would leak to the consumer
    def run(self, saved: Saved | None = None) -> Generator[Progress]:
        """From the start, or from a saved state, to the last final latent."""
        loop, wrapper = self.plan.composition.loop, self.plan.composition.wrapper
        rounds = wrapper.rounds() if wrapper else 1
        first = saved.round if saved else 0
        ctx = self._context()
        if saved:
            self.bank.update(saved.bank)
            yield self._progress(first, saved.state, tuple(saved.finals))
        with self.denoiser.patched(self.plan.composition.patch(self._view())):
            state = saved.state if saved else loop.init(ctx)
            for round in range(first, rounds):
                last = round == rounds - 1
                finals: list[Final] = []
                while not state.done:
                    state, events = loop.step(ctx, state)
                    finals += [e for e in events if isinstance(e, Final) and not last]
                    shown = events if last else [e for e in events if not isinstance(e, Final)]
                    if not state.done or last:
                        yield self._progress(round, state, tuple(shown))
                if not last and wrapper:
                    x, row = wrapper.refine(ctx, torch.cat([f.x for f in finals], dim=2), round + 1)
                    state = loop.init(replace(ctx, noise=_sliced(x), start=row))
                    yield self._progress(round + 1, state, ())

    def _progress(self, round: int, state: State, events: tuple[Event, ...]) -> Progress:
        """Later rounds start further down the schedule, so they have fewer steps than the first."""
        plan, wrapper = self.plan, self.plan.composition.wrapper
        steps = plan.composition.loop.steps(plan.grid.frames, plan.steps, plan.info)
        rounds, skipped = (wrapper.rounds(), wrapper.restart(self.solver.schedule)) if wrapper else (1, 0)
        done = state.step + round * (steps - skipped)
        return Progress(round, done, steps + (rounds - 1) * (steps - skipped), state, events)

    def _context(self) -> Context:
        plan, grid = self.plan, self.plan.grid
        stabilisers = plan.composition.stabilisers
        return Context(
            denoise=self._denoise,
            solver=self.solver,
            schedule=self.solver.schedule,
            grid=grid,
            info=plan.info,
            seed=plan.seed,
            noise=_sliced(self.init) if self.init is not None else self.noise,
            fresh=self._fresh,
            device=self.model.device,
            bank=self.bank,
            stabilise=_chained([m.stabilise for m in stabilisers]) if stabilisers else None,
            cuts=cuts(plan.timeline, plan.grid.stride),
            known=self.known,
        )

    def _fresh(self, tag: str, start: int, stop: int) -> Tensor:
        return latent_noise(self.plan.grid, self.plan.seed, start, stop, tag)

    def noise(self, start: int, stop: int) -> Tensor:
        """x_T[start:stop); shots with a seed of their own draw from it."""
        draw = self.plan.composition.noise.noise if self.plan.composition.noise else latent_noise
        parts = seeds(self.plan.timeline, self.plan.grid.stride, self.plan.seed, start, stop)
        drawn = [draw(self.plan.grid, seed, a, b) for seed, a, b in parts]
        return drawn[0] if len(drawn) == 1 else torch.cat(drawn, dim=2)

    def _view(self) -> View:
        plan, info = self.plan, self.plan.info
        return View(
            frames=plan.composition.loop.view(plan.grid.frames, info),
            native=info.native_latents,
            total=plan.grid.frames,
            tokens=plan.grid.tokens,
            layers=info.layers,
            rope=info.rope,
            schedule=self.solver.schedule,
            seconds_per_latent=info.stride / plan.fps,
            bank=self.bank,
            cuts=cuts(plan.timeline, plan.grid.stride),
        )

    def _denoise(self, calls: Sequence[Call]) -> list[Tensor]:
        self.forwards += len(calls)
        run = self._batched if self.plan.request.window_batch > 1 else self._singly
        return run(calls) if self.plan.composition.chain else distribute.spread(run, calls)

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
    if prompts is None:
        from longgen.story.schedules import build

        request = plan.request
        prompts = build(plan.timeline, request.schedule, plan.grid.stride, plan.guidance, plan.negative)
    return Conditions(prompts, seed=plan.seed, fps=plan.fps, **media)


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
