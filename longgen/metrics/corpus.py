"""The part that distribution metrics share: features per video now, one number per set of videos at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longgen.metrics.base import Frame, Metric, Moment, Score, Video

CLIP = 16
Floats = NDArray[np.float64]


class Corpus(Metric):
    """A metric of a whole set of videos. Its per-video result holds features; `compare` makes the one number."""

    corpus = True

    @classmethod
    def against(cls, scores: Sequence[Score], reference: Sequence[Score]) -> Score:
        """The value of a set of videos, beside a reference set where the metric needs one.

        A reason instead of a value when there are too few items.
        """
        mine, other = features_of(scores), features_of(reference)
        wants = "reference" in cls.info.needs
        if wants and not len(other):
            return Score.none("needs a reference set: --reference FOLDER")
        widths = {f.shape[1] for f in (mine, other) if len(f)}
        if len(widths) > 1:
            return Score.none(f"features of unequal size {sorted(widths)}: videos of unequal length or backend")
        short = min(len(mine), len(other)) if wants else len(mine)
        if short < cls.fewest():
            return Score.none(f"{short} items are too few, needs {cls.fewest()}")
        return Score.of(cls.compare(mine, other), n=len(mine), extras={"reference": len(other)})

    @classmethod
    def summarise(cls, scores: Sequence[Score]) -> Score:
        return cls.against(scores, [])

    @classmethod
    def fewest(cls) -> int:
        """Fewest items (rows) per set."""
        return 2

    @classmethod
    def compare(cls, mine: Floats, reference: Floats) -> float:
        """The number, from feature rows of the videos and of the reference."""
        raise NotImplementedError


def features_of(scores: Sequence[Score]) -> Floats:
    """All feature rows of a set of per-video results, [n, D]; [0, 0] when there are none."""
    rows = [row for s in scores for row in s.extras.get("features", ())]
    return np.asarray(rows, dtype=np.float64) if rows else np.zeros((0, 0))


def held(features: Sequence[Any]) -> Score:
    """The per-video result: no value of its own, but feature rows."""
    rows = [[float(v) for v in row] for row in features]
    return Score.none("a metric of the whole set: see the summary", n=len(rows), extras={"features": rows})


class Clips(Corpus):
    """Features of successive clips of 16 frames from the video backend `i3d`; a last part below 16 frames is left."""

    backends = {"i3d": "i3d_torchscript.pt"}

    def __init__(self, video: Video, **backends: Any) -> None:
        self.model = backends["i3d"]
        self.clip: list[Frame] = []
        self.rows: list[Any] = []

    def add(self, moment: Moment) -> None:
        self.clip.append(moment.frame)
        if len(self.clip) == CLIP:
            self.rows.append(self.model(self.clip))
            self.clip = []

    def end(self) -> Score:
        return held(self.rows)
