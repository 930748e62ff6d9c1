"""Low-pass filters along latent time and space as small real matrices, and the blend of two attention outputs.

Knows token grids and cut-offs. Does not know attention. Frequencies are in units of Nyquist: 1 is a period of 2
latents. A Gaussian filter is separable, so no 3-D FFT is needed: one [T, T] product, and one per spatial axis if
wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

Padding = Literal["circular", "reflect"]


def _circulant(gains: Tensor) -> Tensor:
    """The matrix of a filter with these gains in FFT order: C[i, j] = ifft(gains)[(i − j) mod n]."""
    n = len(gains)
    i = torch.arange(n)
    return torch.fft.ifft(gains)[(i[:, None] - i[None, :]) % n]


@lru_cache(maxsize=256)
def lowpass(n: int, cutoff: float, padding: Padding = "circular", compat: bool = False) -> Tensor:
    """A Gaussian low-pass on n samples as a matrix [n, n]: gain exp(−½·(f/d)²), d = `cutoff` in units of Nyquist.

    Args:
        padding: "circular" couples both ends, "reflect" mirrors the sequence at them (half-sample symmetric).
        compat: the public FreeLong code's mask, which for odd n sits half a bin off centre; complex then.

    Returns:
        fp64 (complex128 with `compat`). Rows sum to 1 but with `compat` at odd n, where the gain at zero frequency is
        exp(−½·(1/(n·d))²).
    """
    if compat:
        grid = 2 * torch.arange(n, dtype=torch.float64) / n - 1
        return _circulant(torch.fft.ifftshift(torch.exp(-0.5 * (grid / cutoff) ** 2)))
    m = 2 * n if padding == "reflect" else n
    full = _circulant(torch.exp(-0.5 * (2 * torch.fft.fftfreq(m, dtype=torch.float64) / cutoff) ** 2)).real
    return full if m == n else full[:n, :n] + full[:n, n:].flip(1)


def apply(filters: Sequence[Tensor | None], x: Tensor) -> Tensor:
    """(G_t ⊗ G_h ⊗ G_w)·x for x [B, T, h, w, …] in its own type; a None leaves its axis alone.

    Each axis is one batched product over a view [rows, n, rest]: nothing is moved but what is read and written.
    """
    kind = x.dtype
    for axis, matrix in enumerate(filters, start=1):
        if matrix is not None:
            matrix = _placed(matrix, x)
            rows = x.to(matrix.dtype).flatten(0, axis - 1).flatten(2)
            x = torch.bmm(matrix.expand(len(rows), -1, -1), rows).view(x.shape)
    return x.real.to(kind) if x.is_complex() else x


def _placed(matrix: Tensor, x: Tensor) -> Tensor:
    """A filter where x is, in its type; complex64 if it is complex."""
    return matrix.to(x.device, torch.complex64 if matrix.is_complex() else x.dtype)


def correction(fine: Tensor, coarse: Tensor, filters: Sequence[Tensor | None], grid: tuple[int, int, int]) -> Tensor:
    """G·(Z_coarse − Z_fine), [B, T·P, N, D] in fp32: what the slow part of `coarse` adds to `fine`.

    Args:
        fine, coarse: attention outputs [B, T·P, N, D].
        filters: matrices for (t, h, w).
        grid: (T, h, w) in tokens.
    """
    return apply(filters, (coarse.float() - fine.float()).unflatten(1, grid)).flatten(1, 3)


def blend(fine: Tensor, coarse: Tensor, filters: Sequence[Tensor | None], grid: tuple[int, int, int]) -> Tensor:
    """Z = Z_fine + G·(Z_coarse − Z_fine): slow change from `coarse`, the rest from `fine`.

    In the outputs' own type, whose products sum in fp32; the last product adds Z_fine, so that it is read once.
    """
    time, *space = filters
    if time is None or time.is_complex():
        return (fine.float() + correction(fine, coarse, filters, grid)).to(fine.dtype)
    change = apply([None, *space], (coarse - fine).unflatten(1, grid)).flatten(2).view(len(fine), grid[0], -1)
    matrix = _placed(time, fine).expand(len(fine), -1, -1)
    return torch.baddbmm(fine.reshape(change.shape), matrix, change).view(fine.shape)
