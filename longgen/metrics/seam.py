"""Seams: whether the picture jumps where the sampler's windows meet. Optical flow, no weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from longgen.metrics.aggregate import mean_over_videos
from longgen.metrics.base import Metric, MetricInfo, Moment, Score, Unavailable, Video
from longgen.metrics.flow import shrink, warp
from longgen.metrics.longstats import Floats, fisher
from longgen.metrics.samples import curve

REACH = 8
CELLS = 16
FLOOR = 0.5
"""Scatter of the residual, grey levels, below which a video does not become more sensitive."""


class Seam(Metric):
    """Mean excess e_b = s_b − median s over the neighbours, in grey levels, over the window boundaries b.

    r_t is the motion-compensated difference of frames t−1 and t, averaged with its sign over each cell of a 16×16 grid
    before its size is taken: what coding and interpolation leave cancels inside a cell, a jump does not.
    s_b = r_{b−1} + r_b + r_{b+1}, because video coding and temporal decoders smear a jump over neighbouring frames; an
    exposure step of k grey levels gives nearly k. Neighbours lie up to 8 frames either side, away from any boundary.

    Per boundary, z_b = e_b / max(1.4826·MAD, ½ grey level): the floor keeps still or synthetic footage from turning
    coding noise into large z. The grid test asks how many of the shifts of the whole grid of boundaries have at least
    the mean s of the true one; under the null its p is exact.
    """

    info = MetricInfo(
        id="seam",
        version=1,
        title="jump at window boundaries beyond motion, grey levels",
        better="lower",
        low=-255,
        high=255,
        unit="grey levels",
        needs=frozenset({"flow", "boundaries"}),
        min_frames=8,
        source="longgen",
    )

    def __init__(self, video: Video) -> None:
        if video.boundaries is None:
            raise Unavailable("needs the window boundaries: a sidecar with windows.frames beside the video")
        self.boundaries = sorted({b for b in video.boundaries if 0 < b < video.frames})
        if not self.boundaries:
            raise Unavailable("one window covered the whole video: there is no boundary")
        self.fps = video.fps
        self.residuals: list[float] = []

    def add(self, moment: Moment) -> None:
        if moment.index:
            self.residuals.append(cell_residual(moment))

    def end(self) -> Score:
        r = np.convolve(np.pad(self.residuals, 1, mode="edge"), np.ones(3), "valid")  # r[i] belongs to frame i + 1
        at = np.array(self.boundaries) - 1
        excess, z = map(np.array, zip(*(_against_neighbours(r, int(i), at) for i in at)))
        p, shifts = grid_test(r, at)
        drawn = curve((np.arange(r.size) + 1) / self.fps, r, np.max)
        return Score.of(
            float(excess.mean()),
            n=at.size,
            items=tuple(excess.tolist()),
            extras={
                "z": z.tolist(),
                "z_max": float(z.max()),
                "z_rate": float((z > 3).mean()),
                "grid_p": p,
                "grid_shifts": shifts,
                "curves": {"difference after motion compensation, grey levels": drawn},
            },
        )

    @classmethod
    def summarise(cls, scores: Sequence[Score]) -> Score:
        """Mean over videos; Fisher's pooled grid test, since one short video cannot reach a small p alone."""
        mean = mean_over_videos(scores)
        tests = [float(s.extras["grid_p"]) for s in scores if s.value is not None]
        if mean.value is None:
            return mean
        return Score.of(mean.value, n=mean.n, ci=mean.ci, extras={"grid_p": fisher(tests)})


def cell_residual(moment: Moment) -> float:
    """Mean over 16×16 cells of |mean over the cell of the warped frame less the one before|, grey levels."""
    first, second = shrink(moment.before(1)), moment.small
    gap = warp(second, moment.flow) - first.astype(np.float32)
    return float(np.abs(cv2.resize(gap, (CELLS, CELLS), interpolation=cv2.INTER_AREA)).mean(dtype=np.float64))


def _against_neighbours(r: Floats, i: int, boundaries: Floats) -> tuple[float, float]:
    around = np.arange(max(0, i - REACH), min(r.size, i + REACH + 1))
    near = around[np.abs(around[:, None] - boundaries).min(1) > 2]
    if near.size < 3:
        raise Unavailable("boundaries stand so close that no frames are left to compare them with")
    middle = float(np.median(r[near]))
    scatter = 1.4826 * float(np.median(np.abs(r[near] - middle)))
    return r[i] - middle, (r[i] - middle) / max(scatter, FLOOR)


def grid_test(r: Floats, at: Floats) -> tuple[float, int]:
    """(p, number of grids): the rank of the true grid's mean residual among its circular shifts by less than a gap."""
    gap = min((b - a for a, b in pairwise(at)), default=r.size)
    shifted = np.array([r[(at + k) % r.size].mean() for k in range(int(gap))])
    return float((shifted >= shifted[0]).sum() / shifted.size), shifted.size
