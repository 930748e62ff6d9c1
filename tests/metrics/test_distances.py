"""Distances between sets against scipy, closed forms and brute force; invariance to order."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from clips import panning, save

from longgen.media import open_video
from longgen.metrics import distances as d
from longgen.metrics import metric
from longgen.metrics.backends import resolve
from longgen.metrics.base import Video, score


def sample(n: int, dim: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, dim)) @ rng.standard_normal((dim, dim)) + shift


@pytest.mark.parametrize(("n", "dim"), [(200, 5), (12, 30)])
def test_frechet_equals_scipy(n: int, dim: int) -> None:
    x, y = sample(n, dim, 0), sample(n + 7, dim, 1, 0.5)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(a @ b + 0j).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root)
    assert d.frechet(x, y) == pytest.approx(expected, rel=1e-4)
    assert d.frechet(x, x) == pytest.approx(0, abs=1e-6 * np.trace(a))
    shift = np.arange(dim) / dim
    assert d.frechet(x, x + shift) == pytest.approx((shift**2).sum(), rel=2e-5)


def test_kernel_distance_equals_the_double_sum_and_is_unbiased() -> None:
    x, y = sample(9, 4, 0), sample(7, 4, 1, 0.3)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (a @ b / 4 + 1) ** 3

    within = [np.mean([k(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j]) for s in (x, y)]
    cross = np.mean([k(a, b) for a in x for b in y])
    assert d.kernel_distance(x, y) == pytest.approx(sum(within) - 2 * cross)
    rng = np.random.default_rng(0)
    same = [d.kernel_distance(rng.standard_normal((20, 3)), rng.standard_normal((20, 3))) for _ in range(300)]
    assert abs(np.mean(same)) < 4 * np.std(same) / np.sqrt(300)


def test_precision_and_recall_by_brute_force() -> None:
    real, fake = np.random.default_rng(0).random((30, 2)), np.random.default_rng(1).random((25, 2)) * 0.5

    def inside(centres: np.ndarray, points: np.ndarray) -> float:
        count = 0
        for p in points:
            for i, c in enumerate(centres):
                radius = sorted(np.linalg.norm(c - o) for j, o in enumerate(centres) if j != i)[4]
                if np.linalg.norm(p - c) < radius:
                    count += 1
                    break
        return count / len(points)

    assert d.precision_recall(real, fake) == (inside(real, fake), inside(fake, real))
    assert d.precision_recall(real, real)[0] == 1


def test_inception_score_extremes() -> None:
    assert d.inception_score(np.full((10, 4), 0.25)) == pytest.approx(1)
    assert d.inception_score(np.eye(4)[[0, 1, 2, 3]]) == pytest.approx(4, rel=1e-6)


@pytest.mark.parametrize("frames", [9, 16, 33])
def test_skewness_finds_the_power_law(frames: int) -> None:
    """A signal whose spectrum is A·x^B exactly gives the skewness of that law in closed form."""
    half = frames // 2
    x = np.arange(1, half + 1)
    for slope in (-1.0, -2.0):
        spectrum = np.zeros(frames, complex)
        spectrum[1 : half + 1] = 3 * x**slope * np.exp(1j * x)
        spectrum[-half:] = np.conj(spectrum[1 : half + 1][::-1])
        if frames % 2 == 0:
            spectrum[half] = abs(spectrum[half])
        signal = np.fft.ifft(spectrum).real[:, None] * (half + 1) / 2
        skewness, mean = d.temporal_skewness(signal)
        power = x**slope
        a = 1 / power.sum()
        assert skewness[0] == pytest.approx((x ** (slope + 3)).sum() / np.sqrt(a * (x ** (slope + 2)).sum()), rel=1e-3)
        assert mean[0] == pytest.approx(0, abs=1e-9)


def test_histogram_agreement() -> None:
    a = np.random.default_rng(0).standard_normal((500, 3)) * 2
    assert d.histogram_agreement(a, a) == pytest.approx(1)
    assert d.histogram_agreement(a, a + 40) < 0.05
    b = a[:, :1]
    c = np.random.default_rng(1).standard_normal((500, 1)) * 2
    span = (int(min(b.min(), c.min())) - 1, int(max(b.max(), c.max())) + 1)
    expected = scipy.stats.pearsonr(np.histogram(b, 50, span)[0], np.histogram(c, 50, span)[0])[0] ** 2
    assert d.histogram_agreement(b, c) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["fvd", "kvd", "video_is", "stream_t", "stream_f", "stream_d"])
def test_set_metrics_on_videos(name: str, tmp_path) -> None:
    """Features per video, one number per set: order does not matter, and a far set is further than a near one."""
    cls = metric(name)
    role = next(iter(cls.backends))
    backends = {role: resolve(role, "random:2")}

    def features(kind: str, count: int, darken: int) -> list:
        scores = []
        for i in range(count):
            file = save(tmp_path / f"{kind}{i}.mkv", panning(16, 32, 32, 1 + i % 3, seed=i) // darken)
            scores.append(score(Video(open_video(file)), {name: (cls, backends)})[name])
        return scores

    base, near, far = features("a", 8, 1), features("b", 8, 1), features("c", 8, 5)
    assert all(s.value is None and "whole set" in str(s.reason) for s in base)
    value = cls.against(near, base).value
    assert value is not None
    assert cls.against(near[::-1], base[::-1]).value == pytest.approx(value, rel=1e-6, abs=1e-7)
    if name in ("fvd", "kvd"):
        assert cls.against(far, base).value > value
    if name == "stream_f":
        assert value == 1
    if name != "video_is":
        assert "needs a reference" in str(cls.against(base, []).reason)
    assert "too few" in str(cls.against(base[:1], base).reason)
