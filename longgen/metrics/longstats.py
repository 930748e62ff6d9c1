"""Statistics over time that the long-video diagnostics share. Knows series and distances, no pixels and no video."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
POINTS, RESAMPLES = 48, 400


def squared_distances(points: Floats) -> Floats:
    """Mean squared difference of every two rows, [n, D] → [n, n]."""
    power = (points**2).mean(1)
    gram = points @ points.T / points.shape[1]
    return np.maximum(power[:, None] + power[None] - 2 * gram, 0)


def moving_mean(values: Floats, width: int) -> Floats:
    """Means of every `width` successive values, [n] → [n − width + 1]."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    return np.asarray((sums[width:] - sums[:-width]) / width)


def theil_sen(times: Floats, values: Floats) -> Floats:
    """Median slope over all pairs of points; values [..., n] → [...]. Two fifths of outliers do no harm."""
    i, j = np.triu_indices(times.size, 1)
    return np.asarray(np.median((values[..., j] - values[..., i]) / (times[j] - times[i]), axis=-1))


def condense(times: Floats, values: Floats, points: int = POINTS) -> tuple[Floats, Floats]:
    """Means over successive stretches of equal length, at most `points` of them; cheap to compare in pairs.

    A shorter rest is left out: pieces of unequal length would give another slope at another rate.
    """
    size = -(-times.size // points)
    whole = times.size // size * size
    return times[:whole].reshape(-1, size).mean(1), values[:whole].reshape(-1, size).mean(1)


def slope_interval(times: Floats, values: Floats, block: float = 1.0) -> tuple[float, tuple[float, float]]:
    """Theil–Sen slope and its 95 % interval by a moving-block bootstrap of the residuals.

    Neighbouring frames are alike, so residuals are redrawn in blocks of at least `block` seconds; an interval that
    takes them for independent is about half as wide as it should be.
    """
    t, y = condense(times, values)
    slope = float(theil_sen(t, y))
    rest = y - slope * t
    width = int(np.clip(np.ceil(block / max(t[1] - t[0], 1e-9)), 1, max(1, t.size // 3)))
    starts = np.random.default_rng(0).integers(0, t.size - width + 1, (RESAMPLES, -(-t.size // width)))
    picks = (starts[..., None] + np.arange(width)).reshape(RESAMPLES, -1)[:, : t.size]
    drawn = theil_sen(t, slope * t + rest[picks])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return slope, (float(low), float(high))


def ends(values: Floats, share: float = 0.15) -> tuple[Floats, Floats]:
    """Means of the first and of the last `share` of the rows (at least one each), [n, D] → [D], [D]."""
    k = max(1, round(values.shape[0] * share))
    return values[:k].mean(0), values[-k:].mean(0)


def fisher(ps: Sequence[float]) -> float:
    """Fisher's combination of independent p values: the upper tail of χ² with 2n degrees of freedom at −2 Σ ln p.

    >>> round(fisher([0.04]), 12), round(fisher([0.1, 0.1]), 4)
    (0.04, 0.0561)
    """
    half = -math.fsum(map(math.log, ps))
    terms = [math.exp(k * math.log(half) - half - math.lgamma(k + 1)) for k in range(len(ps))] if half else [1.0]
    return min(1.0, math.fsum(terms))
