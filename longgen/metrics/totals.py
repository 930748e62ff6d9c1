"""VBench's totals from scores per dimension. Knows the published constants, no video.

Source: Vchitect/VBench scripts/cal_final_score.py and the I2V scorer; reproduces published tables (see the tests).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from longgen.errors import BadInput, unknown

RANGES: dict[str, tuple[float, float]] = {
    "subject_consistency": (0.1462, 1.0),
    "background_consistency": (0.2615, 1.0),
    "temporal_flickering": (0.6293, 1.0),
    "motion_smoothness": (0.7060, 0.9975),
    "dynamic_degree": (0.0, 1.0),
    "aesthetic_quality": (0.0, 1.0),
    "imaging_quality": (0.0, 1.0),
    "object_class": (0.0, 1.0),
    "multiple_objects": (0.0, 1.0),
    "human_action": (0.0, 1.0),
    "color": (0.0, 1.0),
    "spatial_relationship": (0.0, 1.0),
    "scene": (0.0, 0.8222),
    "appearance_style": (0.0009, 0.2855),
    "temporal_style": (0.0, 0.3640),
    "overall_consistency": (0.0, 0.3640),
    "i2v_subject": (0.1462, 1.0),
    "i2v_background": (0.2615, 1.0),
    "camera_motion": (0.0, 1.0),
}
"""Dimension → (minimum, maximum) of the normalisation; values outside are not clipped."""

QUALITY = (
    "subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness", "dynamic_degree",
    "aesthetic_quality", "imaging_quality",
)  # fmt: skip
SEMANTIC = (
    "object_class", "multiple_objects", "human_action", "color", "spatial_relationship", "scene", "appearance_style",
    "temporal_style", "overall_consistency",
)  # fmt: skip
I2V = ("i2v_subject", "i2v_background", "camera_motion")
I2V_QUALITY = tuple(d for d in QUALITY if d != "temporal_flickering")
WEIGHTS = {"dynamic_degree": 0.5, "camera_motion": 0.1}
"""Dimensions whose weight is not 1 (camera motion has 0.1 in I2V)."""


@dataclass(frozen=True)
class Totals:
    """Totals in percent; a total whose dimensions are not all there is None, and the gaps are named.

    Args:
        kind: "t2v" (parts quality, semantic) or "i2v" (parts i2v, quality).
    """

    kind: str
    parts: Mapping[str, float | None]
    total: float | None
    missing: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {**self.parts, "total": self.total, "missing": list(self.missing)}


def normalised(dimension: str, score: float) -> float:
    """(score − min) / (max − min) of a fraction score, without clipping."""
    low, high = RANGES[dimension]
    return (score - low) / (high - low)


def group(scores: Mapping[str, float], dimensions: tuple[str, ...]) -> float | None:
    """Weighted mean of normalised scores (fractions) over a group; None when one is missing."""
    if any(d not in scores for d in dimensions):
        return None
    weight = {d: WEIGHTS.get(d, 1.0) for d in dimensions}
    return sum(weight[d] * normalised(d, scores[d]) for d in dimensions) / sum(weight.values())


def totals(scores: Mapping[str, float]) -> Totals:
    """Totals of scores given as fractions: I2V when an I2V dimension is among them, text-to-video otherwise.

    T2V: total = (4·quality + semantic) / 5 (quality weight 6.5 in all, semantic a plain mean of 9).
    I2V: total = (i2v + quality) / 2 (weights 2.1 and 5.5 in all, no flicker).
    """
    if any(d in scores for d in I2V):
        first, second = group(scores, I2V), group(scores, I2V_QUALITY)
        whole = None if first is None or second is None else (first + second) / 2
        names, wanted, kind = ("i2v", "quality"), I2V + I2V_QUALITY, "i2v"
    else:
        first, second = group(scores, QUALITY), group(scores, SEMANTIC)
        whole = None if first is None or second is None else (4 * first + second) / 5
        names, wanted, kind = ("quality", "semantic"), QUALITY + SEMANTIC, "t2v"
    parts = {names[0]: _percent(first), names[1]: _percent(second)}
    return Totals(kind, parts, _percent(whole), tuple(d for d in wanted if d not in scores))


def totals_from_object(data: Any, where: str = "scores") -> Totals:
    """Totals from a JSON object dimension → score, with `unit`: "percent" or "fraction".

    VBench's own `*_eval_results.json` (dimension → [score, details]) is taken too; its unit is the fraction.

    Raises:
        BadInput: not an object, no unit, an unknown dimension, a score that is no number or out of its range.
    """
    if not isinstance(data, dict):
        raise BadInput(f"{where}: must be a JSON object of dimension → score with a key unit")
    if data and all(isinstance(v, list) and v for v in data.values()):
        data = {"unit": "fraction"} | {k: v[0] for k, v in data.items()}
    unit = data.get("unit")
    if unit not in ("percent", "fraction"):
        raise BadInput(f'{where}: needs "unit": "percent" or "fraction", got {unit!r}')
    scores: dict[str, float] = {}
    for key, value in data.items():
        if key == "unit":
            continue
        name = key.strip().lower().replace(" ", "_")
        if name not in RANGES:
            raise unknown("VBench dimension", key, RANGES)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise BadInput(f"{where}: {key} must be a number, not {value!r}")
        scores[name] = float(value) / (100 if unit == "percent" else 1)
        if not 0 <= scores[name] <= 1:
            raise BadInput(f"{where}: {key} = {value} is outside 0-{100 if unit == 'percent' else 1} ({unit})")
    return totals(scores)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
