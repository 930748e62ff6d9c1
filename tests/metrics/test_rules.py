"""VBench's sampling, thresholds and aggregation rules against the worked values of the official code."""

from __future__ import annotations

import numpy as np
import pytest

from longgen.errors import BadInput
from longgen.metrics import vbench_rules as rules
from longgen.metrics.aggregate import bootstrap_ci, mean_over_items, mean_over_videos
from longgen.metrics.base import Score, middle_frames
from longgen.metrics.flow import top_mean


def test_middle_frames() -> None:
    assert middle_frames(49, 8) == [2, 8, 14, 20, 26, 32, 38, 45]
    for frames in range(1, 80):
        for k in (1, 8, 16):
            picks = middle_frames(frames, k)
            assert len(picks) == k
            assert picks == sorted(picks)
            assert 0 <= picks[0] <= picks[-1] < frames
            if frames >= k:
                assert len(set(picks)) == k
    with pytest.raises(BadInput):
        middle_frames(0, 8)


@pytest.mark.parametrize(("frames", "needed"), [(2, 0), (3, 1), (16, 4), (17, 4), (25, 6), (49, 12)])
def test_moves_counts_fast_pairs(frames: int, needed: int) -> None:
    """Threshold 6·side/256 px, round(4n/16) pairs; at a side of 512 a pair counts above 12 px, not at 12 px."""
    for fast in range(frames):
        magnitudes = [12.01] * fast + [12.0] * (frames - 1 - fast)
        assert rules.moves(magnitudes, 512, frames) == (fast >= needed)
    assert not rules.moves([], 512, 1)


def test_static_filter() -> None:
    """τ = 3·side/256, round(2n/16) exceedances allowed, ends at most 2·τ·count."""
    still = [0.0] * 15
    assert rules.is_static(still, (0, 0), 256, 16)
    for exceeding in range(5):
        magnitudes = [3.01] * exceeding + [3.0] * (15 - exceeding)
        assert rules.is_static(magnitudes, (0, 0), 256, 16) == (exceeding <= 2)
    assert rules.is_static(still, (12, 12), 256, 16)
    assert not rules.is_static(still, (12, 12.01), 256, 16)
    assert not rules.is_static(still, (12.01, 0), 256, 16)


def test_spatial_rule_and_its_known_faults() -> None:
    cat, dog = (0.0, 0.0, 10.0, 10.0), (20.0, 2.0, 30.0, 12.0)
    left = "on the left of"
    assert rules.spatial_score({"cat": [cat], "dog": [dog]}, "cat", "dog", left) == 1
    assert rules.spatial_score({"cat": [dog], "dog": [cat]}, "cat", "dog", left) == 1, "side is ignored"
    assert rules.spatial_score({"cat": [cat, dog]}, "cat", "dog", left) == 1, "identity is ignored"
    assert rules.spatial_score({"cat": [cat], "dog": [dog]}, "cat", "dog", "on the top of") == 0
    near = (5.0, 0.0, 15.0, 10.0)
    assert rules.iou(cat, near) == pytest.approx(1 / 3)
    assert rules.spatial_score({"cat": [cat], "dog": [near]}, "cat", "dog", left) == pytest.approx(0.3)
    assert rules.spatial_score({"cat": [cat]}, "cat", "dog", left) == 0


def test_words_colours_and_labels() -> None:
    assert rules.labels_present([{"cat", "dog"}, {"cat"}, set()], ["cat"]) == (2, 3)
    assert rules.labels_present([{"cat", "dog"}, {"cat"}, set()], ["cat", "dog"]) == (1, 3)
    assert rules.words_present(["a ski slope", "slopes for ski", "a hill"], "ski slope") == (2, 3)
    frames = [
        [("a red car", "car"), ("a blue sky", "sky")],
        [("the car is parked", "car")],
        [("a blue car", "car")],
        [("a red bus", "bus")],
    ]
    assert rules.colour_hits(frames, "car", "red") == (1, 2)
    assert rules.action_of("A person is playing guitar-0") == "playing guitar"
    assert rules.action_of("a dog runs") == ""


def test_adjacent_and_first_against_float64() -> None:
    e = np.random.default_rng(0).standard_normal((20, 12))
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    rule = rules.AdjacentAndFirst()
    for row in e.astype(np.float32):
        rule.add(row)
    expected = [(max(0, e[t] @ e[t - 1]) + max(0, e[t] @ e[0])) / 2 for t in range(1, 20)]
    assert rule.scores == pytest.approx(expected, abs=1e-6)


def test_top_mean_is_the_mean_of_a_sorted_head() -> None:
    values = np.random.default_rng(0).random((37, 53)).astype(np.float32)
    for fraction in (0.02, 0.05, 1e-6, 1.0):
        k = max(1, int(values.size * fraction))
        assert top_mean(values, fraction) == pytest.approx(np.sort(values.ravel())[::-1][:k].mean(dtype=np.float64))


def test_aggregation() -> None:
    scores = [Score.of(0.2, weight=1), Score.none("broken"), Score.of(0.8, weight=3)]
    assert mean_over_videos(scores).value == pytest.approx(0.5)
    assert mean_over_items(scores).value == pytest.approx(0.65)
    assert mean_over_videos(scores).n == 2
    nothing = mean_over_videos([Score.none("b"), Score.none("a")])
    assert (nothing.value, nothing.reason) == (None, "a; b")
    assert Score.of(float("nan")).value is None
    assert "nan" in str(Score.of(float("nan")).reason)


def test_bootstrap_interval_covers_the_mean() -> None:
    """The 95 % interval holds the true mean in about 95 % of samples, and ignores their order."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        low, high = bootstrap_ci(rng.standard_normal(30), resamples=400) or (0.0, 0.0)
        held += low <= 0 <= high
    assert 0.90 <= held / 300 <= 0.98
    values = rng.standard_normal(10)
    assert bootstrap_ci(values) == bootstrap_ci(values[::-1])
    assert bootstrap_ci([1.0]) is None
