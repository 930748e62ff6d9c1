"""CSCV: how evenly a video goes on from moment to moment. No weights; any embedding may take the look's place."""

from __future__ import annotations

from collections import deque

import numpy as np

from longgen.metrics.base import Embedder, Metric, MetricInfo, Moment, Score, Unavailable, Vector, Video
from longgen.metrics.looks import look
from longgen.metrics.samples import frames_in

LAG = 0.25
"""Seconds between compared moments. Between neighbouring frames the value would depend on the frame rate."""


class Cscv(Metric):
    """1 / (1 + 10·s), s = σ / μ of the likeness of moments ¼ s apart (DiTCtrl: of neighbouring frames).

    Sudden changes lower it, gradual ones do not; an evenly changing, a still and a fast video all score well.
    """

    info = MetricInfo(
        id="cscv",
        version=1,
        title="evenness of change from moment to moment",
        better="higher",
        low=0,
        high=1,
        min_frames=4,
        source="DiTCtrl, arXiv 2412.18597, clip similarity coefficient of variation",
    )
    optional = {"embedder": "the weight-free look"}

    def __init__(self, video: Video, embedder: Embedder | None = None) -> None:
        self.embedder = embedder
        self.recent: deque[Vector] = deque(maxlen=frames_in(LAG, video.fps))
        self.items: list[float] = []

    def add(self, moment: Moment) -> None:
        point = moment.shared(look) if self.embedder is None else moment.embed(self.embedder)
        if len(self.recent) == self.recent.maxlen:
            self.items.append(float(self.recent[0] @ point))
        self.recent.append(point)

    def end(self) -> Score:
        if len(self.items) < 2:
            raise Unavailable(f"too short: fewer than two pairs of frames {LAG} s apart")
        likeness = np.array(self.items)
        if likeness.mean() <= 0:
            raise Unavailable("moments ¼ s apart have nothing in common; the coefficient of variation has no meaning")
        return Score.of(1 / (1 + 10 * likeness.std() / likeness.mean()), n=likeness.size, items=tuple(self.items))
