"""Aesthetic quality, VBench: the LAION aesthetic head on CLIP ViT-L/14."""

from __future__ import annotations

from typing import Any

import numpy as np

from longgen.metrics.base import Metric, MetricInfo, Moment, Score, Video


class AestheticQuality(Metric):
    """Mean over frames of head(e_t) / 10, e_t the unit CLIP-L/14 features; no clamp.

    Rewards over-exposed frames (Self-Forcing++): read it beside `drift_luma`.
    """

    info = MetricInfo(
        id="aesthetic_quality",
        version=1,
        title="beauty by the LAION head",
        better="higher",
        family="vbench",
        needs=frozenset({"weights"}),
        comparable=True,
        min_frames=1,
        source="VBench, arXiv 2311.17982, aesthetic_quality.py; LAION-AI/aesthetic-predictor",
    )
    backends = {"clip_l14": "hf:openai/clip-vit-large-patch14", "laion": "sa_0_4_vit_l_14_linear.pth"}

    def __init__(self, video: Video, **backends: Any) -> None:
        self.clip, self.head = backends["clip_l14"], backends["laion"]
        self.fps = video.fps
        self.items: list[float] = []

    def add(self, moment: Moment) -> None:
        self.items.append(float(self.head(moment.embed(self.clip))) / 10)

    def end(self) -> Score:
        curve = {"t": [t / self.fps for t in range(len(self.items))], "y": self.items}
        return Score.of(
            np.mean(self.items), n=len(self.items), items=tuple(self.items), extras={"curves": {"aesthetic": curve}}
        )
