"""Metrics by name. One line per metric; classes are imported when asked for, weights when a metric needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longgen.registry import lookup

if TYPE_CHECKING:
    from longgen.metrics.base import Metric

METRICS: dict[str, str] = {
    "subject_consistency": "longgen.metrics.subject_consistency:SubjectConsistency",
    "background_consistency": "longgen.metrics.background_consistency:BackgroundConsistency",
    "temporal_flickering": "longgen.metrics.temporal_flickering:TemporalFlickering",
    "motion_smoothness": "longgen.metrics.motion_smoothness:MotionSmoothness",
    "motion_smoothness_classical": "longgen.metrics.motion_smoothness:MotionSmoothnessClassical",
    "dynamic_degree": "longgen.metrics.dynamic_degree:DynamicDegree",
    "dynamic_degree_classical": "longgen.metrics.dynamic_degree:DynamicDegreeClassical",
    "aesthetic_quality": "longgen.metrics.aesthetic_quality:AestheticQuality",
    "imaging_quality": "longgen.metrics.imaging_quality:ImagingQuality",
    "object_class": "longgen.metrics.object_class:ObjectClass",
    "multiple_objects": "longgen.metrics.multiple_objects:MultipleObjects",
    "human_action": "longgen.metrics.human_action:HumanAction",
    "color": "longgen.metrics.color:Color",
    "spatial_relationship": "longgen.metrics.spatial_relationship:SpatialRelationship",
    "scene": "longgen.metrics.scene:Scene",
    "appearance_style": "longgen.metrics.appearance_style:AppearanceStyle",
    "temporal_style": "longgen.metrics.temporal_style:TemporalStyle",
    "overall_consistency": "longgen.metrics.overall_consistency:OverallConsistency",
    "static_classical": "longgen.metrics.dynamic_degree:StaticClassical",
    "headline": "longgen.metrics.headline:Headline",
    "seam": "longgen.metrics.seam:Seam",
    "loop": "longgen.metrics.loop:Loop",
    "no_repeat": "longgen.metrics.no_repeat:NoRepeat",
    "drift_luma": "longgen.metrics.drift:DriftLuma",
    "drift_saturation": "longgen.metrics.drift:DriftSaturation",
    "drift_contrast": "longgen.metrics.drift:DriftContrast",
    "drift_sharpness": "longgen.metrics.drift:DriftSharpness",
    "drift_noise": "longgen.metrics.drift:DriftNoise",
    "drift_lab_a": "longgen.metrics.drift:DriftLabA",
    "drift_lab_b": "longgen.metrics.drift:DriftLabB",
    "start_end_contrast": "longgen.metrics.start_end_contrast:StartEndContrast",
    "coherence": "longgen.metrics.coherence:Coherence",
    "cscv": "longgen.metrics.cscv:Cscv",
    "transition": "longgen.metrics.transition:Transition",
    "freeze": "longgen.metrics.freeze:Freeze",
    "positional_kvd": "longgen.metrics.positional_kvd:PositionalKvd",
    "revisit": "longgen.metrics.revisit:Revisit",
    "fvd": "longgen.metrics.fvd:Fvd",
    "kvd": "longgen.metrics.kvd:Kvd",
    "stream_t": "longgen.metrics.stream:StreamT",
    "stream_f": "longgen.metrics.stream:StreamF",
    "stream_d": "longgen.metrics.stream:StreamD",
    "video_is": "longgen.metrics.video_is:VideoIs",
    "clip_sim": "longgen.metrics.clip_sim:ClipSim",
    "clip_text": "longgen.metrics.clip_sim:ClipText",
    "uve": "longgen.metrics.judge:Uve",
    "tc_bench": "longgen.metrics.judge:TcBench",
}

LONG = (
    "subject_consistency",
    "background_consistency",
    "temporal_flickering",
    "motion_smoothness",
    "motion_smoothness_classical",
    "dynamic_degree",
    "dynamic_degree_classical",
    "aesthetic_quality",
    "imaging_quality",
    "object_class",
    "multiple_objects",
    "human_action",
    "color",
    "spatial_relationship",
    "scene",
    "appearance_style",
    "temporal_style",
    "overall_consistency",
)
METRICS |= {f"{name}_long": f"longgen.metrics.vbench_long:{name}" for name in LONG}
"""VBench-Long: each dimension on clips, made from the dimension's own class."""


def metric(name: str) -> type[Metric]:
    """The class of a metric; BadInput names the nearest valid one."""
    cls: type[Metric] = lookup(METRICS, "metric", name)
    return cls
