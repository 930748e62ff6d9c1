"""Video inception score: sure and varied classes over a set of clips."""

from __future__ import annotations

import numpy as np

from longgen.metrics.base import MetricInfo
from longgen.metrics.corpus import CLIP, Clips, Floats
from longgen.metrics.distances import inception_score


class VideoIs(Clips):
    """exp E KL(p(y|x) ‖ p(y)) over 16-frame clips with the classes of `i3d` (Kinetics).

    Published values use C3D on UCF-101 and are not comparable.
    """

    info = MetricInfo(
        id="video_is",
        version=1,
        title="inception score of clips (I3D classes)",
        better="higher",
        family="distribution",
        needs=frozenset({"weights"}),
        min_frames=CLIP,
        source="arXiv 1611.06624",
    )

    @classmethod
    def compare(cls, mine: Floats, reference: Floats) -> float:
        e = np.exp(mine - mine.max(axis=1, keepdims=True))  # the rows are logits
        return inception_score(e / e.sum(axis=1, keepdims=True))
