"""NoRepeat: how far a video stays from its own beginning. No weights."""

from __future__ import annotations

import numpy as np

from longgen.metrics.base import Metric, MetricInfo, Moment, Score, Unavailable, Video
from longgen.metrics.longstats import squared_distances
from longgen.metrics.looks import tiny
from longgen.metrics.recurrence import SHORTEST, STILL, to_midpoints
from longgen.metrics.samples import Samples, curve, frames_in


class NoRepeat(Metric):
    """The nearest return to the opening second, relative to how far the video had gone: 0 restart, 1 never back.

    RIFLEx counts a video as repeating when the mean L2 distance between its start and what follows the frame most like
    frame 1 stays under 100; scale and resolution are not stated, and the place of the restart must be known. Here
    A(d) = RMS difference of the opening (a second, or a quarter of the video) and the same stretch d later, and the
    score is min_d A(d) / max_{d' < d} A(d') over all d ≥ ½ s at which the video had left its opening. RIFLEx's own
    quantity min A, as a fraction of full scale, is in `extras`.
    """

    info = MetricInfo(
        id="no_repeat",
        version=1,
        title="distance of the nearest return to the opening",
        better="higher",
        low=0,
        high=1,
        min_frames=8,
        source="RIFLEx, arXiv 2502.15894, appendix D",
    )

    def __init__(self, video: Video) -> None:
        self.points = Samples(video.fps)

    def add(self, moment: Moment) -> None:
        self.points.add(moment.index, lambda: moment.shared(tiny))

    def end(self) -> Score:
        points, fps = self.points.matrix(), self.points.fps
        n = points.shape[0]
        width = max(2, min(frames_in(1.0, fps), n // 4))
        d2 = squared_distances(points)
        between = to_midpoints(d2)
        lags = np.arange(2, 2 * (n - width) + 1) / 2  # whole and half frames: a period need not be a whole number
        lines = [np.diagonal(d2, -int(d)) if d == int(d) else np.diagonal(between, -int(d) - 1) for d in lags]
        away = np.sqrt([line[:width].mean() for line in lines])  # A(1), A(1½), A(2), …
        if away.max() < STILL:
            raise Unavailable("nothing moves away from the opening: a still picture neither repeats nor goes on")
        furthest = np.maximum.accumulate(away)
        valid = (lags >= frames_in(SHORTEST, fps, 3)) & (furthest >= away.max() / 2)
        if not valid.any():
            raise Unavailable(f"too short to come back: {n / fps:.2f} s")
        ratio = np.where(valid, away / furthest, np.inf)
        best = int(ratio.argmin())
        drawn = curve(lags / fps, away, np.min, "lag, s")
        return Score.of(
            float(ratio[best]),
            n=int(valid.sum()),
            extras={
                "nearest_s": float(lags[best]) / fps,
                "rmse": float(away[best]) / 255,
                "curves": {"difference from the opening, grey levels": drawn},
            },
        )
