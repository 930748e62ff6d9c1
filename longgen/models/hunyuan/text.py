"""One tensor per text: CLIP's pooled vector in the first rows, then Llama's word embeddings, padding as zero rows.

So a text can be kept, padded, batched and blended as one thing, and its mask and pooled vector go with it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def pack(pooled: Tensor, words: Tensor, mask: Tensor) -> Tensor:
    """pooled [1, p], words [1, L, D], mask [1, L] of 0 and 1 → [1, ⌈p/D⌉ + L, D].

    >>> import torch
    >>> text = pack(torch.ones(1, 3), torch.full((1, 2, 2), 5.0), torch.tensor([[1, 0]]))
    >>> text.tolist()
    [[[1.0, 1.0], [1.0, 0.0], [5.0, 5.0], [0.0, 0.0]]]
    """
    width = words.shape[-1]
    head = pad(pooled.to(words.dtype), (0, -pooled.shape[-1] % width)).unflatten(1, (-1, width))
    return torch.cat([head, words * mask[..., None].to(words.dtype)], dim=1)


def unpack(text: Tensor, pooled: int) -> tuple[Tensor, Tensor, Tensor]:
    """[B, ⌈p/D⌉ + L, D] → pooled vectors [B, p], words [B, L, D], mask [B, L] bool."""
    rows = -(-pooled // text.shape[-1])
    words = text[:, rows:]
    return text[:, :rows].flatten(1)[:, :pooled], words, words.ne(0).any(dim=-1)
