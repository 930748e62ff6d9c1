"""Color, VBench: does the object have the colour of the prompt?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from longgen.metrics.aggregate import mean_over_videos
from longgen.metrics.base import Frame, MetricInfo, Score, needs_prompt
from longgen.metrics.sampled import Sampled
from longgen.metrics.vbench_rules import colour_hits


class Color(Sampled):
    """Frames whose caption of the object names the wanted colour / frames whose caption names any colour.

    Dense captions of one video: a list per frame of [caption, class]. Videos in which no caption of the object names a
    colour are dropped from the mean, as in the official code: an absent object is not punished.
    """

    info = MetricInfo(
        id="color",
        version=1,
        title="the object has the colour of the prompt",
        better="higher",
        low=0,
        high=1,
        family="vbench",
        needs=frozenset({"weights", "given", "text"}),
        comparable=True,
        min_frames=1,
        source="VBench, arXiv 2311.17982, color.py",
    )
    role = "dense_captioner"
    backends = {"dense_captioner": "grit_b_densecap_objectdet.pth"}
    given = "dense_captions"

    def prepare(self) -> None:
        self.colour = str(self.entry("color", "color"))
        # the official parse: "a " and "an " go wherever they stand, then the colour
        text = needs_prompt(self.video)
        self.wanted = text.replace("a ", "").replace("an ", "").replace(self.colour, "").strip()

    def ask(self, frame: Frame) -> Any:
        assert self.model is not None
        return self.model(frame)

    def verdict(self, answers: list[Any]) -> Score:
        hit, named = colour_hits([[(str(c), str(k)) for c, k in frame] for frame in answers], self.wanted, self.colour)
        if named == 0:
            return Score.none(f"dropped by VBench's rule: no caption of {self.wanted!r} names a colour")
        return Score.of(hit / named, n=named, extras={"cor_num_per_video": hit})

    @classmethod
    def summarise(cls, scores: Sequence[Score]) -> Score:
        return mean_over_videos(scores)
