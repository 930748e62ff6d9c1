"""FreeLong, FreeLong++ and SpecMix against dense masked softmaxes and Fourier transforms."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from fakes import Layer, flow_schedule, grid_of, model_info, random_qkv, rotation, run_attention, site_of, view_of
from torch import Tensor

from longgen.core.noise import latent_noise
from longgen.core.shuffle import shuffled_noise
from longgen.core.windows import band
from longgen.errors import BadInput
from longgen.methods.freelong import FreeLong
from longgen.methods.freelongpp import FreeLongPP, branches, kept
from longgen.methods.specmix import SpecMix
from longgen.types import Dense, FrameWindow, Interval, Rope

ROPE = Rope("table", 8)
INFO = model_info(3, rope=ROPE)
SIZE = (2, 3)  # tokens of one frame


def rotated(x: Tensor, frames: int) -> Tensor:
    theta = 10_000.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    return rotation(ROPE, torch.arange(frames, dtype=torch.float64), math.prod(SIZE), theta)(x)


def masked(q: Tensor, k: Tensor, v: Tensor, visible: Callable[[int, int], bool], text: Any = None) -> Tensor:
    """softmax over the frames j with visible(i, j), and all text, written token by token."""
    tokens, frames = math.prod(SIZE), q.shape[1] // math.prod(SIZE)
    mask = torch.tensor([[visible(i, j) for j in range(frames)] for i in range(frames)])
    mask = mask.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)
    if text is not None:
        k, v = torch.cat([k, text[0]], 1), torch.cat([v, text[1]], 1)
        mask = torch.cat([mask, torch.ones(q.shape[1], text[0].shape[1], dtype=torch.bool)], 1)
    logits = torch.einsum("bqnd,bknd->bnqk", q.double(), k.double()) / math.sqrt(q.shape[-1])
    return torch.einsum("bnqk,bknd->bqnd", logits.masked_fill(~mask, -math.inf).softmax(-1), v.double())


def lowpassed(x: Tensor, frames: int, cutoffs: tuple[float, float, float]) -> Tensor:
    """Gaussian low-pass of [B, S, N, D] over (t, h, w) by an FFT; cut-off 0 leaves an axis alone."""
    cube = x.unflatten(1, (frames, *SIZE))
    for axis, cutoff in enumerate(cutoffs, start=1):
        n = cube.shape[axis]
        if cutoff:
            k = torch.tensor([min(i, n - i) for i in range(n)], dtype=torch.float64) * 2 / n
            gain = torch.exp(-0.5 * (k / cutoff) ** 2).reshape([-1 if a == axis else 1 for a in range(cube.ndim)])
            cube = torch.fft.ifft(torch.fft.fft(cube, dim=axis) * gain, dim=axis).real
    return cube.flatten(1, 3)


def outputs(method: Any, frames: int, text: Any = None, step: int = 0, layer: Layer | None = None) -> Any:
    q, k, v = random_qkv(frames * math.prod(SIZE), seed=frames)
    patch = method.patch(view_of(INFO, frames, tokens=math.prod(SIZE)))
    site = site_of(INFO, frames, SIZE, step)
    return run_attention(patch, q, k, v, site, ROPE, text, layer), rotated(q, frames), rotated(k, frames), v


TEXTS = [None, tuple(torch.randn(1, 4, 2, 8, generator=torch.Generator().manual_seed(i)) for i in (7, 8))]


@pytest.mark.parametrize("text", TEXTS, ids=["video", "joint"])
@pytest.mark.parametrize("border", ["cut", "shift"])
@pytest.mark.parametrize("spatial", [0.0, 0.25])
def test_freelong_blends_global_and_local_attention(text: Any, border: str, spatial: float) -> None:
    for frames in range(4, 3 + 5 * 2 + 1):
        ours, q, k, v = outputs(FreeLong(border=border, spatial=spatial).fit(INFO), frames, text)
        if border == "cut":
            local = masked(q, k, v, lambda i, j: abs(i - j) <= 1, text)
        else:
            local = masked(q, k, v, lambda i, j, n=frames: abs(min(max(i, 1), n - 2) - j) <= 1, text)
        whole = masked(q, k, v, lambda i, j: True, text)
        reference = local + lowpassed(whole - local, frames, (0.25, spatial, spatial))
        assert torch.allclose(ours.double(), reference, atol=2e-6), f"{frames} latents"


def test_after_tau_only_the_local_branch_runs() -> None:
    for step in range(10):
        layer = Layer()
        ours, q, k, v = outputs(FreeLong(until=0.5).fit(INFO), 9, step=step, layer=layer)
        assert [type(p) for p in layer.plans] == [FrameWindow, Dense][: 1 + (step < 5)]
        if step >= 5:
            assert torch.allclose(ours.double(), masked(q, k, v, lambda i, j: abs(i - j) <= 1), atol=1e-6)


@pytest.mark.parametrize(("until", "blending"), [(0.0, 0), (0.3, 3), (1.0, 10)])
def test_tau_is_a_level_interval(until: float, blending: int) -> None:
    """τ counts steps of the solver's table, whatever its shift; a restart at a later row keeps the level."""
    for shift in (1.0, 5.0):
        view = view_of(INFO, 9, flow_schedule(10, shift))
        hook = FreeLong(until=until).fit(INFO).patch(view).attention
        assert hook is not None
        count = 0
        for step in range(10):
            layer = Layer()
            q, k, v = random_qkv(18)
            site = site_of(INFO, 9, step=step, level=view.schedule[step])
            hook(site, q, k, v, lambda x, positions=None: x, layer.attend)
            count += layer.attends - 1
        assert count == blending
    assert flow_schedule(10)[0] in Interval(low=flow_schedule(10).sigma_at(0.3))


