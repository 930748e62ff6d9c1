"""Start–end contrast: how different the end of a video looks from its start. No weights."""

from __future__ import annotations

import numpy as np

from longgen.metrics.base import Metric, MetricInfo, Moment, Score, Video
from longgen.metrics.longstats import ends
from longgen.metrics.qualities import QUALITIES, VISIBLE, qualities
from longgen.metrics.samples import Samples


class StartEndContrast(Metric):
    """√ mean_q (Δ_q / v_q)², with Δ_q = mean over the last 15 % − mean over the first 15 % of each picture quality.

    v_q is a change of that quality that is easily seen (`qualities.VISIBLE`): 1 means visibly different. FramePack's
    |M(start) − M(end)| for seven weight-free M at once; the signed Δ_q are in `extras`. It cannot see what happens
    between the ends.
    """

    info = MetricInfo(
        id="start_end_contrast",
        version=1,
        title="difference of look between the first and the last 15 %",
        better="lower",
        low=0,
        unit="visible differences",
        min_frames=4,
        source="FramePack, arXiv 2504.12626",
    )

    def __init__(self, video: Video) -> None:
        self.values = Samples(video.fps)

    def add(self, moment: Moment) -> None:
        self.values.add(moment.index, lambda: moment.shared(qualities))

    def end(self) -> Score:
        first, last = ends(self.values.matrix())
        delta = last - first
        weighed = delta / np.array(VISIBLE)
        return Score.of(
            float(np.sqrt(np.mean(weighed**2))),
            n=len(self.values.kept),
            items=tuple(delta.tolist()),
            extras={"delta": dict(zip(QUALITIES, delta.tolist()))},
        )
