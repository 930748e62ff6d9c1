"""FreeNoise: the shuffle, the windows, and attention against a dense row-stochastic matrix."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from fakes import Layer, grid_of, model_info, random_qkv, rotation, run_attention, site_of, view_of
from torch import Tensor

from longgen.core.noise import latent_noise
from longgen.core.shuffle import sources
from longgen.core.windows import window_weights
from longgen.methods.freenoise import FreeNoise, spans
from longgen.runtime.compose import compose
from longgen.types import LatentGrid, Rope


@pytest.mark.parametrize(("window", "stride"), [(16, 4), (21, 4), (21, 5), (21, 7), (21, 14), (21, 17), (3, 2), (5, 5)])
def test_windows_on_the_grid_hold_distinct_noises(window: int, stride: int) -> None:
    """Every window that starts at a multiple of S holds each of the U base noises once, whether or not S divides U."""
    frames = window + 7 * stride + 1
    index = sources(3, 0, frames, window, stride)
    assert index[:window] == list(range(window)) and set(index) == set(range(window))
    for start in range(0, frames - window + 1, stride):
        assert sorted(index[start : start + window]) == list(range(window))
    for a, b in spans(frames, window, stride):
        assert len(set(index[a:b])) == b - a, "attention windows, tail included, repeat no noise"


@pytest.mark.parametrize(("window", "stride", "fewest"), [(16, 4, 15), (21, 17, 16)])
def test_windows_off_the_grid_repeat_noises(window: int, stride: int, fewest: int) -> None:
    """Published counts: off the grid, U = 16, S = 4 leaves 15 or fewer distinct noises, U = 21, S = 17 16 or fewer."""
    index = sources(0, 0, 400, window, stride)
    counts = [len(set(index[s : s + window])) for s in range(window, 300) if s % stride]
    assert min(counts) <= fewest < window


def test_chunks_are_permutations_of_the_latents_one_window_back() -> None:
    window, stride = 7, 3
    index = sources(1, 0, 40, window, stride)
    for i in range(window, 40 - stride, stride):
        assert sorted(index[i : i + stride]) == sorted(index[i - window : i - window + stride])
    assert index != [i % window for i in range(40)]
    assert index != sources(2, 0, 40, window, stride)


def test_noise_depends_on_seed_index_window_and_stride_only() -> None:
    info = model_info(3)
    method = FreeNoise().fit(info)
    long = method.noise(grid_of(info, 50), 4, 0, 50)
    assert torch.equal(method.noise(grid_of(info, 9), 4, 0, 9), long[:, :, :9])
    assert torch.equal(long[:, :, :3], latent_noise(grid_of(info, 3), 4, 0, 3))
    other = FreeNoise(stride_latents=1).fit(info).noise(grid_of(info, 50), 4, 0, 50)
    assert not torch.equal(other, long)


def test_noise_draws_only_what_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def counted(grid: LatentGrid, seed: int, start: int, stop: int, tag: str = "noise") -> Tensor:
        drawn.append(stop - start)
        return latent_noise(grid, seed, start, stop, tag)

    monkeypatch.setattr("longgen.core.shuffle.latent_noise", counted)
    FreeNoise().fit(model_info(9)).noise(grid_of(model_info(9), 5000), 0, 4000, 4002)
    assert sum(drawn) <= 2


def test_interior_pyramid_sum_is_18() -> None:
    """U = 16, S = 4: four windows hold each interior frame, and their weights sum to 18."""
    total = torch.zeros(64, dtype=torch.float64)
    for a, b in spans(64, 16, 4):
        total[a:b] += window_weights("pyramid", 16, 0)
    assert set(total[12:52].tolist()) == {18.0}
    assert window_weights("pyramid", 5, 0).tolist() == [1, 2, 3, 2, 1]


def dense_rows(q: Tensor, k: Tensor, windows: list[tuple[int, int]], tokens: int, text: Tensor | None) -> Tensor:
    """[B, N, S, S (+ L)]: the fused attention as one matrix, frame by frame and window by window in fp64."""
    frames = q.shape[1] // tokens
    keys = k if text is None else torch.cat([k, text], 1)
    logits = torch.einsum("bqnd,bknd->bnqk", q.double(), keys.double()) / math.sqrt(q.shape[-1])
    rows = torch.zeros_like(logits)
    weight = torch.zeros(frames, len(windows), dtype=torch.float64)
    for j, (a, b) in enumerate(windows):
        for i in range(a, b):
            weight[i, j] = min(i - a + 1, b - i)
    weight /= weight.sum(1, keepdim=True)
    for j, (a, b) in enumerate(windows):
        visible = torch.zeros(keys.shape[1], dtype=torch.bool)
        visible[a * tokens : b * tokens] = True
        visible[frames * tokens :] = True
        one = logits.masked_fill(~visible, -math.inf).softmax(-1)
        for i in range(a, b):
            part = slice(i * tokens, (i + 1) * tokens)
            rows[:, :, part] += weight[i, j] * one[:, :, part]
    return rows


@pytest.mark.parametrize("tail", ["grid", "full"])
@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
def test_attention_equals_a_dense_row_stochastic_matrix(tail: str, text: bool, batch: int) -> None:
    info = model_info(4, rope=Rope("table", 8))
    method = FreeNoise(window_latents=4, stride_latents=3, tail=tail).fit(info)
    for frames in range(5, 4 + 5 * 3 + 1):
        q, k, v = random_qkv(frames * 2, batch, seed=frames)
        words = tuple(torch.randn(batch, 3, 2, 8, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
        patch = method.patch(view_of(info, frames))
        ours = run_attention(patch, q, k, v, site_of(info, frames), info.rope, words if text else None)  # type: ignore[arg-type]
        theta = 10_000.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
        rotate = rotation(info.rope, torch.arange(frames, dtype=torch.float64), 2, theta)
        rows = dense_rows(rotate(q), rotate(k), covering(frames, tail), 2, words[0] if text else None)
        assert (rows >= 0).all() and torch.allclose(rows.sum(-1), torch.ones_like(rows.sum(-1)))
        values = torch.cat([v, words[1]], 1) if text else v
        theirs = torch.einsum("bnqk,bknd->bqnd", rows, values.double())
        assert torch.allclose(ours.double(), theirs, atol=1e-6), f"{frames} latents"


def covering(frames: int, tail: str) -> list[tuple[int, int]]:
    """Windows of 4 with step 3, written out: every aligned one that fits, and what the rest needs."""
    windows = [(s, s + 4) for s in range(0, frames, 3) if s + 4 <= frames]
    if windows[-1][1] < frames:
        windows.append((windows[-1][0] + 3, frames) if tail == "grid" else (frames - 4, frames))
    return windows


def test_every_frame_lies_in_a_window_at_every_length() -> None:
    for tail in ("grid", "full"):
        for frames in range(1, 120):
            seen = {i for a, b in spans(frames, 16, 5, tail) for i in range(a, b)}
            assert seen == set(range(frames))


def test_no_tensor_grows_with_the_square_of_the_length() -> None:
    info = model_info(3)
    method, layer, frames = FreeNoise().fit(info), Layer(), 40
    q, k, v = random_qkv(frames * 2)
    run_attention(method.patch(view_of(info, frames)), q, k, v, site_of(info, frames), layer=layer)
    assert layer.attends == 2, "all full windows in one batch, and the tail"
    assert layer.largest <= 20 * (3 * 2) ** 2 < (frames * 2) ** 2


@pytest.mark.parametrize("part", ["freenoise.noise", "freenoise.route"])
def test_parts_stand_alone(part: str) -> None:
    info = model_info(3)
    made = compose(part).fit(info)
    patch = made.patch(view_of(info, 12))
    assert (made.noise is None) == (part == "freenoise.route")
    assert patch.empty == (part == "freenoise.noise")


def test_sizes_must_be_known_before_noise_is_drawn() -> None:
    with pytest.raises(ValueError, match="fitted"):
        FreeNoise().noise(grid_of(model_info(), 9), 0, 0, 9)


def test_settings_reach_windows_and_are_told() -> None:
    info = model_info(9)
    method = FreeNoise(window=17, overlap=8)
    assert "5 latents (17 frames), step 3" in method.notes(33, info)[-1]
    assert method.key_frames(33, info) == pytest.approx(sum((b - a) ** 2 for a, b in spans(33, 5, 3)) / 33)
    values: dict[str, Any] = method.settings
    assert values["window"] == 17
