"""Torch's own attention kernels, called by name so that nothing is left to a dispatcher that hides the log-sum-exp.

Knows the aten operators and their limits. Does not know plans beyond handing them to `plans.run`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from longgen.attention import plans
from longgen.attention.engine import EVERY_PLAN, Engine
from longgen.types import Plan, TokenDecay

ops = torch.ops.aten

# Scores that the math fallback holds at a time (B·N·rows·Sk elements): 64 MB in fp32, whatever the length.
MATH_BUDGET = 1 << 24


def _scale(q: Tensor, scale: float) -> float:
    return float(scale * q.shape[-1] ** -0.5)


def cpu(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Flash attention on the CPU. `bias` [B, 1 | N, 1 | Sq, Sk] is added to the logits."""
    heads = (x.transpose(1, 2) for x in (q, k, v))
    out, lse = ops._scaled_dot_product_flash_attention_for_cpu(*heads, attn_mask=bias, scale=_scale(q, scale))
    return out.transpose(1, 2), lse


def flash(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """FlashAttention 2 as built into torch: fp16 and bf16, sm80 or newer."""
    heads = (x.transpose(1, 2) for x in (q, k, v))
    out, lse, *_ = ops._scaled_dot_product_flash_attention(*heads, scale=_scale(q, scale))
    return out.transpose(1, 2), lse


def cudnn(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """cuDNN's fused attention: fp16 and bf16, fastest of torch's own on sm90."""
    heads = (x.transpose(1, 2) for x in (q, k, v))
    out, lse, *_ = ops._scaled_dot_product_cudnn_attention(*heads, None, True, scale=_scale(q, scale))
    return out.transpose(1, 2), lse.reshape(q.shape[0], q.shape[2], q.shape[1])


def efficient(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Memory-efficient attention as built into torch: also fp32 and older GPUs."""
    heads = (x.transpose(1, 2) for x in (q, k, v))
    if bias is not None:  # the kernel reads rows of 16 at a time
        spare = -bias.shape[-1] % 16
        bias = F.pad(bias, (0, spare))[..., : bias.shape[-1]].expand(q.shape[0], q.shape[2], q.shape[1], -1)
    out, lse, *_ = ops._scaled_dot_product_efficient_attention(*heads, bias, True, scale=_scale(q, scale))
    return out.transpose(1, 2), lse[..., : q.shape[1]]  # the kernel pads the log-sum-exp to a multiple of 32


def math(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    bias: Tensor | None = None,
    edit: Callable[[Tensor, int], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Plain matrix products and a softmax in fp32, a bounded number of query rows at a time. Runs anywhere.

    `edit`, given logits [B, N, rows, Sk] and the first of their rows, changes them.
    """
    kind = plans.wide(q.dtype)
    kh, vh = k.permute(0, 2, 3, 1).to(kind), v.transpose(1, 2).to(kind)  # [B, N, D, Sk], [B, N, Sk, D]
    rows = max(1, MATH_BUDGET // max(1, q.shape[0] * q.shape[2] * k.shape[1]))
    outs, lses = list[Tensor](), list[Tensor]()
    for part in q.transpose(1, 2).split(rows, 2):  # [B, N, rows, D]
        logits = (part.to(kind) * _scale(q, scale)) @ kh
        logits = logits if bias is None else logits + bias
        logits = logits if edit is None else edit(logits, sum(x.shape[2] for x in lses))
        lse = logits.logsumexp(-1)
        outs.append((logits - lse.unsqueeze(-1)).exp_() @ vh)
        lses.append(lse)
    return torch.cat(outs, 2).transpose(1, 2).to(q.dtype), torch.cat(lses, 2)


def auto(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The fastest of torch's kernels that takes these tensors."""
    if q.device.type == "cpu":
        return cpu(q, k, v, scale)
    if q.device.type != "cuda":
        return math(q, k, v, scale)
    half = q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] % 8 == 0
    major = torch.cuda.get_device_capability(q.device)[0] if torch.version.hip is None else 0
    if half and q.shape[-1] <= 128 and major >= 9:
        return cudnn(q, k, v, scale)
    if half and q.shape[-1] <= 256 and major >= 8:
        return flash(q, k, v, scale)
    aligned = q.shape[-1] % (8 if half else 4) == 0 and q.dtype != torch.float64
    return efficient(q, k, v, scale) if aligned and major >= 5 else math(q, k, v, scale)


def masked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Dense attention where some keys are absent.

    Args:
        q: [B, Sq, N, D]; k, v: [B, L, N, D].
        mask: [B, L] bool, True where the key exists. An entry without any key gets out 0 and lse −∞.
    """
    bias = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, float("-inf"))[:, None, None]  # [B, 1, 1, L]
    bias = torch.where(mask.any(-1)[:, None, None, None], bias, 0.0)  # an all-−∞ row would be NaN
    if q.device.type == "cpu":
        out, lse = cpu(q, k, v, scale, bias)
    elif q.device.type == "cuda" and q.dtype != torch.float64 and q.shape[-1] % 8 == 0:
        out, lse = efficient(q, k, v, scale, bias)
    else:
        out, lse = math(q, k, v, scale, bias)
    seen = mask.any(-1)[:, None, None]
    return torch.where(seen.unsqueeze(-1), out, 0.0), torch.where(seen, lse, float("-inf"))


def attend(q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Attention under a plan by torch's own kernels.

    Args:
        q: [B, Sq, N, D]; k, v: [B, Sk, N, D].
        plan: which keys a query sees.
        scale: multiplies the logits beside 1/√D.

    Returns:
        out [B, Sq, N, D], lse [B, N, Sq]: natural log of the softmax denominator of the scaled logits, in fp32.
    """
    return Sdpa().attend(q, k, v, plan, scale)


class Sdpa(Engine):
    """The best of torch's kernels for each call."""

    name = "sdpa"
    devices = frozenset({"cpu", "cuda", "mps", "xpu"})
    dtypes = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
    head_dims = "any size"
    sm = 0
    supports = EVERY_PLAN | {TokenDecay}
    kernel = staticmethod(auto)

    def head_dim(self, d: int) -> bool:
        return True

    def attend(self, q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        if isinstance(plan, TokenDecay):
            return math(q, k, v, scale, edit=lambda logits, first: plans.decayed(logits, plan, first))
        return super().attend(q, k, v, plan, scale)


class SdpaMath(Sdpa):
    """Chunked matrix products: slow, exact, everywhere."""

    name = "sdpa-math"
    kernel = staticmethod(math)


class SdpaFlash(Engine):
    """Torch's FlashAttention 2."""

    name = "sdpa-flash"
    kernel = staticmethod(flash)


class SdpaCudnn(Engine):
    """cuDNN's fused attention."""

    name = "sdpa-cudnn"
    head_dims = "multiples of 8 up to 128"
    kernel = staticmethod(cudnn)

    def head_dim(self, d: int) -> bool:
        return d % 8 == 0 and d <= 128


class SdpaEfficient(Engine):
    """Torch's memory-efficient attention, for fp32 and older GPUs."""

    name = "sdpa-efficient"
    sm = 50
    dtypes = frozenset({torch.float16, torch.bfloat16, torch.float32})
    kernel = staticmethod(efficient)
