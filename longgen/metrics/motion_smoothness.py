"""Motion smoothness, VBench: how well the odd frames can be guessed from the even ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from longgen.metrics.base import Frame, Metric, MetricInfo, Moment, Score, Video
from longgen.metrics.flow import resize_flow, warp

Interpolator = Callable[[Frame, Frame], Frame]
"""(frame 2k, frame 2k + 2) → a guess of frame 2k + 1, uint8 [H, W, 3]."""


class MotionSmoothness(Metric):
    """s = 1 − mean_k mean |x̂_{2k+1} − x_{2k+1}| / 255 with a frame interpolator given by the user.

    VBench uses AMT-S, whose weights are non-commercial and not shipped: give it as
    `--backend interpolator=call:module:name`, a callable (frame, frame) → frame. With an even number of frames the last
    odd one has no right neighbour and is left out. Not normalised for the frame rate.
    """

    info = MetricInfo(
        id="motion_smoothness",
        version=1,
        title="how well every second frame follows from its neighbours (AMT-S)",
        better="higher",
        low=0,
        high=1,
        family="vbench",
        needs=frozenset({"weights"}),
        comparable=True,
        min_frames=3,
        source="VBench, arXiv 2311.17982, motion_smoothness.py",
    )
    backends = {"interpolator": "AMT-S (amt-s.pth, CC BY-NC 4.0, not shipped)"}

    def __init__(self, video: Video, **backends: Any) -> None:
        self.interpolate: Interpolator | None = backends.get("interpolator")
        self.items: list[float] = []

    def add(self, moment: Moment) -> None:
        if moment.index >= 2 and moment.index % 2 == 0:
            gap = np.abs(self.guess(moment).astype(np.int16) - moment.before(1))
            self.items.append(float(gap.mean(dtype=np.float64)) / 255)

    def guess(self, moment: Moment) -> Frame:
        """The frame before this one, guessed from this one and the one before that."""
        assert self.interpolate is not None
        return self.interpolate(moment.before(2), moment.frame)

    def end(self) -> Score:
        return Score.of(1 - float(np.mean(self.items)), n=len(self.items), items=tuple(self.items))


class MotionSmoothnessClassical(MotionSmoothness):
    """The same score with motion-compensated interpolation by DIS optical flow in both directions.

    x̂(p) = ½·[x_{2k}(p + φ_{2k+2→2k}(p)/2) + x_{2k+2}(p + φ_{2k→2k+2}(p)/2)]. Never enters VBench totals.
    """

    info = MetricInfo(
        id="motion_smoothness_classical",
        version=1,
        title="how well every second frame follows from its neighbours (optical flow)",
        better="higher",
        low=0,
        high=1,
        family="classical",
        needs=frozenset({"flow"}),
        min_frames=3,
        source="VBench's rule with DIS flow (arXiv 1603.03590)",
    )
    backends = {}

    def guess(self, moment: Moment) -> Frame:
        size = (moment.frame.shape[0], moment.frame.shape[1])
        there, back = resize_flow(moment.flow_from(2), size), resize_flow(moment.flow_to(2), size)
        half = np.float32(0.5)
        middle = warp(moment.before(2), half * back) * half + warp(moment.frame, half * there) * half
        return np.rint(middle).astype(np.uint8)
