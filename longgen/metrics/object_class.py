"""Object class, VBench: is the object of the prompt there?"""

from __future__ import annotations

from typing import Any

from longgen.metrics.base import Frame, MetricInfo, Score
from longgen.metrics.sampled import Sampled, labels_of, share
from longgen.metrics.vbench_rules import labels_present


class ObjectClass(Sampled):
    """Σ frames with the class detected / Σ frames, over 16 middle frames.

    Detections of one video: a list per frame of {"label", "score", "box": [x0, y0, x1, y1]}.
    """

    info = MetricInfo(
        id="object_class",
        version=1,
        title="the object of the prompt is there",
        better="higher",
        low=0,
        high=1,
        family="vbench",
        needs=frozenset({"weights", "given", "text"}),
        comparable=True,
        min_frames=1,
        source="VBench, arXiv 2311.17982, object_class.py",
    )
    role = "detector"
    backends = {"detector": "grit_b_densecap_objectdet.pth"}
    given = "detections"

    def prepare(self) -> None:
        self.wanted = self.parse()

    def parse(self) -> list[str]:
        return [str(self.entry("object_class", "object"))]

    def ask(self, frame: Frame) -> Any:
        assert self.model is not None
        return self.model(frame, self.wanted)

    def verdict(self, answers: list[Any]) -> Score:
        return share(*labels_present([labels_of(a) for a in answers], self.wanted))