def test_a_band_wider_than_the_video_is_full_attention() -> None:
    method = FreeLong(window_latents=17, until=1.0).fit(INFO)
    assert method.patch(view_of(INFO, 9)).empty
    assert all(span == (0, 9) for span in band(9, 17, "cut"))


@pytest.mark.parametrize(("width", "border", "sizes"), [(17, "cut", (9, 17)), (17, "shift", (17, 17))])
def test_widths_of_the_local_band(width: int, border: Any, sizes: tuple[int, int]) -> None:
    """α = 8: 17 frames inside; at clip ends 9 when cut short, all 17 when moved inside."""
    spans = band(128, width, border)
    assert {b - a for a, b in spans[8:-8]} == {17}
    assert spans[0][1] - spans[0][0] == spans[-1][1] - spans[-1][0] == sizes[0]
    assert max(b - a for a, b in spans) == sizes[1] and all(a <= i < b for i, (a, b) in enumerate(spans))


def test_cutoff_in_seconds() -> None:
    """At half a second per latent, Nyquist is a period of one second; a period of 4 s is a quarter of it."""
    assert FreeLong(cutoff_seconds=4.0).cutoff_for(0.5) == pytest.approx(0.25)
    ours = outputs(FreeLong(cutoff_seconds=4.0).fit(INFO), 9)[0]
    assert torch.equal(ours, outputs(FreeLong(cutoff=0.25).fit(INFO), 9)[0])
    with pytest.raises(BadInput, match="exclude each other"):
        FreeLong(cutoff=0.3, cutoff_seconds=2.0).check(9, INFO)


def test_compat_differs_on_odd_lengths_only_by_its_filter() -> None:
    for frames in (8, 9):
        ours, theirs = (outputs(FreeLong(compat=c).fit(INFO), frames)[0] for c in (False, True))
        assert torch.isfinite(theirs).all() and not torch.equal(ours, theirs)


# ----------------------------------------------------------------------------------------------------------- FreeLong++


@pytest.mark.parametrize("text", TEXTS, ids=["video", "joint"])
@pytest.mark.parametrize("border", ["cut", "shift"])
def test_freelongpp_is_one_band_per_window(text: Any, border: str) -> None:
    """The sum over scales of band-pass filtered attentions, each band written as a difference of low-passes."""
    for frames in range(4, 32, 3):
        ours, q, k, v = outputs(FreeLongPP(border=border), frames, text)
        used = branches([1, 2, 4, 8], frames, 3)
        reference = torch.zeros_like(v, dtype=torch.float64)
        for n, a in enumerate(used):
            if n == len(used) - 1:
                attended = masked(q, k, v, lambda i, j: True, text)
            else:
                spans = spelled(frames, a * 3, border)
                attended = masked(q, k, v, lambda i, j, s=spans: s[i][0] <= j < s[i][1], text)
            low = attended if n == 0 else lowpassed(attended, frames, (1 / (2 * a), 0, 0))
            above = lowpassed(attended, frames, (1 / (2 * used[n + 1]), 0, 0)) if n + 1 < len(used) else 0.0
            reference += low - above
        assert torch.allclose(ours.double(), reference, atol=3e-6), f"{frames} latents"


def spelled(frames: int, width: int, border: str) -> list[tuple[int, int]]:
    """Bands about each frame, by walking outwards."""
    spans = []
    for i in range(frames):
        low, high = i - width // 2, i - width // 2 + width
        while border == "shift" and low < 0:
            low, high = low + 1, high + 1
        while border == "shift" and high > frames and low > 0:
            low, high = low - 1, high - 1
        spans.append((max(low, 0), min(high, frames)))
    return spans


def test_scales_follow_the_length() -> None:
    """{1, 2, 4} at 4x and {1, 2, 4, 8} at 8x on Wan; the last is global, at 16x too."""
    assert branches([1, 2, 4, 8], 81, 21) == [1, 2, 4]
    assert branches([1, 2, 4, 8], 161, 21) == [1, 2, 4, 8]
    assert branches([1, 2, 4, 8], 321, 21) == [1, 2, 4, 8]
    assert branches([1, 2, 4, 8], 22, 21) == [1, 2]
    layer = Layer()
    outputs(FreeLongPP(), 12, layer=layer)
    assert [type(p) for p in layer.plans] == [FrameWindow, FrameWindow, Dense]


