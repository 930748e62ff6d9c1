"""STREAM: fidelity and diversity of a set of videos, in time and in content, for any length."""

from __future__ import annotations

from typing import Any

import numpy as np

from longgen.metrics.base import MetricInfo, Moment, Score, Vector, Video
from longgen.metrics.corpus import Corpus, Floats, held
from longgen.metrics.distances import histogram_agreement, precision_recall, temporal_skewness

NEAREST = 5


def _info(name: str, title: str) -> MetricInfo:
    return MetricInfo(
        id=name,
        version=1,
        title=title,
        better="higher",
        low=0,
        high=1,
        family="distribution",
        needs=frozenset({"weights", "reference"}),
        min_frames=4,
        source="STREAM, arXiv 2403.09669",
    )


class StreamT(Corpus):
    """Temporal naturalness: agreement of the histograms of temporal skewness, dimension by dimension.

    All videos and references need the same number of frames, since the skewness depends on it.
    """

    info = _info("stream_t", "natural change over time, against a reference set")
    backends = {"dinov2": "hf:facebook/dinov2-small"}
    part = 0

    def __init__(self, video: Video, **backends: Any) -> None:
        self.model = backends["dinov2"]
        self.points: list[Vector] = []

    def add(self, moment: Moment) -> None:
        self.points.append(moment.embed(self.model))

    def end(self) -> Score:
        summary = temporal_skewness(np.asarray(self.points, dtype=np.float64))
        return held([[len(self.points), *summary[self.part]]])

    @classmethod
    def compare(cls, mine: Floats, reference: Floats) -> float:
        if len({*mine[:, 0], *reference[:, 0]}) > 1:
            return float("nan")
        return cls.statistic(mine[:, 1:], reference[:, 1:])

    @classmethod
    def statistic(cls, mine: Floats, reference: Floats) -> float:
        return histogram_agreement(reference, mine)

    @classmethod
    def fewest(cls) -> int:
        return NEAREST + 1


class StreamF(StreamT):
    """Fidelity: precision (k = 5) of the mean amplitudes."""

    info = _info("stream_f", "content like that of the reference set")
    part = 1

    @classmethod
    def statistic(cls, mine: Floats, reference: Floats) -> float:
        return precision_recall(reference, mine, NEAREST)[0]


class StreamD(StreamT):
    """Diversity: recall (k = 5) of the mean amplitudes."""

    info = _info("stream_d", "content as varied as that of the reference set")
    part = 1

    @classmethod
    def statistic(cls, mine: Floats, reference: Floats) -> float:
        return precision_recall(reference, mine, NEAREST)[1]
