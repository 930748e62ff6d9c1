"""Spatial relationship, VBench: do the objects stand as the prompt says?"""

from __future__ import annotations

from typing import Any

from longgen.metrics.base import MetricInfo, Score
from longgen.metrics.object_class import ObjectClass
from longgen.metrics.vbench_rules import spatial_score


class SpatialRelationship(ObjectClass):
    """Mean over frames of the best pair's score; the official rule ignores side and identity (docs/footguns.md)."""

    info = MetricInfo(
        id="spatial_relationship",
        version=1,
        title="the objects stand as the prompt says",
        better="higher",
        low=0,
        high=1,
        family="vbench",
        needs=frozenset({"weights", "given", "text"}),
        comparable=True,
        min_frames=1,
        source="VBench, arXiv 2311.17982, spatial_relationship.py",
    )

    def parse(self) -> list[str]:
        entry = self.entry("spatial_relationship", "spatial_relationship")
        self.relation = str(entry["relationship"])
        return [str(entry["object_a"]), str(entry["object_b"])]

    def verdict(self, answers: list[Any]) -> Score:
        first, second = self.wanted
        scores = []
        for detections in answers:
            kept = [d for d in detections if float(d.get("score", 1.0)) >= 0.5]
            boxes = {name: [tuple(d["box"]) for d in kept if d["label"] == name] for name in self.wanted}
            scores.append(spatial_score(boxes, first, second, self.relation))
        mean = sum(scores) / len(scores)
        return Score.of(mean, n=len(scores), weight=len(scores), items=tuple(scores), extras={"frame_results": scores})
