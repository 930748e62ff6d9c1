"""The flash-attn package, generations 2 and 3. Windows are batches with overlapping strides, as with torch's kernels.

Knows where the two generations live and what they return. Does not install or download them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from longgen.attention.engine import Engine


class Flash2(Engine):
    """flash_attn.flash_attn_func (arXiv 2307.08691)."""

    name = "flash2"
    package = "flash-attn"
    module = "flash_attn"
    hint = "pip install 'longgen[flash]'; PyPI has its source only, so it compiles"

    def kernel(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        from flash_attn import flash_attn_func

        out, lse, *_ = flash_attn_func(q, k, v, softmax_scale=scale * q.shape[-1] ** -0.5, return_attn_probs=True)
        return out, lse[..., : q.shape[1]]


class Flash3(Engine):
    """flash_attn_interface.flash_attn_func (arXiv 2407.08608), for Hopper."""

    name = "flash3"
    package = "flash-attn-3"
    module = "flash_attn_interface"
    hint = "wheels are on PyTorch's own index; it needs a Hopper GPU"
    sm = 90

    def available(self, device: torch.device) -> str | None:
        reason = super().available(device)
        if reason is None and device.type == "cuda" and torch.cuda.get_device_capability(device)[0] != 9:
            return "FlashAttention 3 runs on Hopper (sm90) only"
        return reason

    def kernel(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        from flash_attn_interface import flash_attn_func

        out, lse, *_ = flash_attn_func(q, k, v, softmax_scale=scale * q.shape[-1] ** -0.5, return_attn_probs=True)
        return out, lse
