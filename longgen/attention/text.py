"""Text keys in joint models, where text and video share one softmax.

Knows text keys and batched windows. Does not know which part of a model they come from.
"""

from __future__ import annotations

from torch import Tensor

from longgen.attention.sdpa import masked
from longgen.core.merge import merge
from longgen.errors import BadInput
from longgen.types import Attend, Dense, Plan


def with_text(attend: Attend, text_k: Tensor, text_v: Tensor, mask: Tensor | None = None) -> Attend:
    """An attend whose every query also sees the text, in one softmax with the video keys of its plan.

    Args:
        attend: serves the video part.
        text_k, text_v: [B, L, N, D]; always visible, at scale 1 whatever the scale of the video part.
        mask: [B, L], True where a text token is real; None means all of them. With a mask, the text part runs on
            torch's kernels whatever the engine, as most engines take no mask.

    Returns:
        attend(q, k, v, plan, scale). Where q's batch is B·nW (windows flattened into the batch, B-major), the windows
        of an entry all see that entry's text.

    Raises:
        BadInput: q's batch is no multiple of the text's.
    """
    batch = text_k.shape[0]

    def text_part(q: Tensor) -> tuple[Tensor, Tensor]:
        return attend(q, text_k, text_v, Dense(), 1.0) if mask is None else masked(q, text_k, text_v, mask)

    def joint(q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        if q.shape[0] % batch:
            raise BadInput(f"{q.shape[0]} batched windows cannot share the text of {batch} videos evenly")
        windows, tokens = q.shape[0] // batch, q.shape[1]
        out, lse = text_part(q.reshape(batch, windows * tokens, *q.shape[2:]))
        out = out.reshape(q.shape)
        lse = lse.unflatten(2, (windows, tokens)).transpose(1, 2).flatten(0, 1)  # [B, N, nW·s] → [B·nW, N, s]
        return merge([attend(q, k, v, plan, scale), (out, lse)])

    return joint
