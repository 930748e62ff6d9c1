"""Patches on an LTX-Video transformer: attention processors change, modules never do.

Rotation covers the whole inner width before the split into heads: channel pair 3j + a turns with axis a (0 is time),
behind a few pairs that do not turn. Knows LTXVideoTransformer3DModel's processors. Does not know guidance or schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.models.transformers.transformer_ltx import apply_rotary_emb
from torch import Tensor

from longgen.core.rope import thetas
from longgen.models.patching import Part, Processor, Stage, project_out, text_attention, video_attention
from longgen.types import Patch, Rope


def text_mask(tokens: Tensor) -> Tensor:
    """[B, L] of 1 for words and 0 for padding, which `encode` left as zero rows."""
    return tokens.ne(0).any(dim=-1).to(tokens.dtype)


@dataclass
class Coordinates:
    """Temporal angles under a patch, per call length. Positions count latents; LTX turns by seconds.

    Args:
        width: inner width of the transformer.
        seconds: when latents are, from their positions.
    """

    patch: Patch
    width: int
    seconds: Callable[[Tensor], Tensor]
    frames: int = 0
    theta: Tensor = field(init=False)
    own: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.own = thetas(Rope("coords", 2 * (self.width // 6)))
        self.theta = self.own if self.patch.freqs is None else self.patch.freqs(self.own)

    def place(self, frames: int) -> None:
        """Ready for calls of `frames` latents."""
        self.frames = frames

    def rotation(
        self, rotary: Part, tokens: int, own: Callable[[Tensor], Tensor] = lambda table: table
    ) -> Callable[..., Tensor]:
        """`rotate(x [1, S, N, D], positions=None)` of one forward, given the model's (cos, sin), each [1, S, width]."""
        patched = self.patch.freqs is not None or self.patch.positions is not None
        here = torch.arange(self.frames, dtype=torch.float64)
        if self.patch.positions is not None:
            here = self.patch.positions(here).double().cpu()
        placed = self._retimed(rotary, here, tokens) if patched else rotary

        def rotate(x: Tensor, positions: Tensor | None = None) -> Tensor:
            tables = placed if positions is None else self._retimed(rotary, positions.double().cpu(), tokens)
            return apply_rotary_emb(x.flatten(2), (own(tables[0]), own(tables[1]))).unflatten(2, x.shape[2:])

        return rotate

    def _retimed(self, rotary: Part, positions: Tensor, tokens: int) -> Part:
        """The model's tables of one frame, with time turned by θ·seconds at other positions [T']."""
        angles = torch.outer(self.seconds(positions), self.theta) - self.own * 10.0  # phase w·π/2·(2x − 1), 10 s at 0
        skipped = (self.width % 6) // 2
        columns = skipped + 3 * torch.arange(len(self.theta))  # pairs that turn with time
        tables = []
        for table, f in zip(rotary, (torch.cos, torch.sin), strict=True):
            frame = (
                table[:1, :tokens].expand(len(positions), -1, -1).unflatten(2, (-1, 2)).clone()
            )  # [T', P, width/2, 2]
            frame[:, :, columns] = f(angles).to(table)[:, None, :, None]
            tables.append(frame.flatten(2).flatten(0, 1)[None])
        return tables[0], tables[1]


@dataclass
class SelfProcessor(Processor):
    """For `attn1`."""

    coordinates: Coordinates = field(kw_only=True)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Part | None = None,
    ) -> Tensor:
        assert image_rotary_emb is not None
        q, k, v = heads(attn, hidden_states, hidden_states)
        return project_out(attn, self.rows(q, k, v, *image_rotary_emb), q.dtype)

    def compute(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor) -> Sequence[Tensor]:
        rows, count = [], q.shape[2]
        q, k, v = self.stage.inside(q, k, v)

        def own(table: Tensor) -> Tensor:
            """The channels of a table that turn this process's heads."""
            return self.stage.heads(table.unflatten(2, (count, -1)))[0].flatten(2)

        for b, site in enumerate(self.stage.sites):
            mine, here = slice(b, b + 1), replace(site, layer=self.layer)
            rotate = self.coordinates.rotation((cos[mine], sin[mine]), site.tokens, own)
            rows.append(video_attention(self.patch, here, q[mine], k[mine], v[mine], rotate, self.stage.attend))
        return (self.stage.outside(torch.cat(rows)),)


@dataclass
class CrossProcessor(Processor):
    """For `attn2`; hands plain rows to the processor that it replaced."""

    inner: Any = field(kw_only=True)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Part | None = None,
    ) -> Tensor:
        assert encoder_hidden_states is not None
        if self.patch.cross is None and self.stage.plain:
            return self.inner(attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb)
        q, k, v = heads(attn, hidden_states, encoder_hidden_states)
        return project_out(attn, self.rows(q, k, v), q.dtype)

    def compute(self, q: Tensor, k: Tensor, v: Tensor) -> Sequence[Tensor]:
        (q,), (k, v) = self.stage.inside(q), self.stage.heads(k, v)
        rows = []
        for b, (site, text) in enumerate(zip(self.stage.sites, self.stage.texts, strict=True)):
            used, here, mine = text.tokens.shape[1], replace(site, layer=self.layer), slice(b, b + 1)
            words = text_mask(text.tokens)[0].bool()
            rows.append(
                text_attention(
                    self.patch, here, text, q[mine], k[mine, :used], v[mine, :used], self.stage.attend, words
                )
            )
        return (self.stage.outside(torch.cat(rows)),)


def heads(attn: Any, hidden: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of `hidden` [B, S, C], keys and values of `context`, normed over the whole width: [B, ·, N, D]."""
    q, k, v = attn.norm_q(attn.to_q(hidden)), attn.norm_k(attn.to_k(context)), attn.to_v(context)
    return q.unflatten(2, (attn.heads, -1)), k.unflatten(2, (attn.heads, -1)), v.unflatten(2, (attn.heads, -1))


@contextmanager
def installed(
    transformer: LTXVideoTransformer3DModel,
    patch: Patch,
    stage: Stage,
    attention: bool,
    seconds: Callable[[Tensor], Tensor],
    own: type[SelfProcessor] = SelfProcessor,
    cross: type[CrossProcessor] = CrossProcessor,
) -> Iterator[Coordinates]:
    """Puts processors in place and takes them off again, whatever happens inside.

    Other frequencies or positions act in self-attention: the model makes its tables inside its forward.
    """
    attention = attention or patch.freqs is not None or patch.positions is not None
    blocks = transformer.transformer_blocks
    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    coordinates = Coordinates(patch, width, seconds)
    kept = [(block.attn1.processor, block.attn2.processor) for block in blocks]
    try:
        for layer, block in enumerate(blocks):
            if attention:
                block.attn1.processor = own(stage, patch, layer, coordinates=coordinates)
            block.attn2.processor = cross(stage, patch, layer, inner=block.attn2.processor)
        yield coordinates
    finally:
        for block, before in zip(blocks, kept, strict=True):
            block.attn1.processor, block.attn2.processor = before
