"""A hard cut ends everything that holds a video together: what follows is a video of its own, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from models.tiny import wan
from torch import Tensor

from longgen.api import Session
from longgen.config import Request
from longgen.core.noise import latent_noise
from longgen.runtime.checkpoint import Saved
from longgen.runtime.run import Job
from longgen.runtime.sample import Sampler, conditions
from longgen.runtime.stretches import stretches
from longgen.story.schedules import spans
from longgen.types import Call, Final, LatentGrid, Preview, Shot, Timeline

RED, BLUE, STAR = "a red circle moving left", "a blue square moving right", "a green star on black"
# Latents 0 … 7, 8 … 15 and 16 … 20 of a model of four frames per latent.
SHOTS = (
    Shot(RED, 0, 29, "a"),
    Shot(BLUE, 29, 61, "b", transition="cut", seed=9),
    Shot(STAR, 61, 81, "c", transition="cut"),
)
TWO = Timeline((*SHOTS[:2],), 16)


@pytest.fixture(scope="module")
def session() -> Session:
    made = Session(wan("2.1"))
    made.info = replace(made.info, native_frames=17)
    made.model.info = made.info
    return made


def latents(session: Session, timeline: Timeline | None, method: str, **asked: Any) -> Tensor:
    request = Request(prompt=RED, method=method, num_inference_steps=2, height=32, width=32, **asked)
    kept = session.run(session.plan(request, timeline), Job(keep=True)).latents
    assert kept is not None
    return kept


@pytest.mark.parametrize(
    "method", ["direct", "windows", "freenoise", "extend", "fifo", "windows,ditctrl", "freeinit,windows"]
)
def test_each_side_of_a_cut_is_what_it_is_alone(session: Session, method: str) -> None:
    """After the cut one latent is made and dropped: a run's first latent stands for a single frame."""
    told = latents(session, TWO, method)
    before = latents(session, None, method, num_frames=29)
    after = latents(session, Timeline.single(BLUE, 33, 16), method, seed=9)
    assert told.shape[2] == 16
    assert torch.equal(told[:, :, :8], before) and torch.equal(told[:, :, 8:], after[:, :, 1:])


def test_shots_that_are_cut_are_the_same_under_every_schedule(session: Session) -> None:
    told = latents(session, Timeline(SHOTS, 16), "windows")
    for schedule in ("window", "travel", "blend", "inject", "inject:variant=code"):
        assert torch.equal(latents(session, Timeline(SHOTS, 16), "windows", schedule=schedule), told), schedule
    near = latents(session, Timeline(SHOTS, 16), "windows", schedule="relay")
    assert torch.allclose(near, told, atol=1e-3), "what is left of the other shots' texts: e^-C"


def test_without_a_cut_nothing_is_apart(session: Session) -> None:
    shots = (TWO.shots[0], replace(TWO.shots[1], transition="continue"))
    assert not torch.equal(latents(session, Timeline(shots, 16), "windows"), latents(session, TWO, "windows"))
    assert len(stretches(Timeline(shots, 16), LatentGrid(16, 2, 1, 1, 4), 0)) == 1


@pytest.mark.parametrize("method", ["windows", "extend", "freeinit,direct"])
def test_a_story_with_cuts_goes_on_after_every_step(session: Session, method: str) -> None:
    request = Request(prompt=RED, method=method, num_inference_steps=2, height=32, width=32)
    plan = session.plan(request, Timeline(SHOTS, 16))
    whole = list(Sampler(plan, session.model, conditions(plan)).run())
    want = torch.cat([f.x for p in whole for f in p.events if isinstance(f, Final)], 2)
    assert [p.done for p in whole] == list(range(1, len(whole) + 1)) and {p.total for p in whole} == {len(whole)}
    for stop in range(0, len(whole), 3):
        finals = [f for p in whole[: stop + 1] for f in p.events if isinstance(f, Final)]
        saved = Saved(whole[stop].round, whole[stop].state, {}, finals)
        rest = list(Sampler(plan, session.model, conditions(plan)).run(saved))
        again = torch.cat([f.x for p in rest for f in p.events if isinstance(f, Final)], 2)
        assert torch.equal(again, want) and rest[0].done == stop + 1


def test_the_plan_counts_what_is_made(session: Session) -> None:
    """Windows of 5 latents, whose heads are context: two over 8 latents, three over 1 + 8, two over 1 + 5."""
    request = Request(prompt=RED, method="windows", num_inference_steps=2, height=32, width=32)
    plan = session.plan(request, Timeline(SHOTS, 16))
    assert plan.windows == ((0, 5), (4, 8), (8, 12), (10, 14), (12, 16), (16, 20), (17, 21))
    outcome = session.run(plan, Job())
    assert plan.cost.calls == outcome.sidecar["calls"] == 2 * len(plan.windows)
    assert "hard cuts: stretches of 8, 8, 5 latents, each made as a video of its own" in plan.notes


