"""Subject consistency, VBench: does what is seen stay the same, frame to frame and to the first frame?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from longgen.metrics.aggregate import mean_over_items
from longgen.metrics.base import Embedder, Metric, MetricInfo, Moment, Score, Vector, Video
from longgen.metrics.vbench_rules import AdjacentAndFirst


class SubjectConsistency(Metric):
    """Mean over t ≥ 1 of ½·[max(0, ⟨e_t, e_{t−1}⟩) + max(0, ⟨e_t, e_0⟩)] with DINO ViT-B/16 CLS features.

    Corpus: weighted by frames, as the official code does in one process (in several it weights by video; ours never
    depends on that). Saturates near 1 and cannot see slow drift: read it beside `coherence` and `drift_*`.
    """

    info = MetricInfo(
        id="subject_consistency",
        version=1,
        title="likeness of frames to the one before and the first (DINO)",
        better="higher",
        low=0,
        high=1,
        family="vbench",
        needs=frozenset({"weights", "given"}),
        comparable=True,
        source="VBench, arXiv 2311.17982, subject_consistency.py",
    )
    role: ClassVar[str] = "dino"
    backends = {"dino": "hf:facebook/dino-vitb16"}
    given = "embeddings.dino"

    def __init__(self, video: Video, **backends: Any) -> None:
        self.embedder: Embedder | None = backends.get(self.role)
        self.ready: Vector | None = None
        if self.embedder is None:
            self.ready = given_embeddings(video, self.given)
        self.rule = AdjacentAndFirst()

    def add(self, moment: Moment) -> None:
        self.rule.add(moment.embed(self.embedder) if self.ready is None else self.ready[moment.index])

    def end(self) -> Score:
        items = self.rule.scores
        extras = {"video_sim": sum(items), "cnt_per_video": len(items)}
        return Score.of(np.mean(items), n=len(items), weight=len(items), items=tuple(items), extras=extras)

    @classmethod
    def summarise(cls, scores: Sequence[Score]) -> Score:
        return mean_over_items(scores)


def given_embeddings(video: Video, kind: str) -> Vector:
    """Outside embeddings [F, D] of a video, normalised; Unavailable when they do not fit the video."""
    from longgen.metrics.base import Unavailable, needs_given

    table = np.asarray(needs_given(video, kind), dtype=np.float32)
    if table.ndim != 2 or len(table) != video.frames:
        raise Unavailable(f"{kind} of this video must be [{video.frames}, D], not {list(table.shape)}")
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not (norms > 0).all():
        raise Unavailable(f"{kind} of this video hold a vector of norm 0 or NaN")
    return np.asarray(table / norms, dtype=np.float32)
