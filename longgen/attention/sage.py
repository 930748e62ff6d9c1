"""SageAttention 2: int8 queries and keys (arXiv 2411.10958). Dense only, and lossy, so `auto` never picks it.

It quantises every batch entry anew: overlapping windows would be quantised once per window, so it refuses them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from longgen.attention.engine import Engine
from longgen.types import Dense


class Sage(Engine):
    """sageattention.sageattn with its log-sum-exp."""

    name = "sage"
    package = "sageattention"
    module = "sageattention"
    hint = "2.1.1 or newer, built from source: PyPI has 1.0.6 only"
    head_dims = "64, 96 or 128"
    supports = frozenset({Dense})
    tolerance = 4.0

    def head_dim(self, d: int) -> bool:
        return d in (64, 96, 128)

    def available(self, device: torch.device) -> str | None:
        found = self.version
        if found is not None and found.startswith(("0.", "1.")):
            return f"sageattention {found} gives no log-sum-exp ({self.hint})"
        return super().available(device)

    def kernel(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        from sageattention import sageattn

        scale = scale * q.shape[-1] ** -0.5
        out, lse = sageattn(q, k, v, tensor_layout="NHD", is_causal=False, sm_scale=scale, return_lse=True)
        return out, lse
