"""FlexAttention: any plan of one scale in one compiled call, by block masks that are built from indices.

Knows blocks of 128 tokens and the frames that they straddle. Does not run uncompiled, which would hold S × S scores,
nor on a CPU, where torch gives no log-sum-exp.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from longgen.attention import plans
from longgen.attention.engine import EVERY_PLAN, Engine
from longgen.core.merge import merge
from longgen.types import Dense, FrameGather, FrameWindow, Plan, TokenDecay, Union

BLOCK = 128


@lru_cache(maxsize=1)
def compiled() -> Callable[..., Any]:
    """flex_attention, compiled. `fullgraph`, so that too many shapes are an error and never an uncompiled S × S run."""
    return torch.compile(flex_attention, fullgraph=True)


class Flex(Engine):
    """torch.nn.attention.flex_attention with a BlockMask."""

    name = "flex"
    dtypes = frozenset({torch.float16, torch.bfloat16, torch.float32})
    head_dims = "16 or more, up to 256"
    supports = EVERY_PLAN | {TokenDecay}
    sm = 70

    def head_dim(self, d: int) -> bool:
        return 16 <= d <= 256

    def available(self, device: torch.device) -> str | None:
        if device.type == "cpu":
            return "torch's compiled FlexAttention gives no log-sum-exp on a CPU"
        return super().available(device)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        if isinstance(plan, Union):
            parts = zip(plan.parts, plan.scales, strict=True)
            return merge([self.attend(q, k, v, p, scale * s) for p, s in parts])
        if not k.shape[1]:
            return plans.nothing(q)
        mask, edit = None, None
        if isinstance(plan, TokenDecay):
            edit = score_mod(plan)
        elif not isinstance(plan, Dense):
            plans.check(plan, q.shape[1], k.shape[1])
            mask = block_mask(plan, k.shape[1] // plan.tokens, q.device)
        heads = (x.transpose(1, 2) for x in (q, k, v))
        out, aux = compiled()(
            *heads,
            score_mod=edit,
            block_mask=mask,
            scale=scale * q.shape[-1] ** -0.5,
            return_aux=AuxRequest(lse=True),
        )
        return out.transpose(1, 2), aux.lse


@lru_cache(maxsize=64)
def score_mod(plan: TokenDecay) -> Callable[..., Tensor]:
    """The plan as an edit of single logits, one object per plan, so that it is compiled once."""

    def edit(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return plans.decay(score, q, kv, plan)

    return edit


def frame_mask(plan: FrameWindow | FrameGather, frames: int) -> Tensor:
    """[T, frames] bool: which key frames a query frame sees."""
    rows = plan.sets if isinstance(plan, FrameGather) else tuple(tuple(range(a, b)) for a, b in plan.spans)
    mask = torch.zeros(len(rows), frames, dtype=torch.bool)
    for i, seen in enumerate(rows):
        mask[i, list(seen)] = True
    return mask


def _blocks_of_frames(frames: int, tokens: int) -> Tensor:
    """[blocks, frames] fp32: 1 where a block of 128 tokens holds tokens of a frame."""
    first = torch.arange(0, frames * tokens, BLOCK)
    last = (first + BLOCK).clamp(max=frames * tokens) - 1
    frame = torch.arange(frames)
    return ((first // tokens)[:, None] <= frame).logical_and(frame <= (last // tokens)[:, None]).float()


@lru_cache(maxsize=8)
def block_mask(plan: FrameWindow | FrameGather, frames: int, device: torch.device) -> BlockMask:
    """The plan over `frames` key frames as indices of full and of partly seen blocks; (S/128)² integers, no token mask.

    A block pair is full when all of its (query frame, key frame) pairs are seen, partial when some are.
    """
    seen, p = frame_mask(plan, frames), plan.tokens
    rows, columns = _blocks_of_frames(len(seen), p), _blocks_of_frames(frames, p)
    some = rows @ seen.float() @ columns.T > 0
    full = rows @ (~seen).float() @ columns.T == 0
    at = seen.to(device)

    def mask_mod(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        # Padding at the end of the last block lies beyond the last frame.
        return at[(q // p).clamp(max=at.shape[0] - 1), (kv // p).clamp(max=at.shape[1] - 1)]

    made = BlockMask.from_kv_blocks(
        *_indices(some & ~full, device),
        *_indices(full, device),
        BLOCK_SIZE=BLOCK,
        mask_mod=mask_mod,
        seq_lengths=(len(seen) * p, frames * p),
        compute_q_blocks=False,
    )
    assert isinstance(made, BlockMask)
    return made


def _indices(chosen: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """[rows, columns] bool → how many per row [1, 1, rows], and which, first [1, 1, rows, columns]."""
    order = torch.argsort(chosen.int(), dim=1, descending=True, stable=True)
    return tuple(x.to(device, torch.int32)[None, None].contiguous() for x in (chosen.sum(1), order))  # type: ignore
