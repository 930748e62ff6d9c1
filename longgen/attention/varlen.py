"""Torch's variable-length attention: all windows of all batch entries in one call, over keys that overlap.

`cu_seq_k` holds where each window's keys start and `seqused_k` how many there are; the kernel reads nothing else, so
the windows may overlap. Knows this convention. Does not know other plans: they run as one block per batch entry.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from longgen.attention import plans
from longgen.attention.engine import Engine
from longgen.types import FrameWindow, Plan

Blocks = tuple[Tensor, Tensor, Tensor, int, int]


class Varlen(Engine):
    """torch.nn.attention.varlen.varlen_attn with `seqused_k`."""

    name = "varlen"

    def available(self, device: torch.device) -> str | None:
        try:
            from torch.nn.attention import varlen
        except ImportError:
            return f"torch {torch.__version__} has no torch.nn.attention.varlen (2.12 or newer has it)"
        if "seqused_k" not in varlen.varlen_attn.__annotations__:
            return f"varlen_attn of torch {torch.__version__} has no seqused_k (2.12 or newer has it)"
        return super().available(device)

    def kernel(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        return self._call(q, k, v, _blocks(None, q.shape[0], q.shape[1], k.shape[1], q.device), scale)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        if not isinstance(plan, FrameWindow) or any(a == b for a, b in plan.spans):
            return super().attend(q, k, v, plan, scale)
        plans.check(plan, q.shape[1], k.shape[1])
        return self._call(q, k, v, _blocks(plan, q.shape[0], q.shape[1], k.shape[1], q.device), scale)

    def _call(self, q: Tensor, k: Tensor, v: Tensor, blocks: Blocks, scale: float) -> tuple[Tensor, Tensor]:
        from torch.nn.attention import varlen

        batch, rows, heads, d = q.shape
        cu_q, starts, used, max_q, max_k = blocks
        qf, kf, vf = (x.flatten(0, 1) for x in (q, k, v))
        aux = varlen.AuxRequest(lse=True)
        out, lse = varlen.varlen_attn(
            qf, kf, vf, cu_q, starts, max_q, max_k, return_aux=aux, scale=scale * d**-0.5, seqused_k=used
        )
        # The kernel gives lse as [N, B·Sq], whatever the function's docstring says.
        return out.view(q.shape), lse.reshape(heads, batch, rows).transpose(0, 1)


@lru_cache(maxsize=32)
def _blocks(plan: FrameWindow | None, batch: int, rows: int, keys: int, device: torch.device) -> Blocks:
    """cu_seq_q [n + 1], starts of the keys [n + 1], used keys [n], longest block of queries and of keys.

    Without a plan, a batch entry is one block.
    """
    if plan is None:
        queries, starts, lengths = [rows] * batch, [b * keys for b in range(batch)], [keys] * batch
    else:
        queries, starts, lengths = plans.varlen(plan, batch, keys)
    made = (torch.tensor([0, *queries]).cumsum(0), torch.tensor([*starts, batch * keys]), torch.tensor(lengths))
    cu_q, first, used = (x.to(device, torch.int32) for x in made)
    return cu_q, first, used, max(queries), max(lengths)
