"""Temporal style, VBench: overall consistency over the suite's prompts on camera and time."""

from __future__ import annotations

from longgen.metrics.base import MetricInfo
from longgen.metrics.overall_consistency import OverallConsistency


class TemporalStyle(OverallConsistency):
    """The very computation of `overall_consistency`; only the suite's prompts differ."""

    info = MetricInfo(
        id="temporal_style",
        version=1,
        title="the video moves as the prompt says (ViCLIP)",
        better="higher",
        low=-1,
        high=1,
        family="vbench",
        needs=frozenset({"weights", "text"}),
        comparable=True,
        min_frames=1,
        source="VBench, arXiv 2311.17982, temporal_style.py",
    )
