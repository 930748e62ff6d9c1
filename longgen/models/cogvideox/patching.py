"""Patches on a CogVideoX transformer: attention processors and the rotary argument change, modules never do.

Text tokens come first in one sequence with the video's. Hooks see video tokens; every video query's softmax also holds
the text keys, and text queries attend densely to everything, once. Knows CogVideoXTransformer3DModel's processors. Does
not know guidance or schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

from longgen.attention.text import with_text
from longgen.core.rope import thetas
from longgen.errors import BadInput
from longgen.models.patching import Part, Processor, Stage, video_attention
from longgen.types import Dense, ModelInfo, Patch, Rope


@dataclass
class Rotary:
    """Temporal angles under a patch. Positions count tokens: latents, or pairs of them in version 1.5."""

    patch: Patch
    rope: Rope
    unit: int
    frames: int = 0
    theta: Tensor = field(init=False)

    def __post_init__(self) -> None:
        own = thetas(self.rope)
        self.theta = own if self.patch.freqs is None else self.patch.freqs(own)

    def place(self, frames: int) -> None:
        """Ready for calls of `frames` latents."""
        self.frames = frames // self.unit

    def tables(self, own: Part, tokens: int) -> Part:
        """The pipeline's (cos, sin), each [S, D], or those of the patch."""
        if self.patch.freqs is None and self.patch.positions is None:
            return own
        positions = torch.arange(self.frames, dtype=torch.float64)
        if self.patch.positions is not None:
            positions = self.patch.positions(positions)
        return self._retimed(own, positions, tokens)

    def rotation(self, here: Part | None, tokens: int) -> Callable[..., Tensor]:
        """`rotate(x [1, S, N, D], positions=None)` of one forward with the tables `here`; None rotates nothing."""

        def rotate(x: Tensor, positions: Tensor | None = None) -> Tensor:
            if here is None:
                return x
            placed = here if positions is None else self._retimed(here, positions, tokens)
            return apply_rotary_emb(x, placed, sequence_dim=1)

        return rotate

    def _retimed(self, base: Part, positions: Tensor, tokens: int) -> Part:
        """Tables of one frame repeated, with time turned by θ at positions [T']: each [T'·P, D]."""
        angles = torch.outer(positions.double().cpu(), self.theta).repeat_interleave(2, dim=1)  # [T', dim]
        cos, sin = (
            torch.cat(
                [
                    turned.to(table)[:, None].expand(-1, tokens, -1),
                    table[:tokens, angles.shape[1] :].expand(len(angles), -1, -1),
                ],
                dim=-1,
            ).flatten(0, 1)
            for table, turned in zip(base, (torch.cos(angles), torch.sin(angles)), strict=True)
        )
        return cos, sin


@dataclass
class JointProcessor(Processor):
    """What stands in for CogVideoXAttnProcessor2_0 in one block."""

    rotary: Rotary = field(kw_only=True)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Part | None = None,
    ) -> tuple[Tensor, Tensor]:
        words = encoder_hidden_states.shape[1]
        q, k, v = heads(attn, torch.cat([encoder_hidden_states, hidden_states], dim=1))
        hidden = self.rows(q, k, v, encoder_hidden_states, *(image_rotary_emb or ())).flatten(2, 3).to(q.dtype)
        for module in attn.to_out:
            hidden = module(hidden)
        return hidden[:, words:], hidden[:, :words]

    def compute(self, q: Tensor, k: Tensor, v: Tensor, text: Tensor, *rotary: Tensor) -> Sequence[Tensor]:
        """[B, L + S, N, D], text first, for a text of [B, L, C]."""
        tables = (rotary[0], rotary[1]) if rotary else None
        attend, rows, words = self.stage.attend, list[Tensor](), text.shape[1]
        for site, *row in zip(self.stage.sites, q.split(1), k.split(1), v.split(1), strict=True):
            (text_q, q_), (text_k, k_), (text_v, v_) = ((x[:, :words], x[:, words:]) for x in row)
            rotate, here = self.rotary.rotation(tables, site.tokens), replace(site, layer=self.layer)

            def joint(inner: Any, text_k: Tensor = text_k, text_v: Tensor = text_v) -> Any:
                return with_text(inner, text_k, text_v)

            video = video_attention(self.patch, here, q_, k_, v_, rotate, attend, joint)
            said = attend(text_q, torch.cat([text_k, rotate(k_)], dim=1), row[2], Dense())[0]
            rows.append(torch.cat([said, video.to(said.dtype)], dim=1))
        return (torch.cat(rows),)


def heads(attn: Any, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of `hidden` [B, S, C], split into heads and normed: [B, S, N, D]."""
    q, k, v = (project(hidden).unflatten(2, (attn.heads, -1)) for project in (attn.to_q, attn.to_k, attn.to_v))
    if attn.norm_q is not None:
        q, k = attn.norm_q(q), attn.norm_k(k)
    return q, k, v


@contextmanager
def installed(
    transformer: CogVideoXTransformer3DModel, patch: Patch, stage: Stage, attention: bool, info: ModelInfo
) -> Iterator[Rotary]:
    """Puts processors in place and takes them off again, whatever happens inside.

    Args:
        attention: whether attention gets its processor; other frequencies and positions need none.

    Raises:
        BadInput: a patch of text attention, or of rotary positions where there are none.
    """
    if patch.cross is not None:
        raise BadInput(f"text attention cannot be patched: {info.refusals['cross_text']}")
    if "rope" in info.refusals and (patch.freqs is not None or patch.positions is not None):
        raise BadInput(f"rotary positions cannot be patched: {info.refusals['rope']}")
    rotary = Rotary(patch, info.rope, info.patch[0])
    blocks = transformer.transformer_blocks if attention else []
    kept = [block.attn1.processor for block in blocks]
    try:
        for layer, block in enumerate(blocks):
            block.attn1.processor = JointProcessor(stage, patch, layer, rotary=rotary)
        yield rotary
    finally:
        for block, own in zip(blocks, kept, strict=True):
            block.attn1.processor = own
