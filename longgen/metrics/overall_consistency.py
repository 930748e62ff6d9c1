"""Overall consistency, VBench: does the video say what the prompt says?"""

from __future__ import annotations

from typing import Any

from longgen.metrics.base import Frame, Metric, MetricInfo, Moment, Score, Video, middle_frames, needs_prompt


class OverallConsistency(Metric):
    """cos(video features of 8 middle frames, the whole prompt) with ViCLIP-L/14.

    With another video-text model (X-CLIP) the scale differs; such values are marked as not comparable.
    """

    info = MetricInfo(
        id="overall_consistency",
        version=1,
        title="the video says what the prompt says (ViCLIP)",
        better="higher",
        low=-1,
        high=1,
        family="vbench",
        needs=frozenset({"weights", "text"}),
        comparable=True,
        min_frames=1,
        source="VBench, arXiv 2311.17982, overall_consistency.py",
    )
    backends = {"video_text": "ViClip-InternVid-10M-FLT.pth"}

    def __init__(self, video: Video, **backends: Any) -> None:
        self.prompt = needs_prompt(video)
        self.model = backends["video_text"]
        self.order = middle_frames(video.frames, 8)
        self.kept: dict[int, Frame] = {}

    def add(self, moment: Moment) -> None:
        if moment.index in self.order:
            self.kept[moment.index] = moment.frame

    def end(self) -> Score:
        value = self.model([self.kept[i] for i in self.order], self.prompt)
        return Score.of(value, n=len(self.order), extras={"frames": self.order})
