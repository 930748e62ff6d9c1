"""Metrics without weights: exact against float64 numpy, right on motion whose answer is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from clips import panning, texture

from longgen.metrics.base import Score

Run = Callable[..., Score]


def test_flicker_equals_float64(run: Run) -> None:
    clip = np.random.default_rng(0).integers(0, 256, (9, 33, 47, 3)).astype(np.uint8)
    x = clip.astype(np.float64)
    expected = 1 - np.mean([np.abs(x[t + 1] - x[t]).mean() for t in range(8)]) / 255
    assert run("temporal_flickering", clip).value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["temporal_flickering", "motion_smoothness_classical"])
def test_still_video_is_perfect(run: Run, name: str) -> None:
    assert run(name, np.repeat(texture(48, 64)[None], 5, 0)).value == 1


def test_still_video_does_not_move_and_is_static(run: Run) -> None:
    still = np.repeat(texture(48, 64)[None], 9, 0)
    assert run("dynamic_degree_classical", still).value == 0
    assert run("static_classical", still).value == 1


@pytest.mark.parametrize("frames", [3, 4, 5, 8, 9])
def test_smoothness_uses_every_odd_frame_with_two_neighbours(run: Run, frames: int) -> None:
    """Against an independent reading of the rule: a given interpolator that repeats the left frame."""
    clip = np.random.default_rng(1).integers(0, 256, (frames, 16, 16, 3)).astype(np.uint8)
    result = run("motion_smoothness", clip, backends={"interpolator": lambda a, b: a})
    x = clip.astype(np.float64)
    odd = [t for t in range(1, frames, 2) if t + 1 < frames]
    assert result.value == pytest.approx(1 - np.mean([np.abs(x[t] - x[t - 1]).mean() for t in odd]) / 255, abs=1e-9)
    assert result.n == len(odd)


def test_smoothness_sees_through_steady_motion_but_not_through_jitter(run: Run) -> None:
    """Steady panning is predictable, flicker is not: smoothness parts what flickering confuses."""
    steady = panning(11, 64, 96, 3)
    order = [0, 1, 2, 1, 4, 3, 6, 5, 8, 7, 10]
    smooth, jitter = (run("motion_smoothness_classical", c).value for c in (steady, steady[order]))
    assert smooth is not None
    assert jitter is not None
    assert smooth > 0.985 > 0.97 > jitter
    assert run("temporal_flickering", steady).value < smooth


@pytest.mark.parametrize("fps", [8, 24])
@pytest.mark.parametrize(("step", "side"), [(1, 64), (4, 64), (1, 160), (5, 160)])
def test_dynamic_degree_knows_true_speeds(run: Run, step: int, side: int, fps: int) -> None:
    """Threshold 6·side/256 px per sampled pair: every 3rd frame at 24 fps."""
    clip = panning(24 if fps == 24 else 9, side, side + 32, step, blur=6)
    result = run("dynamic_degree_classical", clip, fps=fps)
    every = 3 if fps == 24 else 1
    assert result.value == float(step * every > 6 * side / 256)
    assert result.extras["every"] == every
    if every == 1:  # further shifts uncover so much at the edge that the top 5 % are not the motion alone
        assert result.extras["degree"] == pytest.approx(step * fps / side, rel=0.2)


def test_dynamic_degree_refuses_two_samples(run: Run) -> None:
    """VBench's rule calls any two-frame clip dynamic; ours says why it does not answer."""
    result = run("dynamic_degree_classical", panning(2, 64, 64, 0))
    assert result.value is None
    assert "too short" in str(result.reason)


def test_static_filter_on_known_motion(run: Run) -> None:
    assert run("static_classical", panning(16, 64, 64, 3)).value == 0
    blink = np.repeat(texture(64, 64)[None], 16, 0)
    blink[8:] = np.roll(blink[8:], 5, axis=2)  # one jump of 5 px: one exceedance, the ends 5 px < 2·0.75·2
    assert run("static_classical", blink).value == 0, "5 px between the ends is above 2·τ·count = 3 px"
    blink[8:] = np.roll(blink[8:], -3, axis=2)
    assert run("static_classical", blink).value == 1


def test_one_frame_is_too_short(run: Run) -> None:
    for name in ("temporal_flickering", "motion_smoothness_classical", "dynamic_degree_classical", "static_classical"):
        result = run(name, texture(32, 32)[None])
        assert result.value is None
        assert "too short" in str(result.reason)
