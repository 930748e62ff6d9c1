"""freeinit against a bin-by-bin numpy reference, and its laws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from fakes import bench, flow_schedule, grid_of, mixing, model_info
from torch import Tensor

from longgen.core.noise import latent_noise
from longgen.errors import BadInput
from longgen.methods.freeinit import FreeInit, low_pass, mix
from longgen.types import add_noise

SHAPES = [(5, 4, 6), (9, 3, 5), (1, 4, 4), (8, 2, 7)]


def looped(shape: tuple[int, int, int], d_s: float, d_t: float, kind: str) -> np.ndarray:
    """H bin by bin on numpy's own frequency grid, in Nyquist units."""
    grids = [np.fft.fftfreq(n, d=0.5) for n in shape]
    out = np.zeros(shape)
    for i, j, k in itertools.product(*(range(n) for n in shape)):
        d2 = (d_s / d_t * grids[0][i]) ** 2 + grids[1][j] ** 2 + grids[2][k] ** 2
        out[i, j, k] = 1 / (1 + (d2 / d_s**2) ** 4) if kind == "butterworth" else np.exp(-d2 / (2 * d_s**2))
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["butterworth", "gaussian"])
@pytest.mark.parametrize("cut", [(0.25, 0.25), (0.5, 0.1)])
def test_filter_and_mix_equal_numpy(shape: tuple[int, int, int], kind: str, cut: tuple[float, float]) -> None:
    passed = low_pass(shape, *cut, kind)
    wanted = looped(shape, *cut, kind)
    assert np.allclose(passed, wanted, atol=1e-6)
    low, high = torch.randn(1, 3, *shape), torch.randn(1, 3, *shape)
    spectra = [np.fft.fftn(t.double().numpy(), axes=(2, 3, 4)) for t in (low, high)]
    whole = np.fft.ifftn(np.sqrt(wanted) * spectra[0] + np.sqrt(1 - wanted) * spectra[1], axes=(2, 3, 4))
    assert np.abs(whole.imag).max() < 1e-12  # odd lengths, too
    assert np.allclose(mix(low, high, passed), whole.real, atol=1e-5)


def test_ends_of_the_filter() -> None:
    low, high = torch.randn(1, 2, 5, 4, 4), torch.randn(1, 2, 5, 4, 4)
    assert torch.allclose(mix(low, high, torch.ones(5, 4, 4)), low, atol=1e-5)
    assert torch.allclose(mix(low, high, torch.zeros(5, 4, 4)), high, atol=1e-5)
    only = low_pass((5, 4, 4), 0.0, 0.25)
    assert float(only.sum()) == 1.0 and float(only[0, 0, 0]) == 1.0


def test_root_weights_keep_the_variance_and_linear_ones_do_not() -> None:
    low, high = torch.randn(1, 64, 9, 8, 8), torch.randn(1, 64, 9, 8, 8)
    half = torch.full((9, 8, 8), 0.5)
    assert float(mix(low, high, half).var()) == pytest.approx(1.0, abs=0.03)
    assert float((0.5 * low + 0.5 * high).var()) == pytest.approx(0.5, abs=0.03)
    assert float(mix(low, high, low_pass((9, 8, 8), 0.25, 0.25)).var()) == pytest.approx(1.0, abs=0.03)


def rounds(x0: Tensor, method: FreeInit, steps: int = 20) -> tuple[Tensor, int]:
    case = bench(mixing, x0.shape[2], schedule=flow_schedule(steps), info=model_info(channels=x0.shape[1]))
    return method.refine(case.context(), x0, 1)


def test_later_rounds_start_from_the_renoised_result() -> None:
    x0 = torch.randn(1, 2, 7, 1, 2)
    x, row = rounds(x0, FreeInit(sigma_restart=0.9))
    assert row == 2  # the first row of 1, .95, .9, … with σ ≤ .9
    grid = grid_of(model_info(), 7)
    level = flow_schedule(20)[row]
    noisy = add_noise(x0, latent_noise(grid, 0, 0, 7), level)  # with the noise of round 0
    fresh = float(level.sigma) * latent_noise(grid, 0, 0, 7, "freeinit1")
    assert torch.allclose(x, mix(noisy, fresh, low_pass((7, 1, 2), 0.25, 0.25)), atol=1e-6)


def test_the_result_depends_on_the_round_before() -> None:
    """At σ = 1 a flow model's re-noised latent would be noise alone."""
    a, b = (rounds(x0, FreeInit())[0] for x0 in (torch.zeros(1, 2, 7, 1, 2), torch.ones(1, 2, 7, 1, 2)))
    assert float((a - b).abs().max()) > 0.04
    one = flow_schedule(20)[0]
    assert torch.equal(
        add_noise(torch.zeros(1, 2, 7, 1, 2), torch.ones(1, 2, 7, 1, 2), one),
        add_noise(torch.ones(1, 2, 7, 1, 2), torch.ones(1, 2, 7, 1, 2), one),
    )


def test_never_from_the_first_row_nor_past_the_last() -> None:
    with pytest.raises(BadInput, match="take more steps"):
        rounds(torch.zeros(1, 2, 3, 1, 2), FreeInit(sigma_restart=0.05), steps=4)


def test_rounds_are_counted() -> None:
    assert FreeInit().rounds() == 3 and FreeInit(rounds=1).rounds() == 1
    assert set(FreeInit.info.conflicts) == {"fifo", "miga", "extend"}
