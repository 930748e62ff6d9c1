"""Window plans and the co-denoising loop, against counts and partitions worked out apart from the code."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from fakes import TwoStep, bench, constant_velocity, flow_schedule, frame_local, mixing, model_info, oracle, vp_schedule
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longgen.core.fuse import fuse
from longgen.core.windows import Sizes, bit_reversed, plan, shifted_starts, sizes, starts
from longgen.errors import BadInput
from longgen.methods.direct import Direct
from longgen.methods.windows import Windows
from longgen.types import Call, per_latent

PLANNERS = ("static", "uniform", "looped", "batched")
RETAIN: dict[str, Any] = {"retain": "1", "anchor": 0, "overlap_latents": 4}
KINDS = ("pyramid", "linear", "flat", "sine")


def lengths(window: int, stride: int) -> range:
    """From 1 latent to 6 windows, every remainder."""
    return range(1, window + 5 * stride + 1)


@pytest.mark.parametrize("planner", PLANNERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("anchor", [0, 1])
@pytest.mark.parametrize(("window", "stride"), [(4, 3), (5, 2), (6, 4)])
def test_shares_are_a_partition_of_unity(planner: Any, kind: Any, anchor: int, window: int, stride: int) -> None:
    for frames, step in itertools.product(lengths(window, stride), range(5)):
        total = torch.zeros(frames)
        made = plan(frames, Sizes(window, stride), step, planner=planner, weights=kind, anchor=anchor)
        for w in made:
            assert len(w.frames) <= window and len(set(w.frames)) == len(w.frames)
            assert (w.share > 0).all() or planner == "batched"
            for share, latent in zip(w.share.tolist(), w.body, strict=True):
                total[latent] += share
        assert torch.allclose(total, torch.ones(frames), atol=1e-6)
        if frames <= window:
            assert len(made) == 1 and made[0].frames == tuple(range(frames)) and made[0].lead == 0
            assert torch.equal(made[0].share, torch.ones(frames))


@pytest.mark.parametrize(("frames", "window", "overlap", "count"), [
    (21, 21, 7, 1), (41, 21, 7, 3), (81, 21, 7, 6), (81, 21, 4, 5), (161, 21, 7, 11), (121, 21, 7, 9), (65, 33, 11, 3),
])  # fmt: skip
def test_number_of_windows(frames: int, window: int, overlap: int, count: int) -> None:
    """n = ⌈(T − ov)/(W − ov)⌉; 121 latents of 21 with overlap 7 take nine."""
    sized = Sizes(window, window - overlap)
    for placement in ("spread", "clamp"):
        first = starts(frames, sized, placement)  # type: ignore[arg-type]
        assert len(first) == count and first[0] == 0 and first[-1] == frames - window


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 90), st.sampled_from([1, 2]))
@settings(max_examples=150, deadline=None)
def test_starts_cover_without_gaps(window: int, stride: int, frames: int, unit: int) -> None:
    window, stride, frames = window * unit, min(stride, window) * unit, frames * unit
    sized = Sizes(window, stride, unit)
    for first in (starts(frames, sized, "spread"), starts(frames, sized, "clamp"), shifted_starts(frames, sized, 3)):
        assert first[0] == 0 and first[-1] == max(frames - window, 0)
        assert all(0 < b - a <= stride and a % unit == 0 for a, b in itertools.pairwise(first))


def test_even_starts_do_not_nearly_coincide() -> None:
    """Clamping gives …, 84, 98, 100 for 121 latents in windows of 21, step 14; even starts stay 12 or 13 apart."""
    sized = Sizes(21, 14)
    assert starts(121, sized, "clamp")[-3:] == [84, 98, 100]
    gaps = {b - a for a, b in itertools.pairwise(starts(121, sized))}
    assert gaps <= {12, 13}


def test_uniform_seams_move() -> None:
    """No inner start repeats in the first eight steps of windows of 21 with step 14."""
    inner = [set(shifted_starts(200, Sizes(21, 14), s)[1:-1]) for s in range(8)]
    assert all(not a & b for a, b in itertools.combinations(inner, 2))
    assert [bit_reversed(i) for i in range(4)] == [0, 0.5, 0.25, 0.75]


@pytest.mark.parametrize("planner", PLANNERS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_window_is_direct_bit_for_bit(planner: str, kind: str) -> None:
    info = model_info(5)
    for frames, steps, schedule in itertools.product(range(1, 6), (1, 4, 7), (flow_schedule, vp_schedule)):
        for solver in (None, TwoStep(schedule(steps))):
            options: dict[str, Any] = {"schedule": schedule(steps), "solver": solver, "info": info}
            ours, _ = bench(mixing, frames, **options).run(Windows(plan=planner, weights=kind))
            theirs, _ = bench(mixing, frames, **options).run(Direct())
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("model", [frame_local, constant_velocity])
@pytest.mark.parametrize("options", [*({"plan": p} for p in PLANNERS), {"retain": "0", "anchor": 0}, {"anchor": 0}])
def test_models_without_mixing_do_not_see_windows(model: Any, options: dict[str, Any]) -> None:
    info = model_info(4)
    for frames in lengths(4, 3):
        ours, _ = bench(model, frames, info=info, solver=TwoStep(flow_schedule(4))).run(Windows(**options))
        theirs, _ = bench(model, frames, info=info, solver=TwoStep(flow_schedule(4))).run(Direct())
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_fusing_velocities_is_fusing_clean_estimates() -> None:
    """v = (x − z)/σ is affine in z at one x and level, so both fusions give one result."""
    info, method = model_info(4), Windows(window_latents=4, stride_latents=2)
    x, level = torch.randn(1, 2, 11, 1, 2), flow_schedule(4)[1]
    made = method.plan_at(11, info)
    clean = [mixing(Call(x[:, :, list(w.frames)], level, w.frames)) for w in made]
    velocity = [(x[:, :, list(w.frames)] - z) / level.sigma for w, z in zip(made, clean)]
    by_velocity = x - per_latent(level.sigma, x) * fuse(velocity, made, 11)
    assert torch.allclose(fuse(clean, made, 11), by_velocity, atol=1e-6)


def test_lead_latents_never_reach_the_output() -> None:
    """A model that returns NaN for the anchor and retained latents of every window does no harm."""
    info = model_info(7)
    method = Windows(window_latents=7, overlap_latents=4, anchor=1, retain="0,1")
    for frames in range(8, 30):
        leads = {w.frames: w.lead for w in method.plan_at(frames, info)}

        def poisoned(call: Call, leads: dict[tuple[int, ...], int] = leads) -> Tensor:
            y = mixing(call)
            y[:, :, : leads[call.frames]] = float("nan")
            return y

        out, _ = bench(poisoned, frames, info=info).run(method)
        assert out.isfinite().all()
        for w in method.plan_at(frames, info)[1:]:
            assert 1 <= w.lead <= 3 and len(w.frames) == 7 and {0, 1} <= set(w.frames)
            assert w.frames[w.lead - 1] + 1 == w.body[0] or w.lead == 3


def test_looped_windows_wrap() -> None:
    """Every latent of a ring is fused, and some window joins the end to the start at every step."""
    for step in range(4):
        made = plan(10, Sizes(4, 3), step, planner="looped")
        assert any(9 in w.frames and 0 in w.frames for w in made)


def test_batched_windows_do_not_fuse() -> None:
    for frames in lengths(5, 5):
        for w in plan(frames, Sizes(5, 3), planner="batched", anchor=1):
            assert set(w.share.tolist()) <= {0.0, 1.0}


def test_windows_move_in_whole_patches() -> None:
    info = model_info(8, patch_t=2)
    for frames in range(2, 40, 2):
        for options in ({}, {"plan": "uniform"}, {"plan": "looped"}, {"window": 30, "overlap": 9}, RETAIN):
            for step in range(4):
                for w in Windows(**options).plan_at(frames, info, step):
                    assert len(w.frames) % 2 == w.lead % 2 == 0
                    assert all(b == a + 1 and a % 2 == 0 for a, b in zip(w.frames[::2], w.frames[1::2]))


def test_sizes_in_frames_become_latents() -> None:
    """81 frames and an overlap of 16 on Wan: 21 latents, overlap 4, as the public Wan ports have it."""
    wan = model_info(21)
    assert sizes({"window": 81, "overlap": 16}, wan) == Sizes(21, 17)
    assert sizes({"window": 80, "stride": 55}, wan) == Sizes(21, 14)
    assert sizes({}, wan) == Sizes(21, 14)
    assert sizes({}, model_info(33)) == Sizes(33, 22)
    assert sizes({"window": 30}, model_info(13, patch_t=2)) == Sizes(10, 6, 2)
    assert "window 80 frames becomes 81" in Windows(window=80).notes(81, wan)[0]


@pytest.mark.parametrize("options", [
    {"window": 9, "window_latents": 3}, {"stride": 4, "overlap": 4}, {"stride_latents": 2, "overlap": 4},
    {"stride_latents": 9}, {"overlap_latents": 3}, {"window": 0}, {"stride": float("nan")}, {"window": float("inf")},
    {"overlap": -4}, {"retain": "x"}, {"retain": "99"}, {"anchor": 2}, {"retain": "0,1,2"},
])  # fmt: skip
def test_bad_sizes_are_refused_in_one_line(options: dict[str, Any]) -> None:
    with pytest.raises(BadInput) as caught:
        Windows(**options).check(9, model_info(3))
    assert "\n" not in str(caught.value)


def test_beyond_native_windows_lose_long_range_correlation() -> None:
    """What windows are known to do: nothing ties latents further apart than a few windows."""

    def correlation(method: Any) -> float:
        made = bench(oracle(0.98), 24, info=model_info(4, channels=64), steps=8)
        x, _ = made.run(method)
        a, b = x[:, :, 0].flatten(), x[:, :, -1].flatten()
        return float((a * b).mean() / (a.square().mean() * b.square().mean()).sqrt())

    assert correlation(Direct()) > correlation(Windows()) + 0.2
