"""Filters as matrices against three-dimensional Fourier transforms written out in full."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from longgen.core.spectral import apply, blend, lowpass

GRIDS = [(9, 4, 6), (21, 5, 4), (8, 4, 2), (13, 3, 5), (5, 1, 1)]


def gaussian(n: int, cutoff: float) -> Tensor:
    """Gain at each frequency in FFT order, centred: |k| up to n/2 in units of n/2."""
    k = torch.tensor([min(i, n - i) for i in range(n)], dtype=torch.float64)
    return torch.exp(-0.5 * (k / (n / 2) / cutoff) ** 2)


def by_fft(x: Tensor, gains: list[Tensor]) -> Tensor:
    """IFFT3D(FFT3D(x)·M) over axes 1, 2, 3 of x [B, T, h, w, …], complex128."""
    mask = gains[0][:, None, None] * gains[1][None, :, None] * gains[2][None, None, :]
    spectrum = torch.fft.fftn(x.double(), dim=(1, 2, 3)) * mask.reshape(1, *mask.shape, *[1] * (x.ndim - 4))
    return torch.fft.ifftn(spectrum, dim=(1, 2, 3))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("cutoff", [0.1, 0.25, 0.7])
def test_matrices_equal_a_3d_fft(grid: tuple[int, int, int], cutoff: float) -> None:
    x = torch.randn(2, *grid, 2, 3, generator=torch.Generator().manual_seed(0))
    reference = by_fft(x, [gaussian(n, cutoff) for n in grid])
    assert float(reference.imag.abs().max()) < 1e-12, "a centred filter of a real signal is real"
    assert torch.allclose(apply([lowpass(n, cutoff) for n in grid], x), reference.real.float(), atol=1e-6)


@pytest.mark.parametrize("grid", GRIDS)
def test_blend_equals_the_paper(grid: tuple[int, int, int]) -> None:
    """Z = IFFT(FFT(Z_g)·M + FFT(Z_l)·(1 − M))."""
    shape = (1, math.prod(grid), 2, 4)
    local, whole = (torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    gains = [gaussian(n, 0.25) for n in grid]
    cubes = [z.unflatten(1, grid) for z in (local, whole)]
    reference = cubes[0].double() + (by_fft(cubes[1], gains) - by_fft(cubes[0], gains)).real
    ours = blend(local, whole, [lowpass(n, 0.25) for n in grid], grid)
    assert torch.allclose(ours.unflatten(1, grid), reference.float(), atol=2e-6)


@pytest.mark.parametrize("grid", GRIDS)
def test_compat_equals_the_public_filter(grid: tuple[int, int, int]) -> None:
    """fftshift, the mask on g = 2k/n − 1, ifftshift, real part: also where two axes are odd."""
    shape = (1, *grid, 3)
    local, whole = (torch.randn(shape, generator=torch.Generator().manual_seed(s)).double() for s in (1, 2))
    axes = [2 * torch.arange(n, dtype=torch.float64) / n - 1 for n in grid]
    squares = sum((g / 0.25).reshape([-1 if i == j else 1 for j in range(3)]) ** 2 for i, g in enumerate(axes))
    mask = torch.exp(-0.5 * torch.as_tensor(squares))[None, ..., None]
    dims = (1, 2, 3)

    def shifted(x: Tensor) -> Tensor:
        return torch.fft.fftshift(torch.fft.fftn(x, dim=dims), dim=dims)

    mixed = shifted(whole) * mask + shifted(local) * (1 - mask)
    reference = torch.fft.ifftn(torch.fft.ifftshift(mixed, dim=dims), dim=dims).real
    flat = [z.float().flatten(1, 3)[:, :, None] for z in (local, whole)]
    ours = blend(*flat, [lowpass(n, 0.25, compat=True) for n in grid], grid)
    assert torch.allclose(ours[:, :, 0].unflatten(1, grid), reference.float(), atol=2e-6)


def test_compat_gain_at_zero_frequency() -> None:
    """Published: .982 at T = 21, .906 at T = 9; exactly 1 for the centred filter."""
    for n, gain in ((21, 0.982), (9, 0.906)):
        assert abs(float(lowpass(n, 0.25, compat=True).sum(1)[0].abs()) - gain) < 5e-4
        assert torch.allclose(lowpass(n, 0.25).sum(1), torch.ones(n, dtype=torch.float64))


def test_half_amplitude_lies_at_0_294_nyquist() -> None:
    n = 1000
    gains = torch.fft.fft(lowpass(n, 0.25)[:, 0]).real[: n // 2]
    half = int((gains > 0.5).sum()) / (n / 2)
    assert abs(half - 0.294) < 3e-3


@pytest.mark.parametrize("padding", ["circular", "reflect"])
def test_filters_are_symmetric_keep_constants_and_shrink(padding: str) -> None:
    for n, cutoff in itertools.product(range(1, 30), (0.05, 0.25, 1.0)):
        matrix = lowpass(n, cutoff, padding)  # type: ignore[arg-type]
        values = torch.linalg.eigvalsh(matrix)
        assert torch.allclose(matrix, matrix.T, atol=1e-12)
        assert torch.allclose(matrix.sum(1), torch.ones(n, dtype=torch.float64))
        assert float(values.min()) > -1e-12 and float(values.max()) < 1 + 1e-12


def test_reflect_uncouples_the_ends() -> None:
    """A jump between last and first latent leaks around a ring, and not into a mirrored sequence."""
    x = torch.zeros(40, dtype=torch.float64)
    x[30:] = 1.0
    assert float((lowpass(40, 0.25) @ x)[0]) > 0.2
    assert abs(float((lowpass(40, 0.25, "reflect") @ x)[0])) < 1e-3


def test_reflect_equals_filtering_the_mirrored_sequence() -> None:
    x = torch.randn(11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mirrored = torch.cat([x, x.flip(0)])
    reference = torch.fft.ifft(torch.fft.fft(mirrored) * gaussian(22, 0.3)).real[:11]
    assert torch.allclose(lowpass(11, 0.3, "reflect") @ x, reference, atol=1e-12)


def test_low_precision_input_keeps_its_dtype() -> None:
    z = torch.randn(1, 12, 1, 4).bfloat16()
    assert blend(z, z, [lowpass(3, 0.25), lowpass(2, 0.25), lowpass(2, 0.25)], (3, 2, 2)).dtype == torch.bfloat16
    assert torch.equal(blend(z, z, [lowpass(3, 0.25), None, None], (3, 2, 2)), z)


class Traffic(TorchDispatchMode):
    """Bytes that operations read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        here = {x.untyped_storage().data_ptr() for x in read}
        if any(x.untyped_storage().data_ptr() not in here for x in made):
            self.bytes += sum(x.untyped_storage().nbytes() for x in (*read, *made))
        return out


