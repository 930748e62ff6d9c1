"""What a metric keeps of a video while its frames pass by: few descriptors, evenly spaced. Knows time, no pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CAPACITY = 1024
DRAWN = 200
"""Most points of a curve in results and reports."""


class Samples:
    """Descriptors of frames at an even spacing, at most `CAPACITY` of them: memory stays flat whatever the length.

    When full, every second one is dropped and the spacing doubles. `fps` is the rate of what is kept.
    """

    def __init__(self, fps: float, capacity: int = CAPACITY) -> None:
        self._full_rate, self._capacity, self._stride = fps, capacity, 1
        self._kept: list[Any] = []

    def add(self, index: int, make: Callable[[], Any]) -> None:
        """Take frame `index` (called for every frame, in order); `make` runs only for frames that are kept."""
        if index % self._stride:
            return
        if len(self._kept) == self._capacity:
            self._kept = self._kept[::2]
            self._stride *= 2
            if index % self._stride:
                return
        self._kept.append(make())

    @property
    def fps(self) -> float:
        return self._full_rate / self._stride

    @property
    def kept(self) -> list[Any]:
        return self._kept

    def matrix(self) -> Floats:
        """[n, D], in order."""
        return np.stack(self._kept).astype(np.float64)

    def times(self) -> Floats:
        """Seconds of the kept frames, [n]."""
        return np.arange(len(self._kept)) / self.fps


def frames_in(seconds: float, fps: float, least: int = 1) -> int:
    """A duration as a whole number of frames, at least `least`."""
    return max(least, round(seconds * fps))


def curve(times: Floats, values: Floats, pool: Callable[..., Any] = np.mean, axis: str = "s") -> dict[str, Any]:
    """A curve for `Score.extras`: at most `DRAWN` points, each the mean (or `pool`) over a stretch."""
    pieces = np.array_split(np.arange(len(times)), min(len(times), DRAWN))
    drawn = {"t": [float(times[p].mean()) for p in pieces], "y": [float(pool(values[p])) for p in pieces]}
    return drawn | ({"axis": axis} if axis != "s" else {})
