"""Scene, VBench: do captions of the frames name the scene of the prompt?"""

from __future__ import annotations

from typing import Any

from longgen.metrics.base import Frame, MetricInfo, Score
from longgen.metrics.sampled import Sampled, share
from longgen.metrics.vbench_rules import words_present


class Scene(Sampled):
    """Σ captions that hold every word of the scene / Σ captions, over 16 middle frames.

    Captions of one video: a list of strings, one per frame.
    """

    info = MetricInfo(
        id="scene",
        version=1,
        title="captions name the scene of the prompt",
        better="higher",
        low=0,
        high=1,
        family="vbench",
        needs=frozenset({"weights", "given", "text"}),
        comparable=True,
        min_frames=1,
        source="VBench, arXiv 2311.17982, scene.py",
    )
    role = "captioner"
    backends = {"captioner": "tag2text_swin_14m.pth"}
    given = "captions"

    def prepare(self) -> None:
        self.scene = str(self.entry("scene", "scene", "scene"))

    def ask(self, frame: Frame) -> Any:
        assert self.model is not None
        return self.model(frame)

    def verdict(self, answers: list[Any]) -> Score:
        return share(*words_present([str(a) for a in answers], self.scene))
