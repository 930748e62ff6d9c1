"""Human action, VBench: is the action of the prompt among those recognised?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from longgen.metrics.aggregate import mean_over_videos
from longgen.metrics.base import (
    Frame,
    Metric,
    MetricInfo,
    Moment,
    Score,
    Unavailable,
    Video,
    middle_frames,
    needs_given,
)
from longgen.metrics.vbench_rules import action_of


class HumanAction(Metric):
    """1 if the action is among the top 5 labels with p ≥ 0.85, from 16 middle frames.

    Labels of one video: {label: probability} (sigmoid outputs). The action is what follows "person is " in the prompt,
    or in the file name as in the official code.
    """

    info = MetricInfo(
        id="human_action",
        version=1,
        title="the action of the prompt is recognised",
        better="higher",
        low=0,
        high=1,
        family="vbench",
        needs=frozenset({"weights", "given", "text"}),
        comparable=True,
        min_frames=1,
        source="VBench, arXiv 2311.17982, human_action.py",
    )
    backends = {"action": "l16_ptk710_ftk710_ftk400_f16_res224.pth"}
    given = "labels"

    def __init__(self, video: Video, **backends: Any) -> None:
        self.model = backends.get("action")
        self.action = action_of(video.prompt or "") or action_of(video.path.stem)
        if not self.action:
            raise Unavailable('needs a prompt or file name with "person is …"')
        self.labels: dict[str, float] | None = dict(needs_given(video, "labels")) if self.model is None else None
        self.order = middle_frames(video.frames, 16)
        self.kept: dict[int, Frame] = {}

    def add(self, moment: Moment) -> None:
        if self.labels is None and moment.index in self.order:
            self.kept[moment.index] = moment.frame

    def end(self) -> Score:
        if self.labels is None:
            assert self.model is not None
            self.labels = self.model([self.kept[i] for i in self.order])
        top = sorted(self.labels.items(), key=lambda item: -item[1])[:5]
        found = {name.lower() for name, p in top if p >= 0.85}
        extras = {"action": self.action, "top": [[name, p] for name, p in top]}
        return Score.of(self.action in found, n=len(self.order), extras=extras)

    @classmethod
    def summarise(cls, scores: Sequence[Score]) -> Score:
        return mean_over_videos(scores)
