"""Positional KVD: how much further from the base model's own short clips the end of a video is than its start."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from longgen.media import open_video
from longgen.metrics.base import Embedder, Frame, Metric, MetricInfo, Moment, Score, Unavailable, Vector, Video
from longgen.metrics.distances import kernel_distance
from longgen.metrics.longstats import Floats
from longgen.metrics.looks import look

PIECE = 0.25
"""Length of a sub-clip, seconds: short enough that a base clip holds several and a long video many."""
POSITIONS = 6


class PositionalKvd(Metric):
    """KVD(last third) − KVD(first third) of the video's sub-clips against the base model's short clips.

    FreeNoise's protocol, resolved in time. A sub-clip's features are the mean and the scatter of its frames'
    embeddings; KVD is the unbiased MMD² with the cubic kernel of their cosine. The difference, unlike KVD itself, does
    not ask whether this video's subject is that of the base clips. `extras` hold the curve over `POSITIONS` parts.
    """

    info = MetricInfo(
        id="positional_kvd",
        version=1,
        title="how much further from the model's short clips the end is than the start",
        better="lower",
        needs=frozenset({"reference"}),
        min_frames=8,
        source="FreeNoise, arXiv 2310.15169, its protocol over positions",
    )
    optional = {"embedder": "the weight-free look"}

    def __init__(self, video: Video, embedder: Embedder | None = None) -> None:
        if not video.reference:
            raise Unavailable("needs short clips of the base model: --reference FOLDER")
        self.describe = embedder or look
        self.embedder, self.fps = embedder, video.fps
        self.base = _of_files(video.reference, self.describe)
        self.pieces = Pieces(video.fps)

    def add(self, moment: Moment) -> None:
        self.pieces.add(moment.shared(look) if self.embedder is None else moment.embed(self.embedder))

    def end(self) -> Score:
        mine = self.pieces.features()
        third = len(mine) // 3
        if third < 2 or len(self.base) < 2:
            raise Unavailable(
                f"{len(mine)} sub-clips and {len(self.base)} of the reference; needs 6 and 2 of {PIECE} s"
            )
        parts = [p for p in np.array_split(mine, POSITIONS) if len(p) > 1]
        curve = [kernel_distance(p, self.base) for p in parts]
        where = (np.arange(len(parts)) + 0.5) / len(parts) * len(mine) * PIECE
        return Score.of(
            kernel_distance(mine[-third:], self.base) - kernel_distance(mine[:third], self.base),
            n=len(mine),
            items=tuple(curve),
            extras={
                "kvd": kernel_distance(mine, self.base),
                "curves": {"KVD by position": {"t": where.tolist(), "y": curve}},
            },
        )


class Pieces:
    """Running mean and scatter of embeddings over successive sub-clips; a last part shorter than a sub-clip is left."""

    def __init__(self, fps: float) -> None:
        self._fps, self._count, self._frame = fps, 0, 0
        self._sum: Floats = np.zeros(0)
        self._squares: Floats = np.zeros(0)
        self._done: list[Floats] = []

    def add(self, point: Vector) -> None:
        if self._count == 0:
            self._sum, self._squares = np.zeros(point.size), np.zeros(point.size)
        self._sum += point
        self._squares += point.astype(np.float64) ** 2
        self._count += 1
        self._frame += 1
        if self._frame / self._fps >= (len(self._done) + 1) * PIECE - 1e-9:
            mean = self._sum / self._count
            scatter = np.sqrt(np.maximum(self._squares / self._count - mean**2, 0))
            whole = np.concatenate([mean, scatter])
            self._done.append(whole / np.linalg.norm(whole) * np.sqrt(whole.size))  # so that ⟨x, y⟩/d is a cosine
            self._count = 0

    def features(self) -> Floats:
        return np.array(self._done)


def _of_files(paths: Sequence[Path], describe: Embedder) -> Floats:
    return np.concatenate([_of_file(path, path.stat().st_mtime_ns, describe) for path in paths])


@lru_cache(maxsize=4096)
def _of_file(path: Path, changed: int, describe: Embedder) -> Floats:
    """Features of one base clip; remembered, since every video is compared with the same clips."""
    reader = open_video(path)
    pieces = Pieces(reader.info.fps)
    for frame in reader:
        pieces.add(unit(describe, frame))
    return pieces.features().reshape(-1, 0 if not pieces.features().size else pieces.features().shape[1])


def unit(describe: Embedder, frame: Frame) -> Vector:
    vector = np.asarray(describe(frame), dtype=np.float32).ravel()
    return vector / np.linalg.norm(vector)
