"""Loops: the share of a video that shows again, exactly, what it has shown before. No weights."""

from __future__ import annotations

import numpy as np

from longgen.metrics.base import Metric, MetricInfo, Moment, Score, Video
from longgen.metrics.looks import tiny
from longgen.metrics.recurrence import returns
from longgen.metrics.samples import Samples, curve


class Loop(Metric):
    """Frames whose last ¼ s repeats a stretch at least ½ s earlier, as a share of all frames.

    A repetition comes nearer to the earlier pass than half the change from one frame to the next, after the picture
    had been three times further away. So a swing that returns roughly, a slow scene or a still picture is no loop,
    and the share does not depend on how much the content moves.
    """

    info = MetricInfo(
        id="loop",
        version=1,
        title="share of frames that replay an earlier stretch",
        better="lower",
        low=0,
        high=1,
        min_frames=8,
        source="longgen; the recurrence form of NoRepeat, arXiv 2502.15894",
    )

    def __init__(self, video: Video) -> None:
        self.points = Samples(video.fps)

    def add(self, moment: Moment) -> None:
        self.points.add(moment.index, lambda: moment.shared(tiny))

    def end(self) -> Score:
        found = returns(self.points.matrix(), self.points.fps)
        replayed = found.replayed
        ends = replayed.any(0)
        # the whole window before its end is a repetition, not its last frame alone
        share = np.convolve(ends, np.ones(found.window))[found.window - 1 :] > 0
        period = float(found.lags[replayed.sum(1).argmax()] / found.fps) if ends.any() else None
        closest = np.sqrt(np.where(np.isfinite(found.distance), found.distance, np.nan))
        finite = np.isfinite(closest).any(1)
        drawn = curve((found.lags / found.fps)[finite], np.nanmean(closest[finite], axis=1), np.min, "lag, s")
        return Score.of(
            float(share.mean()),
            n=share.size,
            extras={"period_s": period, "curves": {"mean difference, grey levels": drawn}},
        )
