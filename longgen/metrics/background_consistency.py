"""Background consistency, VBench: the same formula as subject consistency, on whole-frame CLIP features."""

from __future__ import annotations

from longgen.metrics.base import MetricInfo
from longgen.metrics.subject_consistency import SubjectConsistency


class BackgroundConsistency(SubjectConsistency):
    """Mean over t ≥ 1 of ½·[max(0, ⟨e_t, e_{t−1}⟩) + max(0, ⟨e_t, e_0⟩)] with CLIP ViT-B/32 image features.

    There is no segmentation, in the official code neither. Corpus weighted by frames.
    """

    info = MetricInfo(
        id="background_consistency",
        version=1,
        title="likeness of frames to the one before and the first (CLIP)",
        better="higher",
        low=0,
        high=1,
        family="vbench",
        needs=frozenset({"weights", "given"}),
        comparable=True,
        source="VBench, arXiv 2311.17982, background_consistency.py",
    )
    role = "clip_b32"
    backends = {"clip_b32": "hf:openai/clip-vit-base-patch32"}
    given = "embeddings.clip_b32"
