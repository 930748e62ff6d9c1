"""KVD: kernel distance of I3D features to a reference set."""

from __future__ import annotations

from longgen.metrics.base import MetricInfo
from longgen.metrics.corpus import CLIP, Clips, Floats
from longgen.metrics.distances import kernel_distance


class Kvd(Clips):
    """Unbiased MMD² with the cubic kernel over the clips of `fvd`; unbiased at any number of clips, also negative."""

    info = MetricInfo(
        id="kvd",
        version=1,
        title="kernel distance to the reference clips (I3D)",
        better="lower",
        family="distribution",
        needs=frozenset({"weights", "reference"}),
        min_frames=CLIP,
        source="arXiv 1812.01717; KID, arXiv 1801.01401",
    )

    @classmethod
    def compare(cls, mine: Floats, reference: Floats) -> float:
        return kernel_distance(mine, reference)
