"""Drift: signed slopes of picture qualities over a video, with block-bootstrap intervals. No weights."""

from __future__ import annotations

from typing import ClassVar

from longgen.metrics.base import Metric, MetricInfo, Moment, Score, Video
from longgen.metrics.longstats import ends, slope_interval
from longgen.metrics.qualities import QUALITIES, UNITS, qualities
from longgen.metrics.samples import Samples, curve

MEANING = (
    "mean luma",
    "logarithm of the mean chroma",
    "logarithm of the standard deviation of luma",
    "fineness of edges, whatever their contrast",
    "noise of the calmest fifth of the picture",
    "green to red",
    "blue to yellow",
)


class Drift(Metric):
    """Theil–Sen slope of one quality per minute, signed, with a 95 % moving-block bootstrap interval.

    0 is no drift, but real footage drifts too: compare with the slopes of short clips of the same model, which is why
    no direction is "better". `extras` hold the change from the first to the last 15 % (`delta`) and the curve.
    """

    quality: ClassVar[int]

    def __init__(self, video: Video) -> None:
        self.values = Samples(video.fps)

    def add(self, moment: Moment) -> None:
        self.values.add(moment.index, lambda: moment.shared(qualities)[self.quality])

    def end(self) -> Score:
        times, values = self.values.times(), self.values.matrix()
        slope, (low, high) = slope_interval(times, values)
        first, last = ends(values[:, None])
        return Score.of(
            60 * slope,
            n=len(times),
            ci=(60 * low, 60 * high),
            extras={"delta": float(last[0] - first[0]), "curves": {QUALITIES[self.quality]: curve(times, values)}},
        )


def _drift(index: int) -> type[Drift]:
    name = QUALITIES[index]
    info = MetricInfo(
        id=f"drift_{name}",
        version=1,
        title=f"change per minute of {name.replace('_', ' ')}: {MEANING[index]}",
        better="none",
        unit=f"{UNITS[index]}/min",
        min_frames=8,
        source="longgen; Theil–Sen slope, moving-block bootstrap",
    )
    return type(
        f"Drift{name.title().replace('_', '')}", (Drift,), {"info": info, "quality": index, "__doc__": info.title}
    )


DriftLuma, DriftSaturation, DriftContrast, DriftSharpness, DriftNoise, DriftLabA, DriftLabB = map(
    _drift, range(len(QUALITIES))
)
