"""Temporal flickering, VBench: how little neighbouring frames differ. Exact; no weights."""

from __future__ import annotations

import numpy as np

from longgen.metrics.base import Metric, MetricInfo, Moment, Score, Video


class TemporalFlickering(Metric):
    """s = 1 − mean_t mean_{pixels, channels} |x_{t+1} − x_t| / 255.

    Any motion lowers it: it measures flicker only on videos that pass the static filter (`static_classical`).
    """

    info = MetricInfo(
        id="temporal_flickering",
        version=1,
        title="likeness of neighbouring frames, pixel by pixel",
        better="higher",
        low=0,
        high=1,
        family="vbench",
        comparable=True,
        source="VBench, arXiv 2311.17982, temporal_flickering.py",
    )

    def __init__(self, video: Video) -> None:
        self.items: list[float] = []

    def add(self, moment: Moment) -> None:
        if moment.index:
            # int16 differences of uint8 are exact; so is their float64 mean up to rounding
            gap = np.abs(moment.frame.astype(np.int16) - moment.before(1))
            self.items.append(float(gap.mean(dtype=np.float64)) / 255)

    def end(self) -> Score:
        return Score.of(1 - float(np.mean(self.items)), n=len(self.items), items=tuple(self.items))
