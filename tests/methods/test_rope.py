"""riflex, ntk and pi: published periods and choices, and the laws of each edit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fakes import model_info, random_qkv, run_attention, site_of, view_of

from longgen.core.rope import intrinsic, periods, thetas
from longgen.errors import BadInput
from longgen.methods.ntk import Ntk
from longgen.methods.pi import Pi
from longgen.methods.riflex import Riflex
from longgen.types import Rope, View

WAN, HUNYUAN, COGVIDEOX = Rope("table", 44), Rope("table", 16, 256.0), Rope("argument", 16)
LTX = Rope("coords", 682)  # 341 frequencies on the temporal axis


def view(rope: Rope, native: int, frames: int, seconds: float = 0.25) -> View:
    return replace(view_of(model_info(native=native), frames), rope=rope, seconds_per_latent=seconds)


@pytest.mark.parametrize("rope, published", [
    (WAN, [6.3, 9.5, 14.5, 22.1, 33.5, 51.0, 77.5, 117.7]),
    (HUNYUAN, [6.3, 12.6, 25.1, 50.3, 100.5]),
    (COGVIDEOX, [6.3, 19.9, 62.8]),
])  # fmt: skip
def test_published_periods(rope: Rope, published: list[float]) -> None:
    assert periods(thetas(rope))[: len(published)].tolist() == pytest.approx(published, abs=0.05)


@pytest.mark.parametrize("rope, native, k", [(HUNYUAN, 33, 4), (COGVIDEOX, 13, 2), (WAN, 21, 4)])
def test_published_intrinsic_frequency(rope: Rope, native: int, k: int) -> None:
    assert intrinsic(thetas(rope), native) + 1 == k


@pytest.mark.parametrize("rope, native, k", [(HUNYUAN, 33, 4), (COGVIDEOX, 13, 2), (WAN, 21, 4)])
def test_riflex_changes_one_frequency_beyond_its_period(rope: Rope, native: int, k: int) -> None:
    theta = thetas(rope)
    period = float(periods(theta)[k - 1])
    for frames in range(1, 6 * native + 1):
        patch = Riflex().patch(view(rope, native, frames))
        if frames <= period:
            assert patch.empty
            continue
        edited = patch.freqs(theta)
        changed = (edited != theta).nonzero().flatten().tolist()
        assert changed == [k - 1]
        assert float(periods(edited)[k - 1]) == pytest.approx(frames / 0.9)


def test_riflex_with_a_given_frequency() -> None:
    theta = thetas(WAN)
    edited = Riflex(k=6).patch(view(WAN, 21, 81)).freqs(theta)
    assert (edited != theta).nonzero().flatten().tolist() == [5]
    assert Riflex(k=6).patch(view(WAN, 21, 50)).empty  # N_6 = 50.95
    assert Riflex(k=1).patch(view(WAN, 21, 21)).empty  # never within the native length
    for wrong in (0, 23, "four", 1.5, True):
        with pytest.raises(BadInput, match=r"riflex\.k must be auto or a whole number from 1 to 22"):
            Riflex(k=wrong).check(81, model_info(native=21, rope=WAN))


def test_riflex_in_seconds_for_coordinates() -> None:
    theta = thetas(LTX)
    assert float(periods(theta)[0]) == pytest.approx(40.0)  # 40/w seconds
    native = 16 * 8 / 24
    index = intrinsic(theta, native)
    assert float(periods(theta)[index]) >= native > float(periods(theta)[index + 1])
    edited = Riflex().patch(view(LTX, 16, 64, seconds=8 / 24)).freqs(theta)
    assert (edited != theta).nonzero().flatten().tolist() == [index]
    assert float(periods(edited)[index]) == pytest.approx(64 * 8 / 24 / 0.9)


def test_riflex_counts_tokens_where_latents_are_joined() -> None:
    info = model_info(native=26, patch_t=2, rope=COGVIDEOX)
    joined = Riflex().fit(info)
    assert joined.patch(view(COGVIDEOX, 26, 38)).empty  # 19 token frames, N_2 = 19.9
    edited = joined.patch(view(COGVIDEOX, 26, 80)).freqs(thetas(COGVIDEOX))
    assert float(periods(edited)[1]) == pytest.approx(40 / 0.9)


@pytest.mark.parametrize("rope", [WAN, HUNYUAN, COGVIDEOX])
def test_ntk_is_a_new_base(rope: Rope) -> None:
    d, stretch = rope.dim, 81 / 21
    edited = Ntk().patch(view(rope, 21, 81)).freqs(thetas(rope))
    assert torch.allclose(edited, thetas(replace(rope, base=rope.base * stretch ** (d / (d - 2)))), rtol=1e-9)
    assert float(edited[0]) == 1.0 and float(edited[-1]) == pytest.approx(float(thetas(rope)[-1]) / stretch)


def test_ntk_keeps_the_fastest_coordinate_frequency() -> None:
    theta = thetas(LTX)
    edited = Ntk(factor=4.0).patch(view(LTX, 16, 64)).freqs(theta)
    assert float(edited[-1]) == pytest.approx(float(theta[-1])) and float(edited[0]) == pytest.approx(
        float(theta[0]) / 4
    )


def test_pi_squeezes_positions() -> None:
    """At stretch s, position p turns as p/s did."""
    info = model_info(native=3)
    q, k, v = random_qkv(2 * 6)
    patch, site = Pi().patch(view_of(info, 6)), site_of(info, 6)
    squeezed = replace(patch, freqs=None, positions=lambda p: p * 3 / 6)
    assert torch.allclose(
        run_attention(patch, q, k, v, site, info.rope), run_attention(squeezed, q, k, v, site, info.rope), atol=1e-6
    )


@pytest.mark.parametrize("kind", [Ntk, Pi])
def test_no_op_within_the_native_length(kind: type) -> None:
    for frames in range(1, 22):
        assert kind().patch(view(WAN, 21, frames)).empty
        assert "no-op" in kind().notes(frames, model_info(native=21))[0]
    assert not kind().patch(view(WAN, 21, 22)).empty and kind().notes(22, model_info(native=21)) == []


def test_riflex_says_what_it_does() -> None:
    info = model_info(native=21, rope=WAN)
    assert Riflex().notes(22, info) == ["riflex: no-op, 22 latents are within the period 22.1 of frequency k = 4"]
    assert Riflex().notes(81, info) == ["riflex: frequency k = 4, period 22.1 latents"]
    seconds = model_info(native=16, rope=LTX, stride=8, fps=24.0)
    index = intrinsic(thetas(LTX), 16 * 8 / 24)
    period = float(periods(thetas(LTX))[index]) * 24 / 8
    assert Riflex().notes(64, seconds) == [f"riflex: frequency k = {index + 1}, period {period:.1f} latents"]
