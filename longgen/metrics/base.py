"""What a metric is, and the one pass over a file that all metrics share. Knows frames and scores, no particular metric.

A metric is a class; one instance scores one video and then is thrown away::

    class TemporalFlickering(Metric):
        info = MetricInfo(id="temporal_flickering", version=1, title="…", low=0, high=1, better="higher", …)

        def __init__(self, video: Video) -> None:   # raise Unavailable(reason) when it cannot score this video
            self.sum, self.n = 0.0, 0

        def add(self, moment: Moment) -> None:       # called for every frame, in order
            if moment.index:
                self.sum += float(np.abs(moment.frame.astype(np.float32) - moment.before(1)).mean())
                self.n += 1

        def end(self) -> Score:                      # called once, after the last frame
            return Score.of(1 - self.sum / self.n / 255, n=self.n)

Everything costly that metrics share hangs on `Moment` and is computed at most once per frame: `flow`, `residual`,
`grey`, `thumb`, `embed(backend)`, `shared(function)`. A metric that needs weights names roles in `backends` and
receives the resolved callables as keyword arguments: `def __init__(self, video, *, dino)`. It keeps numbers or small
vectors per frame, never frames, so that memory stays flat; at most a fixed few frames.

Register one line in `longgen.metrics.METRICS`: `"<id>": "longgen.metrics.<module>:<Class>"`.

Scores are means over videos (`Metric.summarise`), computed in the order of the videos' names from per-video values
alone: batch size, process count and order of evaluation cannot change them. Nothing here reads hardware.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from longgen.errors import BadInput
from longgen.media import VideoReader

Frame: TypeAlias = NDArray[np.uint8]
Vector: TypeAlias = NDArray[np.float32]
Embedder: TypeAlias = Callable[[Frame], Vector]
"""One frame, uint8 [H, W, 3] → features [D], float32. Has an attribute `id` that names weights and preprocessing."""

THUMB = 16


class Unavailable(RuntimeError):
    """A metric cannot score this video or cannot run here; the message is the reason and what would mend it."""


@dataclass(frozen=True)
class MetricInfo:
    """What a metric declares.

    Args:
        id: name in `--metrics` and in result files.
        version: rises when values change; part of the cache key.
        title: one line of plain words.
        better: "higher", "lower", or "none" for a descriptive value.
        low, high: range of the value (infinite where it has no bound).
        unit: "1", "s", "1/min", "grey levels" …
        family: "vbench", "vbench-long", "classical", "long", "distribution" or "judge".
        needs: any of "flow", "weights", "text", "boundaries", "shots", "reference", "given" (results of an outside
            detector or captioner in a file).
        comparable: the value may be set beside VBench's published ones.
        min_frames: fewest frames that can be scored; the pass turns shorter videos into a reason.
        source: paper or code that defines it.
    """

    id: str
    version: int
    title: str
    better: Literal["higher", "lower", "none"]
    low: float = -math.inf
    high: float = math.inf
    unit: str = "1"
    family: Literal["vbench", "vbench-long", "classical", "long", "distribution", "judge"] = "long"
    needs: frozenset[str] = frozenset()
    comparable: bool = False
    min_frames: int = 2
    source: str = ""


@dataclass(frozen=True)
class Score:
    """The result of one metric on one video: a finite value, or None with the reason.

    Args:
        value: the score in the metric's unit.
        reason: why there is none.
        n: number of items (pairs, frames, boundaries …) behind it.
        ci: 95 % interval, where the metric has one.
        weight: weight of this video in a corpus mean whose rule is by items; 1 in the mean over videos.
        items: the per-item values, rounded in files to 6 digits.
        extras: further named numbers, lists or short texts: curves for the report, the DIY ingredients.
    """

    value: float | None
    reason: str | None = None
    n: int = 0
    ci: tuple[float, float] | None = None
    weight: float = 1.0
    items: tuple[float, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: float | np.floating[Any], **rest: Any) -> Score:
        """A score from a number; a number that is not finite becomes a reason, never a value."""
        value = float(value)
        if math.isfinite(value):
            return cls(value, **rest)
        return cls(None, reason=f"the computation gave {value}", **rest)

    @classmethod
    def none(cls, reason: str, **rest: Any) -> Score:
        return cls(None, reason=reason, **rest)


@dataclass(frozen=True)
class Video:
    """One video to score and what is known about it.

    Args:
        reader: the lazy reader; frames reach metrics through the pass, not from here.
        prompt: the whole prompt, or None.
        boundaries: frames inside the video at which a window of the sampler begins or ends, from the sidecar;
            None when there is no sidecar, empty when one window covered all.
        shots: (first frame, text) of each shot, in order; None when unknown.
        entry: auxiliary information of the suite for this prompt (VBench's `auxiliary_info`).
        given: outside results for this video: "detections", "captions", "labels", "embeddings" …
        reference: paths of the reference videos for metrics that compare with a set.
        dimensions: VBench dimensions that the suite scores on this video; None = all.
    """

    reader: VideoReader
    prompt: str | None = None
    boundaries: tuple[int, ...] | None = None
    shots: tuple[tuple[int, str], ...] | None = None
    entry: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    reference: tuple[Path, ...] = ()
    dimensions: frozenset[str] | None = None

    @property
    def path(self) -> Path:
        return self.reader.path

    @property
    def fps(self) -> float:
        return self.reader.info.fps

    @property
    def frames(self) -> int:
        return self.reader.info.frames

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.reader.info.height, self.reader.info.width


class Moment:
    """One frame on its way past the metrics, with the two before it. Shared values are computed at most once."""

    def __init__(self, index: int, frame: Frame, previous: Moment | None) -> None:
        self.index = index
        self.frame = frame
        self._past: list[Moment] = [] if previous is None else [previous, *previous._past[:1]]
        for older in self._past[1:]:
            older._past = []  # the chain of moments must not grow
        self._embeddings: dict[str, Vector] = {}
        self._described: dict[str, Vector] = {}
        self._flows: dict[int, Vector] = {}

    def before(self, k: int) -> Frame:
        """The frame k earlier, k in 1..2; at frame 0 there is none (IndexError)."""
        return self._past[k - 1].frame

    @cached_property
    def grey(self) -> Frame:
        """uint8 [h, w] on the flow grid: short side at most `flow.FLOW_SIDE`, aspect kept."""
        from longgen.metrics.flow import grey

        return grey(self.frame)

    @property
    def flow(self) -> Vector:
        """DIS optical flow from the previous frame to this one, float32 [h, w, 2] (x, y), pixels of the flow grid."""
        return self.flow_from(1)

    def flow_from(self, back: int) -> Vector:
        """Flow from the frame `back` (1 or 2) earlier to this one."""
        from longgen.metrics.flow import dis

        if back not in self._flows:
            self._flows[back] = dis(self._past[back - 1].grey, self.grey)
        return self._flows[back]

    def flow_to(self, back: int) -> Vector:
        """Flow from this frame to the one `back` (1 or 2) earlier."""
        from longgen.metrics.flow import dis

        if -back not in self._flows:
            self._flows[-back] = dis(self.grey, self._past[back - 1].grey)
        return self._flows[-back]

    @cached_property
    def speed(self) -> Vector:
        """|flow|, float32 [h, w], pixels of the flow grid per frame."""
        return np.linalg.norm(self.flow, axis=-1).astype(np.float32)

    @cached_property
    def residual(self) -> float:
        """r = mean |warp(x_t; φ) − x_{t−1}| / 255 over pixels and channels, on the flow grid."""
        from longgen.metrics.flow import residual

        return residual(self._past[0].small, self.small, self.flow)

    @cached_property
    def small(self) -> Frame:
        """The frame on the flow grid, uint8 [h, w, 3]."""
        from longgen.metrics.flow import shrink

        return shrink(self.frame)

    @cached_property
    def thumb(self) -> Vector:
        """Weight-free embedding, unit vector [769]: a 16×16 colour thumbnail less its mean.

        A constant component of one grey level keeps flat frames defined: two flat frames are alike, whatever their hue.
        """
        from longgen.metrics.flow import thumbnail

        return thumbnail(self.frame, THUMB)

    def shared(self, describe: Callable[[Frame], Vector]) -> Vector:
        """describe(frame), computed once however many metrics ask for it; told apart by the function's name."""
        key = f"{describe.__module__}.{describe.__qualname__}"
        if key not in self._described:
            self._described[key] = describe(self.frame)
        return self._described[key]

    def embed(self, backend: Embedder | None = None) -> Vector:
        """Unit-norm embedding of this frame by a backend, or the thumbnail without one."""
        if backend is None:
            return self.thumb
        key = str(getattr(backend, "id", id(backend)))
        if key not in self._embeddings:
            raw = np.asarray(backend(self.frame), dtype=np.float32).ravel()
            norm = float(np.linalg.norm(raw))
            if not math.isfinite(norm) or norm == 0:
                raise Unavailable(f"backend {key} gave features of norm {norm}: corrupt weights or a wrong checkpoint")
            self._embeddings[key] = raw / norm
        return self._embeddings[key]


class Metric:
    """Base of all metrics; see the module's head. Subclasses set `info` and override `add` and `end`."""

    info: ClassVar[MetricInfo]
    backends: ClassVar[Mapping[str, str]] = {}
    """Role → default weights id (`hf:facebook/dino-vitb16`); resolved by `longgen.metrics.backends`."""
    optional: ClassVar[Mapping[str, str]] = {}
    """Roles that may be given on the command line but are not loaded otherwise (role → what it replaces)."""
    corpus: ClassVar[bool] = False
    """True for metrics of a whole set: per video they keep features, and `against` a reference set makes the number."""
    given: ClassVar[str] = ""
    """Kind of outside results that stand in for the backends: with `--given <kind>=FILE` no backend is loaded."""

    def __init__(self, video: Video, **backends: Any) -> None: ...

    def add(self, moment: Moment) -> None:
        """Take one frame."""
        raise NotImplementedError

    def end(self) -> Score:
        """The score, after the last frame."""
        raise NotImplementedError

    @classmethod
    def against(cls, scores: Sequence[Score], reference: Sequence[Score]) -> Score:
        """The value of a whole set beside a reference set, for `corpus` metrics."""
        raise NotImplementedError

    @classmethod
    def summarise(cls, scores: Sequence[Score]) -> Score:
        """The corpus value: the plain mean over videos that have a value, with a 95 % bootstrap interval."""
        from longgen.metrics.aggregate import mean_over_videos

        return mean_over_videos(scores)


def score(video: Video, metrics: Mapping[str, tuple[type[Metric], Mapping[str, Any]]]) -> dict[str, Score]:
    """Score one video by several metrics in one pass over its frames, in constant memory.

    Args:
        video: what to score.
        metrics: id → (class, resolved backends).

    Returns:
        id → Score, in the order of `metrics`. A metric that is Unavailable gives its reason.

    Raises:
        BadInput: the file is broken somewhere; then no metric scores it.
    """
    done: dict[str, Score] = {}
    running: dict[str, Metric] = {}
    for name, (cls, backends) in metrics.items():
        try:
            if video.frames < cls.info.min_frames:
                raise Unavailable(f"too short: {video.frames} frames, {name} needs {cls.info.min_frames}")
            running[name] = cls(video, **backends)
        except Unavailable as reason:
            done[name] = Score.none(str(reason))
    moment: Moment | None = None
    for index, frame in enumerate(video.reader):
        moment = Moment(index, frame, moment)
        for name, metric in list(running.items()):
            try:
                metric.add(moment)
            except Unavailable as reason:
                done[name] = Score.none(str(reason))
                del running[name]
    for name, metric in running.items():
        try:
            done[name] = metric.end()
        except Unavailable as reason:
            done[name] = Score.none(str(reason))
    return {name: done[name] for name in metrics}


def needs_prompt(video: Video) -> str:
    """The video's prompt, or Unavailable."""
    if not video.prompt:
        raise Unavailable("needs a prompt: a sidecar, --prompts, or a file name that is the prompt")
    return video.prompt


def needs_given(video: Video, kind: str) -> Any:
    """The outside results of a kind for this video, or Unavailable."""
    if kind not in video.given:
        raise Unavailable(f"needs {kind} of this video: --given {kind}=FILE")
    return video.given[kind]


def middle_frames(frames: int, k: int) -> list[int]:
    """VBench's "middle" sampling: the middle frame of each of k equal parts; the last repeats when frames < k.

    >>> middle_frames(49, 8)
    [2, 8, 14, 20, 26, 32, 38, 45]
    >>> middle_frames(3, 5)
    [0, 1, 2, 2, 2]
    """
    if frames < 1 or k < 1:
        raise BadInput(f"cannot take {k} middle frames of {frames}")
    parts = np.linspace(0, frames, min(frames, k) + 1).astype(int)
    picks = [int(lo + hi - 1) // 2 for lo, hi in pairwise(parts)]
    return picks + [frames - 1] * (k - len(picks))
