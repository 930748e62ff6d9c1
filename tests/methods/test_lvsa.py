"""LVSA: published key-frame counts, and attention against a dense mask."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from fakes import Layer, model_info, random_qkv, run_attention, site_of, view_of

from longgen.methods.lvsa import Lvsa, frame_sets, key_frames, spacing
from longgen.types import FrameGather


@pytest.mark.parametrize(("frames", "reference", "band", "rule", "every", "attended"), [
    (49, 33, 4, "paper", 2, 34), (41, 33, 4, "paper", 1, 41), (41, 33, 4, "code", 2, 30), (65, 33, 4, "paper", 2, 42),
    (65, 33, 4, "code", 3, 31), (81, 21, 4, "paper", 7, 21), (81, 21, 3, "paper", 6, 21), (81, 21, 3, "code", 6, 21),
])  # fmt: skip
def test_published_spacings(frames: int, reference: int, band: int, rule: str, every: int, attended: int) -> None:
    assert spacing(frames, reference, band, 1, rule) == every
    assert {len(s) for s in frame_sets(frames, every, 0, band, 1)} == {attended}


@pytest.mark.parametrize("band", [0, 1, 3])
def test_every_query_sees_globals_a_full_band_and_itself(band: int) -> None:
    for frames in range(8, 40):
        every = spacing(frames, 7, band, 1)
        for offset in range(every + 2):
            shared = key_frames(frames, every, offset, 1)
            for f, seen in enumerate(frame_sets(frames, every, offset, band, 1)):
                assert len(set(seen)) == len(seen) == len(shared) + min(2 * band + 1, frames - len(shared))
                assert set(shared) <= set(seen) and {0, f} <= set(seen)
                local = sorted(set(seen) - set(shared))
                others = [j for j in range(frames) if j not in shared]
                at = others.index(local[0]) if local else 0
                assert local == others[at : at + len(local)], "the band has no hole but key frames"


def test_every_frame_is_a_key_frame_within_one_turn() -> None:
    for frames in range(8, 60):
        every = spacing(frames, 7, 1, 1)
        seen = {j for offset in range(every) for j in key_frames(frames, every, offset, 1)}
        assert seen == set(range(frames))


def test_the_rotating_part_keeps_its_size() -> None:
    for offset in range(12):
        assert len(set(key_frames(81, 6, offset, 0))) == 14


@pytest.mark.parametrize("text", [False, True])
def test_attention_equals_a_dense_mask(text: bool) -> None:
    info = model_info(5)
    words: Any = tuple(torch.randn(1, 3, 2, 8, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    for frames in range(6, 30, 4):
        for step in (0, 3):
            q, k, v = random_qkv(frames * 2, seed=frames)
            patch = Lvsa(band=1).patch(view_of(info, frames))
            ours = run_attention(patch, q, k, v, site_of(info, frames, step=step), text=words if text else None)
            mask = torch.zeros(frames, frames, dtype=torch.bool)
            for i, seen in enumerate(frame_sets(frames, spacing(frames, 5, 1, 1), step, 1, 1)):
                mask[i, list(seen)] = True
            mask = mask.repeat_interleave(2, 0).repeat_interleave(2, 1)
            keys, values = (torch.cat([a, b], 1) if text else a for a, b in ((k, words[0]), (v, words[1])))
            mask = torch.cat([mask, torch.ones(frames * 2, keys.shape[1] - frames * 2, dtype=torch.bool)], 1)
            logits = torch.einsum("bqnd,bknd->bnqk", q.double(), keys.double()) / math.sqrt(8)
            rows = logits.masked_fill(~mask, -math.inf).softmax(-1)
            assert torch.allclose(ours.double(), torch.einsum("bnqk,bknd->bqnd", rows, values.double()), atol=1e-6)


def test_keys_rotate_with_the_step_and_cost_is_linear() -> None:
    info, method = model_info(9), Lvsa()
    plans = []
    for step in (0, 1):
        layer = Layer()
        q, k, v = random_qkv(72)
        run_attention(method.patch(view_of(info, 36)), q, k, v, site_of(info, 36, step=step), layer=layer)
        plans.append(layer.plans[0])
    assert all(isinstance(p, FrameGather) for p in plans) and plans[0] != plans[1]
    seen = [method.key_frames(9 * n, info) for n in (2, 4, 8, 16)]
    assert max(seen) - min(seen) <= 1


def test_dense_up_to_the_reference() -> None:
    info = model_info(9)
    assert Lvsa(scale=2.0).patch(view_of(info, 18)).empty
    assert not Lvsa(scale=2.0).patch(view_of(info, 19)).empty