def test_two_branches_reproduce_freelong() -> None:
    """Scales {1, 2} put the cut-off at a quarter of Nyquist: FreeLong's own d = 0.25."""
    plus = outputs(FreeLongPP(scales="1,2"), 12)[0]
    assert torch.allclose(plus, outputs(FreeLong(spatial=0.0, until=1.0).fit(INFO), 12)[0], atol=1e-6)


def test_equal_branches_pass_through() -> None:
    """Equal keys everywhere make all windows agree when values are the same in every frame."""
    v = torch.randn(1, 6, 2, 8).repeat(1, 12, 1, 1)
    q = torch.zeros(1, 72, 2, 8)
    patch = FreeLongPP().patch(view_of(INFO, 12, tokens=6))
    out = run_attention(patch, q, torch.zeros_like(q), v, site_of(INFO, 12, SIZE))
    assert torch.allclose(
        out, v.unflatten(1, (12, 6)).mean(2, keepdim=True).expand(1, 12, 6, 2, 8).flatten(1, 2), atol=1e-6
    )


def test_key_subsampling_takes_every_second_frame_after_rotation() -> None:
    ours, q, k, v = outputs(FreeLongPP(keys=0.5, scales="1,2"), 12)
    local = masked(q, k, v, lambda i, j: abs(i - j) <= 1)
    thinned = masked(q, k, v, lambda i, j: j % 2 == 0)
    assert torch.allclose(ours.double(), local + lowpassed(thinned - local, 12, (0.25, 0, 0)), atol=2e-6)
    assert torch.equal(outputs(FreeLongPP(keys=1.0), 12)[0], outputs(FreeLongPP(), 12)[0])


@pytest.mark.parametrize("share", [0.1, 1 / 3, 0.5, 0.7, 0.95])
def test_any_share_of_the_keys_is_taken_evenly(share: float) -> None:
    for frames in range(4, 40):
        taken = kept(frames, share)
        gaps = {b - a for a, b in pairwise(taken)} or {0}
        assert taken[0] == 0 and len(taken) == math.ceil(round(share * frames, 9)) <= frames
        assert max(gaps) - min(gaps) <= 1 and frames - taken[-1] <= math.ceil(1 / share), (frames, taken)
    ours, q, k, v = outputs(FreeLongPP(keys=share, scales="1,2"), 12)
    local = masked(q, k, v, lambda i, j: abs(i - j) <= 1)
    thinned = masked(q, k, v, lambda i, j: j in kept(12, share))
    assert torch.allclose(ours.double(), local + lowpassed(thinned - local, 12, (0.25, 0, 0)), atol=2e-6)
    seen = FreeLongPP(keys=share, scales="1,2").key_frames(12, INFO)
    assert seen == FreeLongPP(scales="1,2").key_frames(12, INFO) - 12 + math.ceil(12 * share - 1e-9)


def test_windows_count_frames_whatever_the_resolution() -> None:
    plans = []
    for size in ((1, 2), (2, 4)):
        layer, tokens = Layer(), math.prod(size)
        q, k, v = random_qkv(12 * tokens)
        run_attention(
            FreeLongPP().patch(view_of(INFO, 12, tokens=tokens)), q, k, v, site_of(INFO, 12, size), layer=layer
        )
        plans.append([p.spans for p in layer.plans if isinstance(p, FrameWindow)])
    assert plans[0] == plans[1]


@pytest.mark.parametrize("scales", ["", "2,1", "1,x", "0,1", "1,1"])
def test_scales_are_checked(scales: str) -> None:
    with pytest.raises(BadInput, match="ascending"):
        FreeLongPP(scales=scales).check(9, INFO)


# -------------------------------------------------------------------------------------------------------------- SpecMix


def test_specmix_is_base_in_the_middle_and_fresh_at_the_ends() -> None:
    method = SpecMix(window_latents=3, stride_latents=2).fit(INFO)
    for frames in range(3, 30, 2):
        grid = grid_of(INFO, frames)
        x = method.noise(grid, 5, 0, frames)
        base, fresh = shuffled_noise(grid, 5, 0, frames, 3, 2), latent_noise(grid, 5, 0, frames, "specmix")
        middle = frames // 2
        assert torch.equal(x[:, :, middle], base[:, :, middle])
        assert torch.allclose(x[:, :, [0, -1]], fresh[:, :, [0, -1]], atol=1e-6)


def test_specmix_equals_the_fourier_form() -> None:
    """cos θ·FFT(base) + sin θ·FFT(fresh), transformed back over space: θ depends on the frame alone."""
    grid = grid_of(INFO, 11)
    base, fresh = shuffled_noise(grid, 5, 0, 11, 3, 2), latent_noise(grid, 5, 0, 11, "specmix")
    theta = torch.tensor([math.pi / 2 * abs(t - 5) / 5 for t in range(11)])[None, None, :, None, None]
    mixed = theta.cos() * torch.fft.fft2(base) + theta.sin() * torch.fft.fft2(fresh)
    ours = SpecMix(window_latents=3, stride_latents=2).fit(INFO).noise(grid, 5, 0, 11)
    assert torch.allclose(ours, torch.fft.ifft2(mixed).real, atol=1e-6)
