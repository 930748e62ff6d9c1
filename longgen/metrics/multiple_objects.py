"""Multiple objects, VBench: are both objects of the prompt in the same frame?"""

from __future__ import annotations

from longgen.metrics.base import MetricInfo
from longgen.metrics.object_class import ObjectClass


class MultipleObjects(ObjectClass):
    """Σ frames in which every class of "A and B" is detected / Σ frames, over 16 middle frames."""

    info = MetricInfo(
        id="multiple_objects",
        version=1,
        title="all objects of the prompt are there together",
        better="higher",
        low=0,
        high=1,
        family="vbench",
        needs=frozenset({"weights", "given", "text"}),
        comparable=True,
        min_frames=1,
        source="VBench, arXiv 2311.17982, multiple_objects.py",
    )

    def parse(self) -> list[str]:
        return str(self.entry("multiple_objects", "object")).split(" and ")
