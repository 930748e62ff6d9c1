"""Coherence: whether a video still looks like itself after a while. No weights; an embedding may replace the look."""

from __future__ import annotations

import numpy as np

from longgen.metrics.base import Embedder, Metric, MetricInfo, Moment, Score, Unavailable, Video
from longgen.metrics.longstats import Floats
from longgen.metrics.looks import look
from longgen.metrics.samples import Samples, curve, frames_in

NEAREST = 0.5
"""Lags below this, in seconds, are left out: they measure motion and coding, and their number depends on the rate."""
REPORTED = (2.0, 5.0, 10.0, 20.0, 50.0)


class Coherence(Metric):
    """Mean likeness ⟨e_t, e_{t+Δ}⟩ of all pairs of frames at least half a second apart.

    `extras`: the curve g(Δ), its values at 2, 5, 10, 20, 50 s, the fit g∞ + (1 − g∞)·exp(−Δ/τ), and the half-life:
    the lag at which g has lost half of 1 − min g (None when g never falls by 0.02). A frozen or a looping video is
    perfect here: read it beside `freeze` and `loop`, as `headline` does.
    """

    info = MetricInfo(
        id="coherence",
        version=1,
        title="likeness of moments that lie far apart",
        better="higher",
        low=0,
        high=1,
        min_frames=4,
        source="longgen; lags after VBench issue 206",
    )
    optional = {"embedder": "the weight-free look"}

    def __init__(self, video: Video, embedder: Embedder | None = None) -> None:
        self.embedder = embedder
        self.points = Samples(video.fps)

    def add(self, moment: Moment) -> None:
        self.points.add(
            moment.index, lambda: moment.shared(look) if self.embedder is None else moment.embed(self.embedder)
        )

    def end(self) -> Score:
        points, fps = self.points.matrix(), self.points.fps
        n, least = points.shape[0], frames_in(NEAREST, self.points.fps)
        if n < least + 2:
            raise Unavailable(f"too short: no two frames lie {NEAREST} s apart")
        likeness = np.clip(points @ points.T, 0, 1)
        lags = np.arange(1, n)
        falling = np.array([np.diagonal(likeness, d).mean() for d in lags])
        far = lags >= least
        pairs = n - lags[far]
        tau, rest = fit(lags[far] / fps, falling[far])
        thin = max(1, n // 64)
        return Score.of(
            float((falling[far] * pairs).sum() / pairs.sum()),
            n=int(pairs.sum()),
            extras={
                "at": {f"{s:g} s": float(falling[round(s * fps) - 1]) for s in REPORTED if 0 < round(s * fps) < n},
                "half_life_s": half_life(lags[far] / fps, falling[far]),
                "tau_s": tau,
                "g_inf": rest,
                "curves": {"likeness": curve(lags / fps, falling, axis="lag, s")},
                "matrix": {"t": (np.arange(n) / fps)[::thin].tolist(), "values": likeness[::thin, ::thin].tolist()},
            },
        )


def fit(lags: Floats, likeness: Floats) -> tuple[float, float]:
    """(τ, g∞) of g∞ + (1 − g∞) e^{−Δ/τ}: least squares in g∞ for each of 60 τ from a tenth to ten times the span."""
    best = (np.inf, 0.0, 0.0)
    for tau in np.geomspace(lags[-1] / 10, lags[-1] * 10, 60):
        decay = np.exp(-lags / tau)
        rest = float(np.clip(((1 - decay) @ (likeness - decay)) / ((1 - decay) @ (1 - decay)), 0, 1))
        error = float(((rest + (1 - rest) * decay - likeness) ** 2).sum())
        best = min(best, (error, float(tau), rest))
    return best[1], best[2]


def half_life(lags: Floats, likeness: Floats) -> float | None:
    """First lag at which half of the whole fall has happened; None for a curve that hardly falls."""
    lowest = float(likeness.min())
    if 1 - lowest < 0.02:
        return None
    return float(lags[(likeness <= (1 + lowest) / 2).argmax()])
