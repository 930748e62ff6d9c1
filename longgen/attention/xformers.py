"""xformers: memory-efficient attention, windows by its gappy-keys bias in one call for the whole batch.

Knows xformers' biases and the shapes of its log-sum-exps. Does not know which of its operators will run.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from longgen.attention import plans
from longgen.attention.engine import Engine
from longgen.types import FrameWindow, Plan


def fmha() -> Any:
    """xformers' attention module. Its import-time warning is left to `longgen doctor`, which shows the self-test."""
    logger = logging.getLogger("xformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        from xformers.ops import fmha as module
    finally:
        logger.setLevel(before)
    return module


class Xformers(Engine):
    """memory_efficient_attention_partial, which returns the log-sum-exp."""

    name = "xformers"
    package = "xformers"
    module = "xformers"
    hint = "pip install xformers"

    def kernel(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        out, lse = fmha().memory_efficient_attention_partial(q, k, v, scale=scale * q.shape[-1] ** -0.5)
        return out, lse[..., : q.shape[1]]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        if not isinstance(plan, FrameWindow) or any(a == b for a, b in plan.spans):
            return super().attend(q, k, v, plan, scale)
        plans.check(plan, q.shape[1], k.shape[1])
        batch, rows, heads, d = q.shape
        bias = window_bias(plan, batch, k.shape[1], q.device)
        flat = (x.reshape(1, -1, heads, d) for x in (q, k, v))
        out, lse = fmha().memory_efficient_attention_partial(*flat, attn_bias=bias, scale=scale * d**-0.5)
        return out.reshape(q.shape), lse.reshape(heads, batch, rows).transpose(0, 1)


@lru_cache(maxsize=16)
def window_bias(plan: FrameWindow, batch: int, keys: int, device: torch.device) -> Any:
    """The plan, once per batch entry, as a BlockDiagonalGappyKeysMask over flattened [1, B·S] tokens."""
    queries, starts, lengths = plans.varlen(plan, batch, keys)
    kind = fmha().attn_bias.BlockDiagonalGappyKeysMask
    return kind.from_seqlens(q_seqlen=queries, kv_seqstarts=[*starts, batch * keys], kv_seqlen=lengths, device=device)
