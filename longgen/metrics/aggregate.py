"""From per-video scores to corpus values. Knows numbers, no metric and no file.

The one place where scores are averaged: the result depends on the per-video values alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from longgen.metrics.base import Score

Floats = NDArray[np.float64]
RESAMPLES = 2000


def bootstrap_ci(
    values: Sequence[float] | Floats,
    statistic: Callable[[Floats], Floats] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, float] | None:
    """95 % percentile interval of a statistic over independent items (the mean by default); None below 2 items.

    `statistic` maps resamples [R, n] to [R]. Items are sorted first, so their order does not matter.
    """
    items = np.sort(np.asarray(values, dtype=np.float64))
    if items.size < 2:
        return None
    picks = np.random.default_rng(seed).integers(0, items.size, (resamples, items.size))
    drawn = items[picks]
    stats = drawn.mean(1) if statistic is None else statistic(drawn)
    low, high = np.quantile(stats, [0.025, 0.975])
    return float(low), float(high)


def mean_over_videos(scores: Sequence[Score]) -> Score:
    """Plain mean over the videos that have a value; says why there is none when no video has."""
    from longgen.metrics.base import Score

    values = [s.value for s in scores if s.value is not None]
    if not values:
        reasons = sorted({s.reason or "" for s in scores}) or ["no videos"]
        return Score.none("; ".join(reasons))
    return Score.of(math.fsum(values) / len(values), n=len(values), ci=bootstrap_ci(values))


def mean_over_items(scores: Sequence[Score]) -> Score:
    """Mean weighted by `Score.weight` (VBench's frame-weighted rules)."""
    from longgen.metrics.base import Score

    known = [(s.value, s.weight) for s in scores if s.value is not None]
    total = math.fsum(w for _, w in known)
    if not known or total == 0:
        return mean_over_videos([s for s in scores if s.value is None])
    value = math.fsum(v * w for v, w in known) / total
    return Score.of(value, n=len(known), ci=bootstrap_ci([v for v, _ in known]))
