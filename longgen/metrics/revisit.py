"""Revisit: when the camera comes back to a place, is the place as it was? ORB key points, no weights."""

from __future__ import annotations

import numpy as np

from longgen.metrics.base import Metric, MetricInfo, Moment, Score, Unavailable, Video
from longgen.metrics.longstats import Floats
from longgen.metrics.samples import Samples, frames_in
from longgen.metrics.views import align, displacement, key, likeness

GAP = 2.0
"""Seconds that must lie between two visits."""
SPACING = 0.25
KEYS = 40
FEWEST = 5
LEFT = 0.12
"""Shift of the view, as a share of its width, that counts as having left."""


class Revisit(Metric):
    """Median over returns of the mean normalised cross-correlation of 15×15 blocks after alignment (0 where negative).

    A return is a pair of views ≥ 2 s apart that a similarity transform aligns (ORB matches, RANSAC), between which the
    view had moved away by 12 % of its width or could not be aligned. The threshold on inliers is low on purpose: with a
    high one, places that changed would drop out and the rest would look faithful. Abstains below 5 returns.
    """

    info = MetricInfo(
        id="revisit",
        version=1,
        title="likeness of a place when the camera returns to it",
        better="higher",
        low=0,
        high=1,
        min_frames=8,
        source="longgen",
    )

    def __init__(self, video: Video) -> None:
        self.every = frames_in(SPACING, video.fps)
        self.keys = Samples(video.fps / self.every, KEYS)

    def add(self, moment: Moment) -> None:
        if moment.index % self.every == 0:
            self.keys.add(moment.index // self.every, lambda: key(moment.frame))

    def end(self) -> Score:
        keys, gap = self.keys.kept, frames_in(GAP, self.keys.fps)
        n = len(keys)
        if n <= gap:
            raise Unavailable(f"too short: no two views lie {GAP:g} s apart")
        shift = np.full((n, n), np.inf)
        maps: dict[tuple[int, int], Floats] = {}
        for i in range(n):
            for j in range(i + 1, n):
                found = align(keys[i], keys[j])
                if found is not None:
                    maps[i, j] = found
                    shift[i, j] = displacement(found, keys[i].grey)
        scores = []
        for j in range(gap, n):
            back = [i for i in range(j - gap + 1) if (i, j) in maps and _left(shift, i, j)]
            if back:
                i = min(back, key=lambda i: shift[i, j])
                scores.append(likeness(keys[i].grey, keys[j].grey, maps[i, j]))
        if len(scores) < FEWEST:
            raise Unavailable(f"the camera returns to {len(scores)} views; fewer than {FEWEST} say nothing")
        return Score.of(float(np.median(scores)), n=len(scores), items=tuple(scores))


def _left(shift: Floats, i: int, j: int) -> bool:
    return bool((shift[i, i + 1 : j] >= shift[i, j] + LEFT).any())
