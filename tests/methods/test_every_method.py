"""Every registered method on a tiny random Wan, from request to final latents; hooks counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from models.tiny import save, wan
from torch import Tensor

from longgen import registry
from longgen.api import Session
from longgen.config import Request
from longgen.runtime.plan import Plan
from longgen.runtime.sample import Sampler, conditions
from longgen.runtime.stretches import Stretch
from longgen.types import Final

STEPS = 6


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Tiny Wan2.1 with a native length of 17 frames, 5 latents."""
    return Session(save(wan("2.1"), tmp_path_factory.mktemp("model") / "tiny"))


def composition(name: str) -> str:
    """The method beside the loop that it is made for."""
    slots = registry.method(name).info.slots
    if "kv" in slots:
        return f"windows,{name}"
    return f"extend,{name}" if "stabilise" in slots else name


def sampled(session: Session, method: str, frames: int, **options: Any) -> tuple[Tensor, Sampler, Plan]:
    request = Request(
        prompt="a red circle moving left", method=method, num_frames=frames, num_inference_steps=STEPS, **options
    )
    plan = session.plan(request)
    sampler = Sampler(plan, session.model, conditions(plan))
    finals = [e for progress in sampler.run() for e in progress.events if isinstance(e, Final)]
    assert [f.start for f in finals] == [0, *(f.stop for f in finals[:-1])]
    return torch.cat([f.x for f in finals], 2), sampler, plan


def checked(session: Session, name: str, frames: int) -> None:
    x, sampler, plan = sampled(session, composition(name), frames, guidance_scale=1.0)
    assert x.shape == plan.grid.shape and x.isfinite().all()
    if plan.composition.wrapper:  # later rounds start below the first level
        assert 0 < sampler.forwards <= plan.cost.calls
    else:
        assert sampler.forwards == plan.cost.calls, "the plan states the calls that are made"


@pytest.mark.parametrize("name", registry.METHODS)
def test_every_method_runs(session: Session, name: str) -> None:
    """At the native length and at a length that is no multiple of anything."""
    for frames in (17, 42):
        checked(session, name, frames)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [33, 51, 90, 129, 257])
@pytest.mark.parametrize("name", registry.METHODS)
def test_every_method_runs_at_every_length(session: Session, name: str, frames: int) -> None:
    checked(session, name, frames)


@pytest.mark.parametrize("name", [n for n in registry.METHODS if "route" in registry.method(n).info.slots])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_hooks_run_once_per_layer_branch_and_call(session: Session, name: str, guidance: float) -> None:
    request = Request(prompt="a red circle", method=name, num_frames=42, num_inference_steps=2, guidance_scale=guidance)
    plan = session.plan(request)
    sampler = Sampler(plan, session.model, conditions(plan))
    part = Stretch(0, plan.grid.frames, 0, plan.seed)
    whole = plan.composition.patch(sampler._view(part))
    assert whole.attention is not None
    hook, seen = whole.attention, list[tuple[int, str, int]]()

    def counted(site: Any, *args: Any) -> Tensor:
        seen.append((site.layer, site.branch, site.step))
        return hook(site, *args)

    with sampler.denoiser.patched(replace(whole, attention=counted)), torch.no_grad():
        ctx = sampler._context(part)
        state = plan.composition.loop.init(ctx)
        while not state.done:
            state, _ = plan.composition.loop.step(ctx, state)
    branches = {"cond"} if guidance == 1 else {"cond", "uncond"}
    assert len(seen) == len(set(seen)) == plan.info.layers * len(branches) * plan.cost.calls
    assert {branch for _, branch, _ in seen} == branches


@pytest.mark.parametrize(
    "name", [n for n in registry.METHODS if {"route", "logits"} & set(registry.method(n).info.slots)]
)
def test_attention_methods_differ_from_direct_beyond_native_length_only(session: Session, name: str) -> None:
    part = f"{name}.{'route' if 'route' in registry.method(name).info.slots else 'logits'}"
    for frames, equal in ((17, True), (65, False)):
        ours, theirs = (sampled(session, m, frames, guidance_scale=1.0)[0] for m in (part, "direct"))
        assert torch.equal(ours, theirs) == equal
