"""Drift slopes, their intervals, start–end contrast, seams: planted amounts come back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from clips import panning, texture
from hypothesis import given
from hypothesis import strategies as st

from longgen.metrics.base import Score
from longgen.metrics.longstats import condense, fisher, slope_interval, theil_sen
from longgen.metrics.qualities import QUALITIES
from longgen.metrics.samples import Samples
from longgen.metrics.seam import Seam, grid_test

Run = Callable[..., Score]
FRAMES, FPS = 32, 8


def ramp(change: Callable[[np.ndarray, float], np.ndarray], blur: float = 3.0) -> np.ndarray:
    base = (texture(48, 64, blur=blur) * 0.5 + 40).astype(np.float32)
    frames = [change(base, r) for r in np.linspace(0, 1, FRAMES)]
    return np.clip(np.round(frames), 0, 255).astype(np.uint8)


def grey(frame: np.ndarray) -> np.ndarray:
    return (frame @ np.array([0.299, 0.587, 0.114]))[..., None]


MINUTES = (FRAMES - 1) / FPS / 60
RNG = np.random.default_rng(1)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("drift_luma", lambda f, r: f + 20 * r, 20.0),
        ("drift_saturation", lambda f, r: grey(f) + (f - grey(f)) * (1 - 0.5 * r), -0.65),
        ("drift_contrast", lambda f, r: f.mean() + (f - f.mean()) * (1 - 0.5 * r), -0.65),
        ("drift_noise", lambda f, r: f + RNG.normal(0, 10 * r, f.shape[:2])[..., None], 8.0),
    ],
)
def test_slopes_are_the_planted_change(run: Run, name: str, change: Callable, expected: float) -> None:  # type: ignore[type-arg]
    found = run(name, ramp(change), FPS)
    assert found.value is not None and found.ci is not None
    assert found.value * MINUTES == pytest.approx(expected, rel=0.25)
    assert found.ci[0] <= found.value <= found.ci[1]
    assert found.ci[0] * found.ci[1] > 0  # the drift is significant
    assert found.extras["delta"] == pytest.approx(0.85 * expected, rel=0.3)


def test_colour_drifts_are_signed(run: Run) -> None:
    warm = ramp(lambda f, r: f + np.array([20, 0, -20]) * r)
    green = ramp(lambda f, r: f + np.array([0, 20, 0]) * r)
    assert run("drift_lab_b", warm, FPS).value > 0 > run("drift_lab_a", green, FPS).value
    assert abs(run("drift_luma", warm, FPS).value) * MINUTES < 5


def test_sharpness_ignores_contrast(run: Run) -> None:
    import cv2

    blurred = ramp(lambda f, r: cv2.GaussianBlur(f, (0, 0), 0.3 + 2 * r), blur=0.8)
    faded = ramp(lambda f, r: f.mean() + (f - f.mean()) * (1 - 0.5 * r), blur=0.8)
    blur = run("drift_sharpness", blurred, FPS).value
    assert blur < 0 and abs(run("drift_sharpness", faded, FPS).value) < abs(blur) / 10


def test_theil_sen_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(3)
    t, y = np.arange(23) / 8, rng.normal(0, 1, 23)
    assert theil_sen(t, y) == pytest.approx(stats.theilslopes(y, t).slope, abs=1e-12)


def test_interval_covers_for_dependent_frames() -> None:
    """AR(1) noise without drift: the interval holds 0 far more often than one that takes frames for independent."""
    hits = narrow = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        noise = np.zeros(120)
        for i in range(1, 120):
            noise[i] = 0.8 * noise[i - 1] + rng.normal()
        t = np.arange(120) / 8
        _, (low, high) = slope_interval(t, noise)
        _, (low1, high1) = slope_interval(t, noise, block=1e-6)
        hits += low <= 0 <= high
        narrow += low1 <= 0 <= high1
    assert hits >= 21 and hits > narrow


def test_half_the_rate_gives_the_same_slope() -> None:
    t = np.arange(96) / 24
    y = np.sin(t) + 0.3 * t
    full = theil_sen(*condense(t, y))
    assert theil_sen(*condense(t[::2], y[::2])) == pytest.approx(float(full), abs=0.03)


@given(st.integers(1, 400), st.integers(2, 40))
def test_samples_stay_even_and_few(frames: int, capacity: int) -> None:
    kept = Samples(24.0, capacity)
    for i in range(frames):
        kept.add(i, lambda i=i: i)  # type: ignore[misc]
    gaps = np.diff(kept.kept)
    assert len(kept.kept) <= capacity and kept.kept[0] == 0
    assert (gaps == 24.0 / kept.fps).all()


def test_start_end_contrast(run: Run) -> None:
    still = np.repeat(texture(48, 64)[None], 12, 0)
    assert run("start_end_contrast", still).value == 0
    small = run("start_end_contrast", ramp(lambda f, r: f + 10 * r), FPS)
    large = run("start_end_contrast", ramp(lambda f, r: f + 40 * r), FPS)
    assert 0 < small.value < large.value
    assert set(small.extras["delta"]) == set(QUALITIES)


@pytest.mark.parametrize("step", [4, 8, 16])
def test_seam_is_the_exposure_step(run: Run, step: int) -> None:
    clip = (panning(48, 48, 64, 1) // 2 + 40).astype(int)
    clip += step * (np.arange(48) // 12 % 2)[:, None, None, None]
    found = run("seam", clip.astype(np.uint8), boundaries=(12, 24, 36))
    assert found.value == pytest.approx(step, rel=0.25)
    assert found.extras["z_rate"] == 1
    assert found.extras["grid_p"] == pytest.approx(1 / found.extras["grid_shifts"])


def test_seam_of_untouched_footage_is_nothing(run: Run) -> None:
    found = run("seam", panning(48, 48, 64, 1), boundaries=(12, 24, 36))
    assert abs(found.value) < 0.5 and found.extras["z_max"] < 3


def test_seam_says_what_it_lacks(run: Run) -> None:
    clip = panning(16, 48, 64, 1)
    assert "sidecar" in run("seam", clip).reason
    assert "no boundary" in run("seam", clip, boundaries=()).reason
    assert "close" in run("seam", clip, boundaries=tuple(range(1, 16))).reason


def test_grid_test_is_exact_under_the_null() -> None:
    """With noise alone, p takes its k/12 values equally often."""
    rng = np.random.default_rng(0)
    ps = [grid_test(rng.random(47), np.array([11, 23, 35]))[0] for _ in range(600)]
    counts = np.bincount(np.round(np.array(ps) * 12).astype(int), minlength=13)[1:]
    assert counts.sum() == 600 and counts.min() > 25 and counts.max() < 80


def test_fisher_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for ps in ([0.5], [0.2, 0.9, 0.04], [1.0, 1.0], [1e-6] * 5):
        assert fisher(ps) == pytest.approx(stats.combine_pvalues(ps).pvalue, rel=1e-9)


def test_seams_are_pooled_over_videos() -> None:
    one = Score.of(3.0, n=3, extras={"grid_p": 1 / 16})
    pooled = Seam.summarise([one] * 4)
    assert pooled.value == 3.0 and pooled.extras["grid_p"] < 0.01
    assert Seam.summarise([Score.none("no sidecar")]).reason == "no sidecar"