def published(local: Tensor, whole: Tensor, mask: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """The blend as public code writes it: transforms of both, shifted, masked (by a mask of the tensor's full shape, as
    FreeInit's `gaussian_low_pass_filter` makes it), summed, and back, in fp32."""
    dims = (1, 2, 3)
    cubes = (z.unflatten(1, grid).float() for z in (whole, local))
    spectra = [torch.fft.fftshift(torch.fft.fftn(cube, dim=dims), dim=dims) for cube in cubes]
    mixed = spectra[0] * mask + spectra[1] * (1 - mask)
    return torch.fft.ifftn(torch.fft.ifftshift(mixed, dim=dims), dim=dims).real.flatten(1, 3).to(local.dtype)


@pytest.mark.parametrize("grid", [(21, 10, 12), (81, 4, 8)])
def test_a_blend_moves_a_tenth_of_the_bytes_of_transforms(grid: tuple[int, int, int]) -> None:
    shape = (1, math.prod(grid), 4, 32)
    local, whole = (torch.randn(shape, generator=torch.Generator().manual_seed(s)).bfloat16() for s in (1, 2))
    filters = [lowpass(n, 0.25) for n in grid]
    gains = [torch.fft.fftshift(gaussian(n, 0.25)) for n in grid]
    mask = (gains[0][:, None, None] * gains[1][None, :, None] * gains[2]).float()[None, ..., None, None]
    mask = mask.expand(1, *grid, *shape[2:]).contiguous()
    with Traffic() as reference:
        want = published(local, whole, mask, grid)
    with Traffic() as ours:
        got = blend(local, whole, filters, grid)
    assert ours.bytes <= reference.bytes / 10
    assert (got.float() - want.float()).abs().max() < 0.05  # bf16 keeps 8 bits of values up to 4
    exact = blend(local.float(), whole.float(), filters, grid)
    assert torch.allclose(exact, published(local.float(), whole.float(), mask, grid), atol=1e-5)
