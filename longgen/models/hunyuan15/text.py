"""One tensor per text: ByT5's embeddings of quoted words in the first rows, then Qwen's of all words.

Padding is zero rows, which the network never sees. So a text can be kept, padded, batched and blended as one thing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

Masked = tuple[Tensor, Tensor]  # embeddings [B, L, D], mask [B, L] bool


def pack(words: Tensor, mask: Tensor, glyphs: Tensor, glyph_mask: Tensor) -> Tensor:
    """words [1, L, D], glyphs [1, G, E], E ≤ D, and their masks of 0 and 1 → [1, G + L, D].

    >>> import torch
    >>> told = pack(torch.full((1, 2, 2), 5.0), torch.tensor([[1, 0]]), torch.ones(1, 1, 1), torch.tensor([[1]]))
    >>> told.tolist()
    [[[1.0, 0.0], [5.0, 5.0], [0.0, 0.0]]]
    """
    glyphs = pad(glyphs * glyph_mask[..., None], (0, words.shape[-1] - glyphs.shape[-1]))
    return torch.cat([glyphs, words * mask[..., None]], dim=1)


def unpack(text: Tensor, rows: int, width: int) -> tuple[Masked, Masked]:
    """[B, G + L, D] → words and glyphs, without what is padding in every row of the batch.

    Args:
        rows: G.
        width: E.
    """

    def used(x: Tensor) -> Masked:
        mask = x.ne(0).any(dim=-1)
        some = mask.any(dim=0)
        return x[:, some], mask[:, some]

    (words, seen), (glyphs, marked) = used(text[:, rows:]), used(text[:, :rows])
    return (words, seen), (glyphs[..., :width], marked)
