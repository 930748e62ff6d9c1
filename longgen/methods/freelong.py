"""FreeLong (arXiv 2407.19918): SpectralBlend attention, slow change from all frames, the rest from a local band.

Knows the self-attention of one layer and its noise level. Does not know loops or noise; the paper starts from
FreeNoise's noise: `freenoise.noise,freelong`.
"""

from __future__ import annotations

import copy

from torch import Tensor

from longgen.core.spectral import blend, lowpass
from longgen.core.windows import SIZE_SETTINGS, band, sizes
from longgen.errors import BadInput
from longgen.protocols import Method, MethodInfo, Setting
from longgen.types import Attend, Dense, FrameWindow, Interval, ModelInfo, Patch, Rotate, Site, View


class FreeLong(Method):
    """Z = Z_l + G·(Z_g − Z_l), with Z_g attention over all frames, Z_l over |i − j| ≤ α, both of one q, k, v, and G a
    Gaussian low-pass over time and space. In the first τ of the steps only; later the local branch alone runs."""

    info = MethodInfo(
        name="freelong",
        title="Global and local attention blended by frequency",
        slots=("route", "logits"),
        paper="2407.19918",
        needs=frozenset({"self_attention"}),
        settings={n: Setting(*SIZE_SETTINGS[n]) for n in ("window", "window_latents")}
        | {
            "cutoff": Setting(None, "Nyquist", "temporal cut-off, standard deviation; default 0.25", 1e-3, 100),
            "cutoff_seconds": Setting(None, "s", "the same as a period, instead of cutoff", 1e-3),
            "spatial": Setting(0.25, "Nyquist", "spatial cut-off; 0 filters time only", 0, 100),
            "until": Setting(0.5, "1", "fraction of the steps that blend (τ); 1 for all, as the public code", 0, 1),
            "border": Setting("cut", "1", "band at clip ends: cut short, or moved inside", choices=("cut", "shift")),
            "padding": Setting("circular", "1", "of the temporal filter", choices=("circular", "reflect")),
            "compat": Setting(False, "1", "the public code's off-centre filter"),
        },
        cost="n · forward(T), attention over T² + T·U frame pairs for τ·n steps, T·U after",
        global_positions=True,
        laws={"stochastic": {"compat": False}, "zero": {}, "finite": {}, "no_op": {}, "beyond": {}, "removal": {}}
        | {"conflicts": {}},
    )
    latents: int | None = None

    def fit(self, info: ModelInfo) -> FreeLong:
        fitted = copy.copy(self)
        fitted.latents = sizes(self.settings, info).window
        return fitted

    def cutoff_for(self, seconds_per_latent: float) -> float:
        """d_t in units of Nyquist. A period of s seconds is the frequency 2·(seconds per latent)/s."""
        if self.cutoff_seconds is not None:
            return 2 * seconds_per_latent / float(self.cutoff_seconds)
        return 0.25 if self.cutoff is None else float(self.cutoff)

    def patch(self, view: View) -> Patch:
        window = view.native if self.latents is None else self.latents
        if view.frames <= window:
            return Patch()
        blending = Interval(low=view.schedule.sigma_at(self.until)) if self.until > 0 else Interval(low=float("inf"))
        cutoff = self.cutoff_for(view.seconds_per_latent)

        def attention(site: Site, q: Tensor, k: Tensor, v: Tensor, rotate: Rotate, attend: Attend) -> Tensor:
            q, k, frames = rotate(q), rotate(k), site.grid[0]
            near = band(frames, window * frames // len(site.frames), self.border)
            local = attend(q, k, v, FrameWindow(site.tokens, near))[0]
            if site.level not in blending:
                return local
            return blend(local, attend(q, k, v, Dense())[0], self._filters(site.grid, cutoff), site.grid)

        return Patch(attention=attention)

    def _filters(self, grid: tuple[int, int, int], cutoff: float) -> list[Tensor | None]:
        time = lowpass(grid[0], cutoff, self.padding, self.compat)
        space = (lowpass(n, self.spatial, "circular", self.compat) if self.spatial else None for n in grid[1:])
        return [time, *space]

    def key_frames(self, frames: int, info: ModelInfo) -> float:
        window = sizes(self.settings, info).window
        if frames <= window:
            return float(frames)
        return self.until * frames + sum(b - a for a, b in band(frames, window, self.border)) / frames

    def check(self, frames: int, info: ModelInfo) -> None:
        sizes(self.settings, info)
        if self.cutoff is not None and self.cutoff_seconds is not None:
            raise BadInput("freelong.cutoff and freelong.cutoff_seconds exclude each other")
        if self.compat and self.padding != "circular":
            raise BadInput("freelong.compat is the public code's circular filter; leave freelong.padding at circular")

    def notes(self, frames: int, info: ModelInfo) -> list[str]:
        window = sizes(self.settings, info).window
        if frames <= window:
            return [f"freelong: the local band of {window} latents covers calls of {frames} latents: plain attention"]
        return [f"freelong: local band of {window} latents, blended in the first {self.until:.0%} of the steps"]
