"""The headline: one number that pairs consistency with motion, so that a still image cannot win. No weights."""

from __future__ import annotations

from longgen.metrics.base import Metric, MetricInfo, Moment, Score, Unavailable, Video
from longgen.metrics.coherence import Coherence
from longgen.metrics.freeze import Freeze
from longgen.metrics.loop import Loop
from longgen.metrics.start_end_contrast import StartEndContrast


class Headline(Metric):
    """2·C·M / (C + M): the harmonic mean of consistency C and motion M, each in 0-1.

    C = coherence / (1 + start_end_contrast²). M = (1 − freeze)·(1 − loop), 0 for a picture in which nothing moves.
    Consistency tables alone are won by a still picture, and by a loop; here both get 0.
    """

    info = MetricInfo(
        id="headline",
        version=1,
        title="harmonic mean of consistency and motion",
        better="higher",
        low=0,
        high=1,
        min_frames=8,
        source="longgen",
    )

    def __init__(self, video: Video) -> None:
        self.parts = {
            "coherence": Coherence(video),
            "contrast": StartEndContrast(video),
            "freeze": Freeze(video),
            "loop": Loop(video),
        }

    def add(self, moment: Moment) -> None:
        for part in self.parts.values():
            part.add(moment)

    def end(self) -> Score:
        values = {name: self.parts[name].end().value or 0.0 for name in ("coherence", "contrast", "freeze")}
        if values["freeze"] < 1:
            values["loop"] = self._loop()
        consistency = values["coherence"] / (1 + values["contrast"] ** 2)
        motion = (1 - values["freeze"]) * (1 - values.get("loop", 0.0))
        total = consistency + motion
        return Score.of(
            2 * consistency * motion / total if total else 0.0,
            n=1,
            extras={"consistency": consistency, "motion": motion, **values},
        )

    def _loop(self) -> float:
        try:
            return self.parts["loop"].end().value or 0.0
        except Unavailable:  # too little moves to tell a loop: the freeze share alone stands for motion
            return 0.0
