"""CLIP similarities: neighbouring frames, and frames with the prompt."""

from __future__ import annotations

from typing import Any

import numpy as np

from longgen.metrics.base import Metric, MetricInfo, Moment, Score, Vector, Video, needs_prompt


class ClipSim(Metric):
    """CLIP-SIM of the FreeNoise paper: mean_t cos(e_t, e_{t+1}). Adjacent frames hide drift: see `coherence`."""

    info = MetricInfo(
        id="clip_sim",
        version=1,
        title="likeness of neighbouring frames (CLIP)",
        better="higher",
        low=-1,
        high=1,
        family="distribution",
        needs=frozenset({"weights"}),
        source="FreeNoise, arXiv 2310.15169",
    )
    backends = {"clip_b32": "hf:openai/clip-vit-base-patch32"}

    def __init__(self, video: Video, **backends: Any) -> None:
        self.clip = backends["clip_b32"]
        self.last: Vector | None = None
        self.items: list[float] = []

    def add(self, moment: Moment) -> None:
        now = moment.embed(self.clip)
        if self.last is not None:
            self.items.append(float(now @ self.last))
        self.last = now

    def end(self) -> Score:
        return Score.of(np.mean(self.items), n=len(self.items), items=tuple(self.items))


class ClipText(Metric):
    """mean_t cos(e_t, text of the prompt). With several shots each frame is held against the text of its shot."""

    info = MetricInfo(
        id="clip_text",
        version=1,
        title="frames look like the prompt (CLIP)",
        better="higher",
        low=-1,
        high=1,
        family="distribution",
        needs=frozenset({"weights", "text", "shots"}),
        min_frames=1,
        source="CLIPScore, arXiv 2104.08718, without its factor",
    )
    backends = {"clip_b32": "hf:openai/clip-vit-base-patch32"}

    def __init__(self, video: Video, **backends: Any) -> None:
        self.clip = backends["clip_b32"]
        shots = video.shots or ((0, needs_prompt(video)),)
        self.starts = [first for first, _ in shots]
        self.texts = [self.clip.text(text) for _, text in shots]
        self.items: list[float] = []

    def add(self, moment: Moment) -> None:
        shot = max(0, int(np.searchsorted(self.starts, moment.index, side="right")) - 1)
        self.items.append(float(moment.embed(self.clip) @ self.texts[shot]))

    def end(self) -> Score:
        return Score.of(np.mean(self.items), n=len(self.items), items=tuple(self.items))
