"""freeloc against one dense softmax whose every pair of frames has positions written out, and its laws."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from fakes import Layer, model_info, random_qkv, rotation, run_attention, site_of, view_of
from torch import Tensor

from longgen.core.merge import merge
from longgen.errors import BadInput
from longgen.methods.freeloc import FreeLoc, Tiers, reencoded, ring, tiers
from longgen.types import Dense, Rope

ROPE = Rope("table", 8, 4.0)
TOKENS = 8


def positions(levels: Tiers, i: int, j: int) -> tuple[int, int]:
    """Where query frame i and key frame j stand towards each other, by the three published cases."""
    d = abs(i - j)
    if d < levels.near:
        return i, j
    assert levels.fine == 2
    if d < levels.middle:
        group, most = levels.fine, 10_000
        shift = levels.near - levels.near // group
    else:
        group, most = levels.coarse, levels.clip
        shift = levels.near - levels.near // 2 + levels.middle // 2 - levels.middle // group
    later, earlier = min(max(i, j) // group + shift, most), min(i, j) // group
    return (later, earlier) if i > j else (earlier, later)


def dense(
    q: Tensor, k: Tensor, v: Tensor, frames: int, place: Callable[[int, int], tuple[int, int] | None],
    tokens: Callable[[int, int], Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """One softmax; frame pairs at the given positions, or unseen; `tokens(i, j)` [P, P] hides token pairs."""
    theta = ROPE.base ** (-torch.arange(0, ROPE.dim, 2, dtype=torch.float64) / ROPE.dim)
    logits = torch.full((q.shape[0], q.shape[2], q.shape[1], k.shape[1]), -math.inf, dtype=torch.float64)

    def turned(x: Tensor, frame: int, at: int) -> Tensor:
        one = x[:, frame * TOKENS : (frame + 1) * TOKENS].double()
        return rotation(ROPE, torch.tensor([float(at)]), TOKENS, theta)(one)

    for i in range(frames):
        for j in range(frames):
            where = place(i, j)
            if where is None:
                continue
            block = torch.einsum("bqnd,bknd->bnqk", turned(q, i, where[0]), turned(k, j, where[1])) / math.sqrt(8)
            if tokens is not None:
                block = block.masked_fill(~tokens(i, j), -math.inf)
            logits[:, :, i * TOKENS : (i + 1) * TOKENS, j * TOKENS : (j + 1) * TOKENS] = block
    return torch.einsum("bnqk,bknd->bqnd", logits.softmax(-1), v.double()).float()


@pytest.mark.parametrize("frames", [5, 9, 13, 17])
@pytest.mark.parametrize("batch", [1, 2])
def test_reencoding_layers_equal_one_dense_softmax(frames: int, batch: int) -> None:
    info = model_info(4, rope=ROPE)
    q, k, v = random_qkv(frames * TOKENS, batch, seed=frames)
    patch, levels = FreeLoc().fit(info).patch(view_of(info, frames, tokens=TOKENS)), tiers(frames, 4)
    got = run_attention(patch, q, k, v, site_of(info, frames, (2, 4)), ROPE)
    assert torch.allclose(got, dense(q, k, v, frames, lambda i, j: positions(levels, i, j)), atol=2e-5)


@pytest.mark.parametrize("frames", [6, 11, 16])
@pytest.mark.parametrize("batch", [1, 2])
def test_sparse_layers_equal_one_dense_softmax(frames: int, batch: int) -> None:
    info, dense_reach, striped = model_info(4, rope=ROPE), 1, 4
    method = FreeLoc(sparse="all", dense=dense_reach, striped=striped, coarse=2).fit(info)
    q, k, v = random_qkv(frames * TOKENS, batch, seed=frames)
    quarter = torch.arange(TOKENS) // (TOKENS // 4)

    def place(i: int, j: int) -> tuple[int, int] | None:
        if j == 0 and i > striped:
            return min(i // 2 + 2 - 1, 3), 0  # a window of 12/21 of T0 and groups of 2
        return (i, j) if abs(i - j) <= striped else None

    def stripes(i: int, j: int) -> Tensor:
        whole = abs(i - j) <= dense_reach or j == 0
        return torch.ones(TOKENS, TOKENS, dtype=torch.bool) if whole else quarter[:, None] == quarter

    patch = method.patch(view_of(info, frames, tokens=TOKENS))
    got = run_attention(patch, q, k, v, site_of(info, frames, (2, 4)), ROPE)
    assert torch.allclose(got, dense(q, k, v, frames, place, stripes), atol=2e-5)


def test_groups_of_one_are_dense_attention() -> None:
    """Nothing is grouped, and nothing is clipped."""
    frames, info = 13, model_info(4, rope=ROPE)
    q, k, v = random_qkv(frames * TOKENS)
    for near, middle in ((3, 7), (5, 5)):
        levels = Tiers(near, middle, 1, 1, 10_000)
        assert levels.shifts == (0, 0)
        site, layer = site_of(info, frames, (2, 4)), Layer()
        theta = ROPE.base ** (-torch.arange(0, ROPE.dim, 2, dtype=torch.float64) / ROPE.dim)
        rotate = rotation(ROPE, torch.arange(float(frames)), TOKENS, theta)
        parts = reencoded(site, q, k, v, rotate, layer.attend, levels)
        want = layer.attend(rotate(q), rotate(k), v, Dense())
        for got, exact in zip(merge(parts), want, strict=True):
            assert torch.allclose(got, exact, atol=1e-5)


@pytest.mark.parametrize("native", [9, 13, 21, 33])
def test_distances_stay_in_the_trained_range_and_in_order(native: int) -> None:
    for frames in range(native + 1, 8 * native, 11):
        levels = tiers(frames, native)
        for i in range(frames):
            pairs = [positions(levels, i, j) for j in range(i, -1, -1)]
            distances = [a - b for a, b in pairs]
            assert distances == sorted(distances) and max(distances) <= native - 1, (frames, i)
            assert distances[: levels.near] == list(range(min(levels.near, i + 1)))
            assert all(positions(levels, j, i) == (b, a) for j, (a, b) in zip(range(i, -1, -1), pairs))


def test_published_tiers() -> None:
    assert tiers(41, 21) == Tiers(12, 20, 2, 8, 20) and tiers(81, 21) == Tiers(10, 14, 2, 8, 20)
    assert tiers(41, 21).shifts == (6, 14) and tiers(81, 21).shifts == (5, 11)
    assert tiers(161, 21).coarse > 8, "a longer video needs larger groups"


def test_key_sets_are_a_partition() -> None:
    for frames in range(5, 40, 3):
        levels = tiers(frames, 9)
        rings = [ring(frames, 1 - levels.near, levels.near)]
        for low, high in ((levels.near, levels.middle), (levels.middle, frames)):
            rings += [ring(frames, 1 - high, 1 - low), ring(frames, low, high)]
        for i in range(frames):
            assert sorted(j for spans in rings for j in range(*spans[i])) == list(range(frames))


def test_layers_go_their_own_ways() -> None:
    info = model_info(4, rope=ROPE)
    method = FreeLoc(sparse="1", dense=1, striped=2).fit(info)
    counts = []
    for layer in (0, 1):
        seen, (q, k, v) = Layer(), random_qkv(12 * TOKENS)
        site = site_of(info, 12, (2, 4), layer=layer)
        run_attention(method.patch(view_of(info, 12, tokens=TOKENS)), q, k, v, site, ROPE, layer=seen)
        counts.append(seen.largest)
    assert counts[0] > counts[1], "the sparse layer computes fewer logits"
    assert 4 * method.key_frames(12, info) < 4 * 12


def test_layers_by_model_and_by_hand() -> None:
    wan = model_info(21, family="wan", layers=30)
    assert len(FreeLoc().fit(wan).chosen()) == 17 and 25 in FreeLoc().fit(wan).chosen()
    assert FreeLoc().fit(model_info(21, family="wan", layers=40)).chosen() == frozenset()
    assert FreeLoc(sparse="all").fit(model_info()).chosen() == {0, 1}
    assert FreeLoc(sparse=1).fit(model_info()).chosen() == {1}
    for wrong in ("2", "x", "0,-1", ""):
        with pytest.raises(BadInput, match="layers such as 0,4 below 2"):
            FreeLoc(sparse=wrong).check(9, model_info())
    assert "17 of 30 layers" in FreeLoc().notes(81, wan)[0] and "no-op" in FreeLoc().notes(21, wan)[0]
