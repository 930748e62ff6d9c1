"""A loop walked without a model: every call that a run will make, in order.

The loop, its wrapper and the prompts are the run's own; only the latents are one token wide and the model answers with
what it is asked. Levels come from the checkpoint's JSON facts, so a row near a threshold may lie one beside the run's.
Knows compositions. Does not know what calls cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from longgen.core.euler import Euler
from longgen.protocols import Context, PromptSchedule
from longgen.runtime.compose import Composition
from longgen.runtime.stretches import Stretch
from longgen.types import Call, Final, LatentGrid, Level, ModelInfo, Schedule

TRAIN_STEPS = 1000


def expected_schedule(info: ModelInfo, steps: int, flow_shift: float | None) -> Schedule:
    """The table of σ that the checkpoint's own solver will have, to a row or so.

    Flow models: σ = s·u/(1 + (s − 1)·u) with u from 1 towards 0 in equal steps; others as their footprint tells.
    """
    u = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    course = info.footprint.course if info.footprint else ()
    if course and flow_shift == info.flow_shift:
        known = torch.tensor(course, dtype=torch.float64)
        at = (1 - u) * (len(course) - 1)
        low = at.floor().long().clamp(max=len(course) - 2)
        sigma = known[low] + (at - low) * (known[low + 1] - known[low])
        sigma[-1] = 0
    else:
        shift = 1.0 if flow_shift is None else flow_shift
        sigma = shift * u / (1 + (shift - 1) * u)
    sigma = sigma.float()
    return Schedule(Level(sigma, 1 - sigma, sigma * TRAIN_STEPS, torch.arange(steps + 1)))


@dataclass(frozen=True)
class Ask:
    """Calls that the loop makes together, and how many latents its state holds meanwhile."""

    calls: tuple[Call, ...]
    state: int


def rehearse(
    composition: Composition, grid: LatentGrid, info: ModelInfo, schedule: Schedule, part: Stretch | None = None
) -> Iterator[Ask]:
    """The calls of a whole run, or of a stretch, over all rounds. Their latents are zeros, one token wide."""
    part = part or Stretch(0, grid.frames, 0, 0)
    small = LatentGrid(part.frames, 1, grid.patch[1], grid.patch[2], grid.stride, grid.patch, grid.lead_pad)
    made: list[Sequence[Call]] = []

    def denoise(calls: Sequence[Call]) -> list[Tensor]:
        made.append([part.place(call) for call in calls])
        return [call.x for call in calls]

    def nothing(start: int, stop: int) -> Tensor:
        return torch.zeros(1, 1, stop - start, small.height, small.width)

    ctx = Context(
        denoise=denoise,
        solver=Euler(schedule),  # a rehearsal needs the number of steps only
        schedule=schedule,
        grid=small,
        info=info,
        seed=0,
        noise=nothing,
        fresh=lambda tag, start, stop: nothing(start, stop),
        device=torch.device("cpu"),
    )
    loop, wrapper = composition.loop, composition.wrapper
    finals: list[Tensor] = []
    for round in range(wrapper.rounds() if wrapper else 1):
        if round and wrapper:
            _, row = wrapper.refine(ctx, torch.cat(finals, dim=2), round)
            ctx, finals = replace(ctx, start=row), []
        state = loop.init(ctx)
        while not state.done:
            held = state.x.shape[2]
            state, events = loop.step(ctx, state)
            finals += [event.x for event in events if isinstance(event, Final)]
            yield from (Ask(tuple(calls), held) for calls in made)
            made.clear()


@dataclass(frozen=True)
class Forward:
    """One run of the network that a call asks for.

    Args:
        latents: T of the call.
        own_levels: whether its latents have levels of their own.
        texts: m, texts in the sequence. seen: how many of them each latent attends to.
    """

    latents: int
    own_levels: bool
    texts: int = 1
    seen: int = 1


def forwards(call: Call, prompts: PromptSchedule, info: ModelInfo) -> list[Forward]:
    """The network's runs for one call: experts × (texts mixed by output, or one; and the negative side)."""
    base = Forward(call.x.shape[2], not call.level.uniform)
    sides = _texts(call, prompts, "joint_text" in info.capabilities, base)
    scale = prompts.guidance(call.frames)
    if not info.embedded_guidance and bool(torch.as_tensor(scale).max() > 1):
        sides = [*sides, base]
    if info.boundary is None or call.level.uniform:
        return sides
    low = call.level.t < info.boundary * TRAIN_STEPS
    return sides * len(low.unique())


def _texts(call: Call, prompts: PromptSchedule, joint: bool, base: Forward) -> list[Forward]:
    """How `models.texts.outputs` and `models.onetext` will split the call."""
    if len(prompts.texts) == 1:
        return [base]
    mix = prompts.mix(call.frames, call.level)
    if mix.space == "output" or (joint and bool((mix.weights != mix.weights[:1]).any())):
        return [base] * int((mix.weights != 0).any(0).sum())
    if joint:
        return [base]
    if mix.space == "bias":
        return [replace(base, texts=mix.weights.shape[1], seen=mix.weights.shape[1])]
    rows = [mix.weights] if mix.early is None else [mix.weights, mix.early]
    return [replace(base, texts=len(torch.cat(rows).unique(dim=0)))]
