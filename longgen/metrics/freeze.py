"""Freezes: time in which nothing in the picture changes, and whether motion dies away. No weights."""

from __future__ import annotations

from collections import deque

import numpy as np

from longgen.metrics.base import Metric, MetricInfo, Moment, Score, Unavailable, Vector, Video
from longgen.metrics.looks import tiny
from longgen.metrics.samples import frames_in

RUN = 0.4
"""Shortest stillness that counts, seconds."""
STILL = 1.5
"""Largest change of luma of any of 16·16 cells, grey levels, that is no motion; lossy coding alone causes 0.7."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class Freeze(Metric):
    """Share of frames in stretches of ≥ 0.4 s in which no cell of a 16×16 grid changes by more than 1.5 levels.

    The whole stretch is compared with its first frame, so that slow motion adds up and coding noise does not; the cell
    that changes most decides, so that one small moving thing is motion. Luma alone is looked at: coding shifts colour
    more. `motion_ratio` in `extras` tells a collapse of motion without stillness: the median over the last third of the
    mean change per ¼ s, over that of the first third.
    """

    info = MetricInfo(
        id="freeze",
        version=1,
        title="share of time in which nothing moves",
        better="lower",
        low=0,
        high=1,
        min_frames=4,
        source="longgen",
    )

    def __init__(self, video: Video) -> None:
        self.run = frames_in(RUN, video.fps, 2)
        self.short = frames_in(0.25, video.fps)
        if video.frames <= self.run:
            raise Unavailable(f"too short: a freeze lasts at least {RUN} s")
        self.recent: deque[Vector] = deque(maxlen=self.run + 1)
        self.still: list[bool] = []
        self.changes: list[float] = []

    def add(self, moment: Moment) -> None:
        self.recent.append(moment.shared(tiny).reshape(-1, 3) @ LUMA)
        self.still.append(False)
        if len(self.recent) > self.short:
            self.changes.append(float(np.abs(self.recent[-1] - self.recent[-1 - self.short]).mean()))
        if len(self.recent) == self.run + 1:
            stretch = np.stack(self.recent)
            if np.abs(stretch[1:] - stretch[0]).max() < STILL:
                self.still[-self.run - 1 :] = [True] * (self.run + 1)

    def end(self) -> Score:
        third = max(1, len(self.changes) // 3)
        first, last = np.median(self.changes[:third]), np.median(self.changes[-third:])
        return Score.of(
            float(np.mean(self.still)),
            n=len(self.still),
            extras={"motion_ratio": float(last / first) if first > 0 else None},
        )