@pytest.mark.parametrize("unit", [1, 2])
@pytest.mark.parametrize("lead_pad", [0, 1])
def test_stretches_tile_the_video_on_the_grid(unit: int, lead_pad: int) -> None:
    timeline = Timeline(SHOTS, 16)
    grid = LatentGrid(22, 2, 1, 1, 4, (unit, 1, 1), lead_pad)
    parts = stretches(timeline, grid, 3)
    assert [p.start for p in parts] == [0, *(-(-a // unit) * unit for a, _ in spans(timeline, 4, lead_pad)[1:])]
    assert all(a.stop == b.start for a, b in pairwise(parts)) and parts[-1].stop == 22
    assert all(p.lead % unit == 0 and p.lead > lead_pad for p in parts[1:]) and parts[0].lead == 0
    assert [p.seed for p in parts[:2]] == [3, 9] and parts[2].seed not in (3, 9)
    assert stretches(timeline, grid, 4)[2].seed != parts[2].seed


def test_events_are_shown_in_the_indices_of_the_video() -> None:
    part = stretches(TWO, LatentGrid(16, 2, 1, 1, 4), 0)[1]
    x = torch.arange(9.0)[None, None, :, None, None]
    whole, drop = Final(0, 9, x), Final(0, 1, x[:, :, :1])
    (final, preview), nothing = part.show([whole, Preview(0, x[:, :, 3:], 3)]), part.show([drop])
    assert isinstance(final, Final) and (final.start, final.stop) == (8, 16) and not nothing
    assert final.x.flatten().tolist() == list(range(1, 9)) and preview.start == 10
    assert part.spans([(0, 5), (4, 9)]) == [(8, 12), (11, 16)]


def test_shots_of_a_stretch_draw_from_their_own_seeds() -> None:
    shots = (Shot("a", 0, 29, "a"), Shot("b", 29, 61, "b", transition="cut"), Shot("c", 61, 93, "c", seed=5))
    part = stretches(Timeline(shots, 16), LatentGrid(24, 2, 1, 1, 4), 0)[1]
    for start in range(-2, 18):
        for stop in range(start + 1, 20):
            parts = part.seeds(Timeline(shots, 16), LatentGrid(24, 2, 1, 1, 4), start, stop)
            assert parts[0][1] == start and parts[-1][2] == stop
            assert all(a[2] == b[1] for a, b in pairwise(parts))
            own = [seed for seed, a, b in parts for _ in range(a, b)]
            assert own == [5 if i > 8 else part.seed for i in range(start, stop)]


def test_a_latent_that_is_never_decoded_moves_no_cut() -> None:
    """CogVideoX 1.5 denoises one in front: what frame 29 shows is one latent later."""
    plain, led = (stretches(TWO, LatentGrid(16 + n, 2, 1, 1, 4, lead_pad=n), 0) for n in (0, 1))
    assert plain[1].start == 8 and led[1].start == 9 and led[1].lead == 2
    shots = (Shot("a", 0, 29, "a"), Shot("b", 29, 61, "b", seed=5))
    part = stretches(Timeline(shots, 16), LatentGrid(17, 2, 1, 1, 4, lead_pad=1), 0)[0]
    grid = LatentGrid(17, 2, 1, 1, 4, lead_pad=1)
    assert part.seeds(Timeline(shots, 16), grid, 0, 17) == [(0, 0, 9), (5, 9, 17)]


def test_noise_by_video_index_is_the_noise_of_the_loops(session: Session) -> None:
    request = Request(prompt=RED, method="windows", num_inference_steps=2, height=32, width=32)
    plan = session.plan(request, Timeline(SHOTS, 16))
    sampler = Sampler(plan, session.model, conditions(plan))
    noise = sampler.noise(0, 21)
    assert torch.equal(noise[:, :, 8:16], latent_noise(plan.grid, 9, 1, 9))
    for a in range(0, 21, 3):
        assert torch.equal(sampler.noise(a, 21), noise[:, :, a:])
    given = torch.randn_like(noise)
    started = Sampler(plan, session.model, conditions(plan), given)
    for part in started.parts:
        assert torch.equal(started._noise(part, part.lead, part.frames), given[:, :, part.start : part.stop])


@pytest.mark.parametrize("method", ["windows,adain", "extend,adain"])
def test_adain_matches_shots_to_the_first_since_a_cut(session: Session, method: str) -> None:
    """Means of later shots come nearer to those of the first; what follows a cut has a look of its own."""
    shots = (*SHOTS[:1], replace(SHOTS[1], transition="continue"), SHOTS[2])
    plain = latents(session, Timeline(shots, 16), method.partition(",")[0])
    told = latents(session, Timeline(shots, 16), method, set={"adain.strength": 1.0})
    assert torch.equal(plain[:, :, :5], told[:, :, :5]) and torch.equal(plain[:, :, 16:20], told[:, :, 16:20])
    first = plain[:, :, :8] if method.startswith("windows") else plain[:, :, :5]
    axes = (2, 3, 4)
    gap = [(x[:, :, 8:16].mean(axes) - first.mean(axes)).abs().mean() for x in (plain, told)]
    assert gap[1] < 0.5 * gap[0]


def test_anchor_latents_are_seen_by_every_window_of_their_stretch(session: Session) -> None:
    """`windows.retain=0` holds the first latent of each stretch before every window of it."""
    shots = (SHOTS[0], replace(SHOTS[1], transition="continue"), SHOTS[2])

    def calls(settings: dict[str, Any]) -> list[tuple[int, ...]]:
        request = Request(prompt=RED, method="windows", num_inference_steps=2, height=32, width=32, set=settings)
        plan, seen = session.plan(request, Timeline(shots, 16)), list[tuple[int, ...]]()
        sampler = Sampler(plan, session.model, conditions(plan))
        inner = sampler.denoiser.denoise

        def denoise(call: Call) -> Tensor:
            seen.append(call.frames)
            return inner(call)

        sampler.denoiser.denoise = denoise  # type: ignore[method-assign]
        list(sampler.run())
        return seen

    assert not all(0 in frames for frames in calls({}) if max(frames) < 16)
    held = calls({"windows.retain": "0", "windows.overlap_latents": 3})
    assert all(0 in frames for frames in held if max(frames) < 16)
    assert all(min(frames) == 16 for frames in held if max(frames) >= 16), "not over the cut"
