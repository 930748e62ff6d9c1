"""Patches on a HunyuanVideo transformer: attention processors change, modules never do.

Video and text share every attention, video first. Under a patch, video queries see what their route allows of the video
and all words in one softmax; words see everything, once, so that there is a single text stream whatever the route.
Knows HunyuanVideoTransformer3DModel's processors. Does not know guidance or schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers import HunyuanVideoTransformer3DModel
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

from longgen.attention.text import with_text
from longgen.core.rope import thetas
from longgen.models import opaque
from longgen.models.patching import Part, Processor, Stage, video_attention
from longgen.types import Attend, Dense, Patch, Rope, Rotate, Site

Heads = tuple[Tensor, Tensor, Tensor]  # q, k, v [B, ·, N, D]


@dataclass
class Positions:
    """Temporal angles under a patch; height and width keep the model's own."""

    patch: Patch
    rope: Rope
    frames: int = 0
    theta: Tensor = field(init=False)

    def __post_init__(self) -> None:
        theta = thetas(self.rope)
        self.theta = theta if self.patch.freqs is None else self.patch.freqs(theta)

    def place(self, frames: int) -> None:
        """Ready for calls of `frames` latents."""
        self.frames = frames

    def rotation(self, rotary: Part, tokens: int) -> Callable[..., Tensor]:
        """`rotate(x [1, S, N, D], positions=None)` of one forward, given the model's (cos, sin), each [S, D]."""
        here = torch.arange(rotary[0].shape[0] // tokens, dtype=torch.float64)
        if self.patch.positions is not None:
            here = self.patch.positions(here).double().cpu()
        patched = self.patch.freqs is not None or self.patch.positions is not None
        placed = self._retimed(rotary, here, tokens) if patched else rotary

        def rotate(x: Tensor, positions: Tensor | None = None) -> Tensor:
            tables = placed if positions is None else self._retimed(rotary, positions.double().cpu(), tokens)
            return apply_rotary_emb(x, tables, sequence_dim=1)

        return rotate

    def _retimed(self, rotary: Part, positions: Tensor, tokens: int) -> Part:
        """The model's tables of one frame at other positions [T']; every angle stands twice, time first."""
        angles = torch.outer(positions, self.theta).repeat_interleave(2, dim=1)  # [T', dim]
        cos, sin = (
            torch.cat(
                [
                    turned.to(table)[:, None].expand(-1, tokens, -1),
                    table[:tokens, angles.shape[1] :].expand(len(positions), -1, -1),
                ],
                dim=2,
            ).flatten(0, 1)
            for table, turned in zip(rotary, (angles.cos(), angles.sin()), strict=True)
        )
        return cos, sin


@dataclass
class JointProcessor(Processor):
    """What stands in for HunyuanVideoAttnProcessor2_0 in one block, dual-stream or single-stream."""

    positions: Positions = field(kw_only=True)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor,
        image_rotary_emb: Part,
    ) -> tuple[Tensor, Tensor]:
        video, text = heads(attn, hidden_states), words(attn, encoder_hidden_states)
        real = attention_mask[:, 0, 0, hidden_states.shape[1] :]  # [B, L]
        seen, said = opaque.run(self, [*video, *text, real, *image_rotary_emb], like=[0, 3])
        return project_out(attn, seen.type_as(hidden_states), said.type_as(encoder_hidden_states))

    def compute(self, *tensors: Tensor) -> Part:
        """Outputs [B, ·, N, D] of video and words; those of padding are zero, and nobody reads them."""
        video, text, real, rotary = tensors[:3], tensors[3:6], tensors[6], (tensors[7], tensors[8])
        rows, said = [], torch.zeros_like(text[0])
        for b, site in enumerate(self.stage.sites):
            mine, used = slice(b, b + 1), real[b]
            tq, tk, tv = (x[mine, used] for x in text)
            q, k, v = (x[mine] for x in video)
            rotate = self.positions.rotation(rotary, site.tokens)
            here = replace(site, layer=self.layer, text=tq.shape[1])
            rows.append(self._video(here, (q, k, v), rotate, tk, tv))
            keys, values = torch.cat([rotate(k), tk], dim=1), torch.cat([v, tv], dim=1)
            said[mine, used] = self.stage.attend(tq, keys, values, Dense())[0].type_as(said)
        return torch.cat(rows), said

    def _video(self, site: Site, video: Heads, rotate: Rotate, text_k: Tensor, text_v: Tensor) -> Tensor:
        def joint(attend: Attend) -> Attend:
            return with_text(attend, text_k, text_v)

        return video_attention(self.patch, site, *video, rotate, self.stage.attend, joint)


def heads(attn: Any, hidden: Tensor) -> Heads:
    """Video tokens [B, S, C], or all tokens of a single-stream block, as normed queries, keys and values."""
    q, k, v = (project(hidden).unflatten(2, (attn.heads, -1)) for project in (attn.to_q, attn.to_k, attn.to_v))
    return normed(attn.norm_q, q), normed(attn.norm_k, k), v


def words(attn: Any, hidden: Tensor) -> Heads:
    """Text tokens [B, L, C]: by projections of their own in dual-stream blocks, else by the video's."""
    if attn.add_q_proj is None:
        return heads(attn, hidden)
    projections = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
    q, k, v = (project(hidden).unflatten(2, (attn.heads, -1)) for project in projections)
    return normed(attn.norm_added_q, q), normed(attn.norm_added_k, k), v


def normed(norm: Any, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


def project_out(attn: Any, video: Tensor, text: Tensor) -> Part:
    """[B, ·, N, D] → [B, ·, C]; single-stream blocks project after their feed-forward part, not here."""
    seen, said = video.flatten(2, 3), text.flatten(2, 3)
    if getattr(attn, "to_out", None) is not None:
        for module in attn.to_out:
            seen = module(seen)
    if getattr(attn, "to_add_out", None) is not None:
        said = attn.to_add_out(said)
    return seen, said


@contextmanager
def installed(
    transformer: HunyuanVideoTransformer3DModel, patch: Patch, stage: Stage, rope: Rope
) -> Iterator[Positions]:
    """Puts processors in place and takes them off again, whatever happens inside. Layers count both kinds of blocks."""
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    positions = Positions(patch, rope)
    kept = [block.attn.processor for block in blocks]
    try:
        for layer, block in enumerate(blocks):
            block.attn.processor = JointProcessor(stage, patch, layer, positions=positions)
        yield positions
    finally:
        for block, own in zip(blocks, kept, strict=True):
            block.attn.processor = own
