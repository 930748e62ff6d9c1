"""Metrics by name. One line per metric; classes are imported when asked for, weights when a metric needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longgen.registry import lookup

if TYPE_CHECKING:
    from longgen.metrics.base import Metric

METRICS: dict[str, str] = {
    "temporal_flickering": "longgen.metrics.temporal_flickering:TemporalFlickering",
    "motion_smoothness": "longgen.metrics.motion_smoothness:MotionSmoothness",
    "motion_smoothness_classical": "longgen.metrics.motion_smoothness:MotionSmoothnessClassical",
    "dynamic_degree": "longgen.metrics.dynamic_degree:DynamicDegree",
    "dynamic_degree_classical": "longgen.metrics.dynamic_degree:DynamicDegreeClassical",
    "static_classical": "longgen.metrics.dynamic_degree:StaticClassical",
}


def metric(name: str) -> type[Metric]:
    """The class of a metric; BadInput names the nearest valid one."""
    cls: type[Metric] = lookup(METRICS, "metric", name)
    return cls
