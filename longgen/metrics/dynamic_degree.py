"""Dynamic degree and the static filter, VBench: does the video move at all?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from longgen.metrics.base import Frame, Metric, MetricInfo, Moment, Score, Unavailable, Vector, Video
from longgen.metrics.flow import dis, top_mean
from longgen.metrics.vbench_rules import is_static, moves, sampling_interval

FlowModel = Callable[[Frame, Frame], Vector]
"""(frame, later frame) → flow [H, W, 2] in pixels."""


class DynamicDegree(Metric):
    """1 if enough sampled pairs have a mean top-5 % flow above 6·min(H, W)/256, else 0; corpus: share of moving videos.

    Boolean, so it saturates: the extras hold the continuous degree, the median over pairs of top-5 % flow in frame
    sides per second. Two sampled frames are refused, since VBench's rule would call any such clip moving.
    """

    info = MetricInfo(
        id="dynamic_degree",
        version=1,
        title="does the video move (RAFT)",
        better="higher",
        low=0,
        high=1,
        family="vbench",
        needs=frozenset({"weights", "flow"}),
        comparable=True,
        source="VBench, arXiv 2311.17982, dynamic_degree.py",
    )
    backends = {"raft": "torchvision:raft_large"}

    def __init__(self, video: Video, **backends: Any) -> None:
        self.model: FlowModel | None = backends.get("raft")
        self.every, self.fps = sampling_interval(video.fps), video.fps
        self.sampled, self.side = 0, float(min(video.size))
        self.last: Frame | None = None
        self.items: list[float] = []

    def add(self, moment: Moment) -> None:
        if moment.index % self.every:
            return
        self.sampled += 1
        if self.last is not None:
            flow = self.flow(moment, self.last)
            self.side = float(min(flow.shape[:2]))
            self.items.append(top_mean(np.linalg.norm(flow, axis=-1), 0.05))
        self.last = self.keep(moment)

    def keep(self, moment: Moment) -> Frame:
        return moment.frame

    def flow(self, moment: Moment, last: Frame) -> Vector:
        assert self.model is not None
        return self.model(last, moment.frame)

    def end(self) -> Score:
        if self.sampled < 3:
            raise Unavailable(f"too short: {self.sampled} frames at 8 frames a second, the rule needs 3")
        degree = float(np.median(self.items)) * self.fps / self.every / self.side
        value = moves(self.items, self.side, self.sampled)
        items = tuple(m / self.side for m in self.items)
        return Score.of(value, n=len(self.items), items=items, extras={"degree": degree, "every": self.every})


class DynamicDegreeClassical(DynamicDegree):
    """The same rule on DIS optical flow. Never enters VBench totals."""

    info = MetricInfo(
        id="dynamic_degree_classical",
        version=1,
        title="does the video move (optical flow)",
        better="higher",
        low=0,
        high=1,
        family="classical",
        needs=frozenset({"flow"}),
        source="VBench's rule with DIS flow (arXiv 1603.03590)",
    )
    backends = {}

    def keep(self, moment: Moment) -> Frame:
        return moment.grey

    def flow(self, moment: Moment, last: Frame) -> Vector:
        return moment.flow_from(self.every) if self.every <= 2 else dis(last, moment.grey)


class StaticClassical(Metric):
    """1 if VBench's static filter (with DIS instead of RAFT) would admit the video to temporal flickering, else 0."""

    info = MetricInfo(
        id="static_classical",
        version=1,
        title="static enough for temporal flickering",
        better="none",
        low=0,
        high=1,
        family="classical",
        needs=frozenset({"flow"}),
        source="VBench's static_filter.py with DIS flow",
    )

    def __init__(self, video: Video) -> None:
        self.first: Frame | None = None
        self.last: Frame | None = None
        self.items: list[float] = []

    def add(self, moment: Moment) -> None:
        if self.first is None:
            self.first = moment.grey
        else:
            self.items.append(top_mean(moment.speed, 0.02))
        self.last = moment.grey

    def end(self) -> Score:
        assert self.first is not None
        assert self.last is not None
        ends = [dis(a, b) for a, b in ((self.first, self.last), (self.last, self.first))]
        there, back = (top_mean(np.linalg.norm(f, axis=-1), 0.02) for f in ends)
        side = float(min(self.first.shape))
        value = is_static(self.items, (there, back), side, len(self.items) + 1)
        return Score.of(value, n=len(self.items), items=tuple(m / side for m in self.items))
