"""Where a video returns to what it has shown before. Knows distances between moments, no pixels and no score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from longgen.metrics.base import Unavailable
from longgen.metrics.longstats import Floats, moving_mean, squared_distances
from longgen.metrics.samples import frames_in

SHORTEST = 0.5
"""Shortest period that counts as a return, seconds."""
WINDOW = 0.25
"""Stretch over which two passes must agree, seconds."""
STILL = 2.0
"""Root mean square change, grey levels, below which a video shows nothing that could return."""
FLOOR = 0.6
"""What lossy coding alone may change in a thumbnail, grey levels."""
STEP_SHARE = 0.5
"""A return must come closer than this share of the change from one frame to the next."""
CONTRAST = 3.0
"""Between two passes the picture must have been this many times further away."""


@dataclass(frozen=True)
class Returns:
    """Frame t (the last of a window) and the lags at which it is compared.

    Args:
        lags: [L] in frames, whole and half ones: half a frame is the midpoint of two frames, so that a period need not
            be a whole number of frames.
        distance: [L, n] mean squared difference of the window ending at t and the window `lag` earlier; inf where none.
        departed: [L, n] the largest such distance at any shorter lag.
        step: [n] the same between t and the frame before.
        fps: frames per second of the n frames.
        window: frames in a window.
    """

    lags: Floats
    distance: Floats
    departed: Floats
    step: Floats
    fps: float
    window: int

    @property
    def replayed(self) -> np.ndarray:
        """[L, n] whether frame t shows again what was there a lag before, exactly and after having left it."""
        near = self.distance <= (STEP_SHARE**2 * self.step + FLOOR**2)
        left = self.departed >= np.maximum(CONTRAST**2 * np.maximum(self.distance, FLOOR**2), STILL**2)
        return near & left & (self.lags[:, None] >= frames_in(SHORTEST, self.fps, 3))


def to_midpoints(d2: Floats) -> Floats:
    """Mean squared differences [n, n] → those of every row and the midpoint of frames s and s + 1, [n, n − 1]."""
    return np.asarray(np.maximum((d2[:, :-1] + d2[:, 1:]) / 2 - np.diagonal(d2, -1)[None] / 4, 0))


def returns(points: Floats, fps: float) -> Returns:
    """Compare every moment with all earlier ones.

    Args:
        points: colour thumbnails in grey levels, [n, D].
        fps: their rate.

    Raises:
        Unavailable: fewer frames than a shortest period takes, or nothing moves.
    """
    n, window = points.shape[0], frames_in(WINDOW, fps, 2)
    if n < frames_in(SHORTEST, fps, 3) + 2 * window:
        raise Unavailable(f"too short for a return: {n / fps:.2f} s")
    d2 = squared_distances(points)
    if d2.max() < STILL**2:
        raise Unavailable("nothing moves: a still picture neither repeats nor goes on")
    step, between = np.diagonal(d2, -1), to_midpoints(d2)
    lags = np.arange(1, 2 * (n - window) - 1) / 2 + 0.5
    distance = np.full((lags.size, n), np.inf)
    for row, lag in enumerate(lags):
        whole = int(lag)
        line = np.diagonal(d2, -whole) if lag == whole else np.diagonal(between, -whole - 1)
        if line.size >= window:
            distance[row, n - line.size + window - 1 :] = moving_mean(line, window)
    seen = np.where(np.isfinite(distance), distance, 0)
    departed = np.vstack([np.zeros(n), np.maximum.accumulate(seen)[:-1]])
    steps = np.concatenate([np.full(window, step[:window].mean()), moving_mean(step, window)])[:n]
    return Returns(lags, distance, departed, steps, fps, window)
