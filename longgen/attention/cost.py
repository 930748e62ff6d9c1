"""What a plan costs: query-key pairs and FLOPs by formula, and a counter to check them against.

Knows plans. Does not know kernels, nor the rest of a model (see `runtime.cost.forward_flops`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from longgen.types import Dense, FrameWindow, Plan, TokenDecay, Union


def pairs(plan: Plan, queries: int, keys: int) -> int:
    """How many (query token, key token) pairs are seen, of queries · keys.

    >>> pairs(FrameWindow(10, ((0, 2), (0, 2), (1, 3))), 30, 30)
    600
    """
    if isinstance(plan, Dense | TokenDecay):
        return queries * keys
    if isinstance(plan, Union):
        return sum(pairs(part, queries, keys) for part in plan.parts)
    seen = [b - a for a, b in plan.spans] if isinstance(plan, FrameWindow) else [len(s) for s in plan.sets]
    return sum(seen) * plan.tokens**2


def flops(plan: Plan, queries: int, keys: int, heads: int, head_dim: int, batch: int = 1) -> int:
    """4·D per pair and head: QKᵀ and the weighted sum of V, a multiply-add counting as two."""
    return 4 * batch * heads * head_dim * pairs(plan, queries, keys)


def counter() -> FlopCounterMode:
    """Torch's FLOP counter, taught the CPU's flash kernel, which it does not know by itself."""

    def cpu_flash(q: Any, k: Any, v: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
        return int(sdpa_flop_count(q, k, v))

    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={kernel: cpu_flash})
