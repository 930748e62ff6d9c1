"""Temporal rotary frequencies: their periods, and the edits that stretch them.

Knows frequencies θ alone, in radians per unit of position: latents for models that count positions, seconds for models
with free coordinates. Does not know models or methods. Spatial axes are never touched here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from longgen.types import Rope, View

# Why two methods that edit the same temporal frequencies refuse each other.
EXCLUSIVE = "both stretch the same temporal frequencies, and the result would depend on their order"
COORDS_SPAN = 20.0  # seconds that LTX maps onto [−1, 1]: phase w·π/2·(2x − 1), x = seconds/20


def thetas(rope: Rope) -> Tensor:
    """θ [dim/2] of the temporal axis in fp64.

    Tables: base^(−2j/dim) per latent. Coordinates (LTX): w_j·π/20 per second with w_j = base^(j/(dim/2 − 1)), so that
    the period of w_j is 40/w_j seconds.
    """
    j = torch.arange(rope.dim // 2, dtype=torch.float64)
    if rope.kind == "coords":
        return rope.base ** (j / max(len(j) - 1, 1)) * math.pi / COORDS_SPAN
    return rope.base ** (-2 * j / rope.dim)


def periods(theta: Tensor) -> Tensor:
    """N_j = 2π/θ_j, in the unit of positions.

    >>> [round(float(n), 1) for n in periods(thetas(Rope("table", 44)))[:4]]
    [6.3, 9.5, 14.5, 22.1]
    """
    return 2 * math.pi / theta


def extent(view: View, latents: int, unit: int = 1) -> float:
    """The length of so many latents in the unit of the model's positions: seconds, or tokens of `unit` latents."""
    return latents * view.seconds_per_latent if view.rope.kind == "coords" else latents / unit


def intrinsic(theta: Tensor, native: float) -> int:
    """Index of the intrinsic frequency: the smallest period that reaches the native length, else the longest one.

    Reproduces the published choices, k = 4 on HunyuanVideo and k = 2 on CogVideoX-5B (1-based); the period *nearest* to
    the native length would get both wrong.
    """
    length = periods(theta)
    reaching = torch.where(length >= native, length, torch.inf)
    return int(reaching.argmin()) if bool(reaching.isfinite().any()) else int(length.argmax())


def lower(theta: Tensor, index: int, length: float, margin: float) -> Tensor:
    """RIFLEx: θ_k := margin·2π/length, all others kept; the period becomes length/margin."""
    edited = theta.clone()
    edited[index] = margin * 2 * math.pi / length
    return edited


def interpolate(theta: Tensor, stretch: float) -> Tensor:
    """Position interpolation: every θ divided by the stretch s = T/T0."""
    return theta / stretch


def ntk(theta: Tensor, stretch: float) -> Tensor:
    """NTK-aware scaling: θ_j·s^(−e_j), e_j from 0 at the fastest frequency to 1 at the slowest on a log scale.

    For a table this is the new base b·s^(d/(d−2)).
    """
    logs = theta.double().log()
    share = (logs.max() - logs) / (logs.max() - logs.min()).clamp(min=1e-12)
    return (theta.double() * stretch**-share).to(theta.dtype)
