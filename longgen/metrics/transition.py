"""Prompt transitions: when the picture changes, against when the timeline said so. No weights by default."""

from __future__ import annotations

import numpy as np

from longgen.metrics.base import Embedder, Metric, MetricInfo, Moment, Score, Unavailable, Video
from longgen.metrics.longstats import Floats
from longgen.metrics.looks import look
from longgen.metrics.samples import Samples

DISTINCT = 2.0
"""The two sides of a transition must differ by this many times their own scatter, or it counts as missing."""


class Transition(Metric):
    """Mean |τ̂_k − s_k| in seconds over the scheduled changes s_k that happened.

    τ̂_k splits the stretch between the middles of the neighbouring shots into the two parts that differ most:
    argmax_t n₁n₂/(n₁+n₂)·‖mean₁ − mean₂‖² of the looks (the likelihood of one change point). `items` are signed
    latencies, late > 0. `extras`: width (10 → 90 % of the way from one side to the other) and the number of changes
    that did not happen. Whether the new picture shows what the prompt says needs a text model and is not asked here.
    """

    info = MetricInfo(
        id="transition",
        version=1,
        title="distance in time between planned and seen shot changes",
        better="lower",
        low=0,
        unit="s",
        needs=frozenset({"shots"}),
        min_frames=8,
        source="longgen",
    )
    optional = {"embedder": "the weight-free look"}

    def __init__(self, video: Video, embedder: Embedder | None = None) -> None:
        if video.shots is None:
            raise Unavailable("needs the shots: a sidecar with a timeline beside the video")
        if len(video.shots) < 2:
            raise Unavailable("the timeline has one shot: there is no transition")
        self.embedder = embedder
        self.starts = [start for start, _ in video.shots] + [video.frames]
        self.video_fps = video.fps
        self.points = Samples(video.fps)

    def add(self, moment: Moment) -> None:
        self.points.add(
            moment.index, lambda: moment.shared(look) if self.embedder is None else moment.embed(self.embedder)
        )

    def end(self) -> Score:
        points, fps = self.points.matrix(), self.points.fps
        edges = np.array(self.starts) / self.video_fps
        found, widths, missing = [], [], 0
        for before, at, after in zip(edges, edges[1:], edges[2:]):
            low, high = round((before + at) / 2 * fps), min(len(points), round((at + after) / 2 * fps))
            part = points[low:high]
            if len(part) < 4:
                missing += 1
                continue
            split, contrast = change_point(part)
            if contrast < DISTINCT:
                missing += 1
                continue
            found.append((low + split) / fps - at)
            widths.append(width(part, split) / fps)
        if not found:
            raise Unavailable(f"none of {missing} planned shot changes can be seen")
        return Score.of(
            float(np.mean(np.abs(found))),
            n=len(found),
            items=tuple(found),
            extras={"width_s": widths, "missing": missing, "planned": missing + len(found)},
        )


def change_point(points: Floats) -> tuple[int, float]:
    """(index of the first row after the change, distance of the two sides' means over their scatter); [n, D], n ≥ 4."""
    n = len(points)
    sums = np.cumsum(points, 0)
    left = np.arange(1, n)
    gap = sums[:-1] / left[:, None] - (sums[-1] - sums[:-1]) / (n - left)[:, None]
    gain = left * (n - left) / n * (gap**2).sum(1)
    split = int(gain.argmax()) + 1
    total = float(((points - points.mean(0)) ** 2).sum())
    scatter = np.sqrt(max(total - gain[split - 1], 0.0) / n)
    distance = float(np.linalg.norm(gap[split - 1]))
    return split, distance / max(float(scatter), 1e-3)


def width(points: Floats, split: int) -> int:
    """Frames from the last one within 10 % of the old side to the first within 10 % of the new, along their axis."""
    old, new = np.median(points[:split], 0), np.median(points[split:], 0)
    axis = new - old
    way = (points - old) @ axis / max(float(axis @ axis), 1e-12)
    start = int(np.flatnonzero(way[:split] <= 0.1)[-1]) if (way[:split] <= 0.1).any() else 0
    past = np.flatnonzero(way[split:] >= 0.9)
    return split + int(past[0]) - start if past.size else len(points) - start
