"""VBench-Long: the dimensions on clips of a long video, and the slow-fast term for subject and background.

Faithful to the official rules with `--dev_flag`, for comparability. They barely discriminate: the mapping table is
indexed by quantile where it was made and looked up by raw similarity, so that a total change of background (0.3) still
maps to 0.934. Read `coherence`, `drift_*` and `headline` for the truth. Two things are mended, as they only lose
information: clips are not re-encoded before scoring, and the video never sits in memory. Splitting at scene cuts (the
official `--use_semantic_splitting`, off by default) is not done.

Metrics are named `<dimension>_long` and made on demand from the dimension's own class.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from longgen.metrics.base import Metric, Moment, Score, Video
from longgen.metrics.cliplike import ClipReader
from longgen.metrics.vbench_rules import AdjacentAndFirst

SECONDS = {"human_action": 10, "temporal_style": 10, "overall_consistency": 10}
"""Clip length of a dimension in seconds; 2 for all others (`clip_length_mix.yaml`)."""


def clip_spans(frames: int, fps: float, seconds: int) -> list[tuple[int, int]]:
    """[start, stop) of the clips: int(fps)·seconds frames each, the last one moved back to end with the video.

    >>> clip_spans(50, 8.0, 2)
    [(0, 16), (16, 32), (32, 48), (34, 50)]
    >>> clip_spans(10, 8.0, 2)
    [(0, 10)]
    """
    length = max(1, int(fps)) * seconds
    if frames <= length:
        return [(0, frames)]
    starts = [*range(0, frames - length + 1, length)]
    if starts[-1] + length < frames:
        starts.append(frames - length)
    return [(s, s + length) for s in starts]


@lru_cache
def mapping(kind: str) -> tuple[float, ...]:
    """VBench-Long's lookup table for "subject" or "background" at 0.00, 0.01 … 1.00."""
    text = files("longgen.metrics").joinpath("vbench_long_tables.json").read_text(encoding="utf-8")
    return tuple(json.loads(text)[kind])


def mapped(kind: str, c: float) -> float:
    """Linear interpolation in the table; c outside [0, 1] takes its end."""
    return float(np.interp(c, np.linspace(0, 1, 101), mapping(kind)))


class Clipwise(Metric):
    """Mean over clips of a dimension's score; clips that have none are left out."""

    inner: type[Metric]

    def __init__(self, video: Video, **backends: Any) -> None:
        seconds = SECONDS.get(self.inner.info.id, 2)
        self.video, self.backends_ = video, backends
        self.spans = clip_spans(video.frames, video.fps, seconds)
        self.open: dict[int, tuple[Metric, Moment | None]] = {}
        self.done: dict[int, Score] = {}

    def add(self, moment: Moment) -> None:
        for k, (start, stop) in enumerate(self.spans):
            if start <= moment.index < stop:
                metric, last = self.open.get(k) or (self._begin(start, stop), None)
                local = Moment(moment.index - start, moment.frame, last)
                metric.add(local)
                self.open[k] = (metric, local)
                if moment.index == stop - 1:
                    self.done[k] = self.open.pop(k)[0].end()

    def _begin(self, start: int, stop: int) -> Metric:
        clip = replace(self.video, reader=ClipReader(self.video.reader, start, stop), boundaries=None, shots=None)
        return self.inner(clip, **{r: b for r, b in self.backends_.items() if r in self.inner.backends})

    def end(self) -> Score:
        scores = [self.done[k] for k in sorted(self.done)]
        values = [s.value for s in scores if s.value is not None]
        if not values:
            return Score.none(f"no clip has a score: {scores[0].reason}")
        return self.fuse(float(np.mean(values)), values)

    def fuse(self, slow: float, values: Sequence[float]) -> Score:
        return Score.of(slow, n=len(values), items=tuple(values), extras={"clips": [list(s) for s in self.spans]})


class SlowFast(Clipwise):
    """½·slow + ½·map(fast): slow inside the clips, fast over the clips' first frames; one clip keeps slow."""

    kind: str
    fast_role: str

    def __init__(self, video: Video, **backends: Any) -> None:
        super().__init__(video, **backends)
        self.fast = AdjacentAndFirst()
        self.embedder = backends[self.fast_role]

    def add(self, moment: Moment) -> None:
        super().add(moment)
        if any(moment.index == start for start, _ in self.spans):
            self.fast.add(moment.embed(self.embedder))

    def fuse(self, slow: float, values: Sequence[float]) -> Score:
        if len(self.spans) == 1:
            return super().fuse(slow, values)
        fast = float(np.mean(self.fast.scores))
        fused = (slow + mapped(self.kind, fast)) / 2
        extras = {"slow": slow, "fast": fast, "clips": [list(s) for s in self.spans]}
        return Score.of(fused, n=len(values), items=tuple(values), extras=extras)


FAST = {"subject_consistency": ("subject", "dinov2"), "background_consistency": ("background", "clip_b32")}


def __getattr__(name: str) -> type[Metric]:
    """The long form of a dimension, for the registry: `vbench_long:<dimension>`."""
    from longgen.metrics import METRICS, metric

    if name not in METRICS or name.endswith("_long"):
        raise AttributeError(f"no VBench dimension {name!r}")
    inner = metric(name)
    info = replace(
        inner.info,
        id=f"{name}_long",
        title=f"{inner.info.title}, over clips",
        family="vbench-long",
        needs=inner.info.needs - {"given"},
    )
    fields: dict[str, Any] = {"info": info, "inner": inner, "backends": dict(inner.backends), "__doc__": inner.__doc__}
    if name not in FAST:
        return type(f"Long{inner.__name__}", (Clipwise,), fields)
    kind, role = FAST[name]
    default = {"dinov2": "hf:facebook/dinov2-base"}.get(role, inner.backends.get(role, ""))
    fields |= {"kind": kind, "fast_role": role, "backends": {**inner.backends, role: default}}
    return type(f"Long{inner.__name__}", (SlowFast,), fields)
