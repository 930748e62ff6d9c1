"""Distances between sets of features. Pure float64 functions; rows are items, columns features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def frechet(x: Floats, y: Floats) -> float:
    """Fréchet distance of two Gaussians fitted to the rows: ‖μ − μ'‖² + tr(Σ + Σ' − 2(ΣΣ')^½), covariance over n − 1.

    tr (ΣΣ')^½ = Σ √λ(Σ^½ Σ' Σ^½), whose eigenvalues are real and not negative up to rounding.
    """
    root = _root(np.atleast_2d(np.cov(x, rowvar=False)))
    middle = root @ np.atleast_2d(np.cov(y, rowvar=False)) @ root
    shared = np.sqrt(np.clip(np.linalg.eigvalsh((middle + middle.T) / 2), 0, None)).sum()
    spread = float(x.var(axis=0, ddof=1).sum() + y.var(axis=0, ddof=1).sum())
    gap = x.mean(0) - y.mean(0)
    return float(gap @ gap) + spread - 2 * float(shared)


def _root(matrix: Floats) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    root: Floats = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return root


def kernel_distance(x: Floats, y: Floats) -> float:
    """Unbiased MMD² with the cubic kernel (xᵀy/d + 1)³ of KID; about 0 for sets of one distribution, also below."""
    d = x.shape[1]
    within = [((a @ a.T / d + 1) ** 3, len(a)) for a in (x, y)]
    own = sum((k.sum() - np.trace(k)) / (n * (n - 1)) for k, n in within)
    cross = ((x @ y.T / d + 1) ** 3).mean()
    return float(own - 2 * cross)


def precision_recall(real: Floats, fake: Floats, k: int = 5) -> tuple[float, float]:
    """Improved precision and recall (arXiv 1904.06991): the share of one set inside the k-NN balls of the other."""
    return _inside(real, fake, k), _inside(fake, real, k)


def _inside(centres: Floats, points: Floats, k: int) -> float:
    radii = np.sort(_pairwise(centres, centres), axis=1)[:, k]  # column 0 is the point itself
    return float((_pairwise(points, centres) < radii[None]).any(axis=1).mean())


def _pairwise(x: Floats, y: Floats) -> Floats:
    """Euclidean distances [n, m], row by row so that memory stays at n·m."""
    return np.stack([np.linalg.norm(y - row, axis=1) for row in x])


def inception_score(probabilities: Floats) -> float:
    """exp E KL(p(y|x) ‖ p(y)) over rows of class probabilities."""
    p = np.clip(probabilities, 1e-12, None)
    return float(np.exp((p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean()))


def temporal_skewness(signal: Floats) -> tuple[Floats, Floats]:
    """STREAM's summary of one video's features [F, D]: (skewness [D], mean amplitude [D]).

    Per dimension: amplitudes 2|FFT|/(1 + ⌊F/2⌋) at frequencies 1 … ⌊F/2⌋, a power law A·x^B fitted in log-log by least
    squares, and the skewness Σx^{B+3} / √(A' Σx^{B+2}) with A' = A / Σ A·x^B.
    """
    half = len(signal) // 2
    amplitude = 2 * np.abs(np.fft.fft(signal, axis=0)[: half + 1]) / (half + 1)
    x = np.arange(1, half + 1, dtype=np.float64)
    design = np.stack([np.log(x), np.ones_like(x)], axis=1)
    slope, intercept = np.linalg.lstsq(design, np.log(amplitude[1:] + 1e-6), rcond=None)[0]
    power = x[:, None] ** slope  # [F/2, D]
    third, second = (power * x[:, None] ** 3).sum(0), (power * x[:, None] ** 2).sum(0)
    scale = np.exp(intercept)
    return third / np.sqrt(scale / (scale * power).sum(0) * second), amplitude[0]


def histogram_agreement(real: Floats, fake: Floats, bins: int = 50) -> float:
    """STREAM-T: mean over dimensions of the squared correlation of two histograms over [int(min) − 1, int(max) + 1]."""
    squares = []
    for r, f in zip(real.T, fake.T):
        span = (int(min(r.min(), f.min())) - 1, int(max(r.max(), f.max())) + 1)
        a, b = (np.histogram(v, bins, span)[0] / len(v) for v in (r, f))
        a, b = a - a.mean(), b - b.mean()
        squares.append(((a * b).sum() / (np.sqrt((a**2).sum() * (b**2).sum()) + 1e-12)) ** 2)
    return float(np.mean(squares))
