"""Imaging quality, VBench: MUSIQ (SPAQ) technical quality."""

from __future__ import annotations

from typing import Any

import numpy as np

from longgen.metrics.base import Metric, MetricInfo, Moment, Score, Video


class ImagingQuality(Metric):
    """Mean over frames of MUSIQ / 100, frames with a long side over 512 resized to 512 first ("longer" mode).

    Official per-video values are 0-100; `vbench_files` writes them so. Rewards over-exposure like the aesthetic head.
    """

    info = MetricInfo(
        id="imaging_quality",
        version=1,
        title="technical quality by MUSIQ",
        better="higher",
        low=0,
        high=1,
        family="vbench",
        needs=frozenset({"weights"}),
        comparable=True,
        min_frames=1,
        source="VBench, arXiv 2311.17982, imaging_quality.py; MUSIQ, arXiv 2108.05997",
    )
    backends = {"musiq": "pyiqa:musiq-spaq"}

    def __init__(self, video: Video, **backends: Any) -> None:
        self.musiq = backends["musiq"]
        self.fps = video.fps
        self.items: list[float] = []

    def add(self, moment: Moment) -> None:
        self.items.append(float(self.musiq(moment.frame)) / 100)

    def end(self) -> Score:
        curve = {"t": [t / self.fps for t in range(len(self.items))], "y": self.items}
        return Score.of(
            np.mean(self.items), n=len(self.items), items=tuple(self.items), extras={"curves": {"imaging": curve}}
        )
