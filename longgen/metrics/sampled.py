"""The part that VBench's semantic dimensions share: a few middle frames, shown to an outside model or read from a file.

Knows sampling and where answers come from, not what they mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from longgen.metrics.aggregate import mean_over_items
from longgen.metrics.base import Frame, Metric, Moment, Score, Unavailable, Video, middle_frames, needs_given

SAMPLES = 16


class Sampled(Metric):
    """Asks a backend about each of 16 middle frames, or takes the answers for them from a file.

    Subclasses set `role`, `backends` and `given`, and define `ask` and `verdict`. Corpus: weighted by frames (the
    official Σ successes / Σ frames).
    """

    role: ClassVar[str]

    def __init__(self, video: Video, **backends: Any) -> None:
        self.video = video
        self.model = backends.get(self.role)
        self.prepare()
        self.order = middle_frames(video.frames, SAMPLES)
        self.seen: dict[int, Any] = {}
        self.answers: list[Any] | None = None
        if self.model is None:
            self.answers = list(needs_given(video, self.given))
            if not self.answers:
                raise Unavailable(f"{self.given} of this video hold no frame")

    def prepare(self) -> None:
        """Read what is wanted from the suite's entry or the prompt; Unavailable when it is not there."""

    def ask(self, frame: Frame) -> Any:
        """The backend's answer for one frame, in the form in which a file would hold it."""
        raise NotImplementedError

    def verdict(self, answers: list[Any]) -> Score:
        """The score from the answers of all sampled frames."""
        raise NotImplementedError

    def add(self, moment: Moment) -> None:
        if self.answers is None and moment.index in self.order:
            self.seen[moment.index] = self.ask(moment.frame)

    def end(self) -> Score:
        return self.verdict([self.seen[i] for i in self.order] if self.answers is None else self.answers)

    def entry(self, *keys: str) -> Any:
        """A value of the suite's auxiliary information; Unavailable when it is not there."""
        value: Any = self.video.entry
        for key in keys:
            if not isinstance(value, dict) or key not in value:
                raise Unavailable(f"needs the suite's entry of this prompt ({' > '.join(keys)}): --full-info FILE")
            value = value[key]
        return value

    @classmethod
    def summarise(cls, scores: Sequence[Score]) -> Score:
        return mean_over_items(scores)


def share(success: int, count: int, **extras: Any) -> Score:
    """success / count with VBench's keys; a reason when nothing was counted."""
    if count == 0:
        return Score.none("no frame to count", extras=extras)
    extras = {"success_frame_count": success, "frame_count": count, **extras}
    return Score.of(success / count, n=count, weight=count, extras=extras)


def labels_of(detections: Sequence[dict[str, Any]], threshold: float = 0.5) -> set[str]:
    """Classes detected in one frame with score ≥ 0.5."""
    return {str(d["label"]) for d in detections if float(d.get("score", 1.0)) >= threshold}
