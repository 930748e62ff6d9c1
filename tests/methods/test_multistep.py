"""UniPC with a memory per latent against diffusers' scheduler, one object per latent, and through whole queues."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from diffusers import UniPCMultistepScheduler
from fakes import Bench, bench, grid_of, mixing, model_info
from safetensors.torch import load, save
from torch import Tensor

from longgen.core import multistep
from longgen.core.levels import ladder
from longgen.core.noise import latent_noise
from longgen.methods.direct import Direct
from longgen.methods.fifo import Fifo, Miga
from longgen.models.solvers import make
from longgen.runtime.checkpoint import flatten, unflatten
from longgen.types import Call, Level, State


def scheduler(shift: float = 3.0) -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(prediction_type="sample", use_flow_sigmas=True, flow_shift=shift)


class PerLatent:
    """As the public zigzag code does it: a scheduler object for each latent, here diffusers' on the queue's levels."""

    def __init__(self, rungs: Level) -> None:
        self.top = len(rungs.sigma) - 1
        self.fresh = scheduler()
        self.fresh.set_timesteps(self.top)
        self.fresh.sigmas = rungs.sigma.flip(0).clone()
        self.own: dict[Any, UniPCMultistepScheduler] = {}

    def step(self, latent: Any, rung: int, x: Tensor, clean: Tensor) -> Tensor:
        own = self.own.setdefault(latent, copy.deepcopy(self.fresh))
        own._step_index = self.top - rung
        moved: Tensor = own.step(clean, own.timesteps[self.top - rung], x, return_dict=False)[0]
        return moved

    def fork(self, latent: Any, other: Any) -> None:
        self.own[latent] = copy.deepcopy(self.own[other])


def case_of(frames: int, steps: int, native: int) -> Bench:
    solver = make(scheduler(), "unipc", steps)
    return Bench(mixing, model_info(native), grid_of(model_info(native), frames), solver.schedule, solver=solver)


def test_latents_at_rungs_of_their_own_step_like_schedulers_of_their_own() -> None:
    """Random estimates, latents that start at different rungs, a table that is nobody's own."""
    table = ladder(make(scheduler(), "unipc", 7).schedule, 9, "uniform")
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 5, 1, 3, generator=draw)
    memory, rung, reference = multistep.blank(x), torch.tensor([3, 5, 9, 9, 1]), PerLatent(table)
    while int(rung.max()) > 0:
        alive = (rung > 0).nonzero().flatten().tolist()
        clean = torch.randn(x.shape, generator=draw)
        wanted = {i: reference.step(i, int(rung[i]), x[:, :, i : i + 1], clean[:, :, i : i + 1]) for i in alive}
        for a in alive:  # latents that are clean already are not in the queue any more
            moved, own = multistep.unipc(
                multistep.part(memory, a, a + 1), x[:, :, a : a + 1], clean[:, :, a : a + 1], table, rung[a : a + 1]
            )
            assert torch.allclose(moved, wanted[a], atol=1e-4), (a, int(rung[a]))
            x = torch.cat([x[:, :, :a], moved, x[:, :, a + 1 :]], 2)
            memory = multistep.join(multistep.part(memory, 0, a), own, multistep.part(memory, a + 1))
        rung = (rung - 1).clamp(min=0)


def test_all_latents_in_step_are_one_scheduler() -> None:
    for steps in (2, 3, 8):
        ours, _ = case_of(4, steps, 4).run(
            Fifo(partitions=steps, group=4, levels="solver", lookahead=False, rule="unipc")
        )
        theirs, _ = case_of(4, steps, 4).run(Direct())
        assert torch.allclose(ours, theirs, atol=1e-4), (steps, (ours - theirs).abs().max())


@pytest.mark.parametrize("frames", [4, 5, 9, 14])
@pytest.mark.parametrize("start", ["trajectory", "grow"])
def test_a_queue_of_lists_with_a_scheduler_in_each_place(frames: int, start: str) -> None:
    """The diagonal, no lookahead: disjoint windows of 4 over 8 levels, held in plain lists."""
    case, window = case_of(frames, 6, 4), 4
    got, _ = case.run(Fifo(partitions=2, lookahead=False, start=start, rule="unipc"))
    rungs, top = ladder(case.schedule, 8, "uniform"), 8
    x = [latent_noise(case.grid, 0, i, i + 1) for i in range(frames)]
    reference, rung = PerLatent(rungs), [top] * frames
    if start == "trajectory":
        clip = list(x[:window])
        for level in range(top, top - window + 1, -1):
            clean = mixing(Call(torch.cat(clip, 2), rungs[level], tuple(range(window)))).split(1, 2)
            clip = [reference.step(("clip", i), level, clip[i], clean[i]) for i in range(window)]
            joined = level - 1 - (top - window + 1)  # the latent that joins the queue at this rung
            x[joined], rung[joined] = clip[joined], level - 1
            reference.fork(joined, ("clip", joined))
    front = (window if start == "trajectory" else 1) - top
    while any(rung):
        new, done = list(x), list(rung)
        for a in range(front, front + top, window):
            mine = [i for i in range(max(a, 0), min(a + window, frames)) if i < front + top]
            if not mine:
                continue
            begin = min(max(a, 0), max(window, min(front + top, frames)) - window)
            inside = range(begin, begin + window)
            clean = mixing(
                Call(torch.cat([x[i] for i in inside], 2), Level.cat([rungs[rung[i]] for i in inside]), tuple(inside))
            )
            for i in mine:
                new[i] = reference.step(i, rung[i], x[i], clean[:, :, i - begin : i - begin + 1])
                done[i] = rung[i] - 1
        x, rung, front = new, done, front + 1
    assert torch.allclose(got, torch.cat(x, 2), atol=2e-4), (got - torch.cat(x, 2)).abs().max()


@pytest.mark.parametrize("method", [
    Fifo(partitions=2, rule="unipc"), Fifo(partitions=2, rule="unipc", start="renoise"),
    Fifo(partitions=2, rule="unipc", start="grow", flush=False), Miga(group=2, passes=2, rule="unipc"),
    Miga(group=1, guides=0, partitions=3, depth=2, reflect=2, drop=0.0, rule="unipc"),
])  # fmt: skip
def test_memories_are_saved_with_the_state(method: Fifo) -> None:
    def saved(state: State) -> State:
        tensors: dict[str, Tensor] = {}
        names = ("x", "step", "done", "solver", "extra")
        tree = json.dumps(flatten({n: getattr(state, n) for n in names}, tensors))
        return State(**unflatten(json.loads(tree), load(save(tensors)), torch.device("cpu")))

    for frames in (4, 9):
        whole, _ = bench(mixing, frames, info=model_info(4)).run(method)
        broken, _ = bench(mixing, frames, info=model_info(4)).run(method, between=saved)
        first, _ = bench(mixing, frames, info=model_info(4)).run(type(method)(**{**method.settings, "rule": "first"}))
        assert whole.isfinite().all() and torch.equal(whole, broken) and not torch.equal(whole, first)
