"""Appearance style, VBench: do the frames look like the style phrase?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from longgen.metrics.aggregate import mean_over_items
from longgen.metrics.base import Metric, MetricInfo, Moment, Score, Unavailable, Video


class AppearanceStyle(Metric):
    """Mean over all frames of cos(CLIP-B/32 image, style phrase); corpus weighted by frames.

    (The official code on several GPUs averages each video's last frame alone; ours never does.)
    """

    info = MetricInfo(
        id="appearance_style",
        version=1,
        title="frames look like the style phrase (CLIP)",
        better="higher",
        low=-1,
        high=1,
        family="vbench",
        needs=frozenset({"weights", "text"}),
        comparable=True,
        min_frames=1,
        source="VBench, arXiv 2311.17982, appearance_style.py",
    )
    backends = {"clip_b32": "hf:openai/clip-vit-base-patch32"}

    def __init__(self, video: Video, **backends: Any) -> None:
        style = video.entry.get("appearance_style", {})
        phrase = style.get("appearance_style") if isinstance(style, dict) else style
        if not phrase:
            raise Unavailable("needs the suite's entry of this prompt (appearance_style): --full-info FILE")
        self.clip = backends["clip_b32"]
        self.text = self.clip.text(str(phrase))
        self.items: list[float] = []

    def add(self, moment: Moment) -> None:
        self.items.append(float(moment.embed(self.clip) @ self.text))

    def end(self) -> Score:
        items = tuple(self.items)
        return Score.of(np.mean(items), n=len(items), weight=len(items), items=items)

    @classmethod
    def summarise(cls, scores: Sequence[Score]) -> Score:
        return mean_over_items(scores)
