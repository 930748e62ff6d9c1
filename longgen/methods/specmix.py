"""SpecMix, the initial noise of FreeLong++ (arXiv 2507.00162): shared noise in the middle, fresh noise at both ends.

Knows noise alone. The mixing angle depends only on the frame, so the Fourier transform of the paper cancels.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from longgen.core.noise import latent_noise
from longgen.core.shuffle import shuffled_noise
from longgen.core.windows import SIZE_SETTINGS, Sizes, sizes
from longgen.protocols import Method, MethodInfo, Setting
from longgen.types import LatentGrid, ModelInfo


class SpecMix(Method):
    """x_t = cos θ_t·base_t + sin θ_t·fresh_t, θ_t = (π/2)·|t − (T−1)/2| / ((T−1)/2); base is FreeNoise's noise."""

    info = MethodInfo(
        name="specmix",
        title="Shuffled and fresh noise, mixed by place in the video",
        slots=("noise",),
        paper="2507.00162",
        settings={n: Setting(*row) for n, row in SIZE_SETTINGS.items()},
        cost="nothing beside the noise itself",
        laws={"unit_variance": {}, "random_access": {}, "deterministic": {}, "finite": {}, "conflicts": {}},
    )
    sized: Sizes | None = None

    def fit(self, info: ModelInfo) -> SpecMix:
        fitted = copy.copy(self)
        fitted.sized = sizes(self.settings, info)
        return fitted

    def noise(self, grid: LatentGrid, seed: int, start: int, stop: int) -> Tensor:
        if self.sized is None:
            raise ValueError("specmix must be fitted to a model before use")
        base = shuffled_noise(grid, seed, start, stop, self.sized.window, self.sized.stride)
        fresh = latent_noise(grid, seed, start, stop, "specmix")
        middle = (grid.frames - 1) / 2
        t = torch.arange(start, stop, dtype=torch.float64)
        theta = (math.pi / 2 * (t - middle).abs() / max(middle, 0.5)).float()[None, None, :, None, None]
        return torch.cos(theta) * base + torch.sin(theta) * fresh

    def check(self, frames: int, info: ModelInfo) -> None:
        sizes(self.settings, info)
