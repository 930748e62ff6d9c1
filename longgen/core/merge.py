"""Attention over a union of disjoint key sets, from attention over each of them. Knows outputs and log-sum-exps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Part = tuple[Tensor, Tensor]


def merge(parts: Sequence[Part]) -> Part:
    """out = Σ e^(lseᵢ − lse)·outᵢ, lse = log Σ e^lseᵢ.

    Args:
        parts: (out [B, S, N, D], lse [B, N, S]) of each key set. lse −∞ stands for an empty set.

    Returns:
        out in the dtype of the first part (summed in fp32) and lse. A query that sees no key in any part gets out 0 and
        lse −∞.
    """
    if len(parts) == 1:
        return parts[0]
    first = parts[0][0]
    every = torch.stack([lse for _, lse in parts])  # [parts, B, N, S]
    lse = torch.logsumexp(every, 0)
    # e^(−∞ − −∞) would be NaN where nothing is seen at all; any finite reference gives weight 0 there.
    weights = torch.exp(every - torch.where(torch.isinf(lse), 0.0, lse)).transpose(2, 3).unsqueeze(-1)
    out = sum(w * o for w, (o, _) in zip(weights, parts))
    assert isinstance(out, Tensor)
    return out.to(first.dtype), lse
