"""Patches on a Wan transformer: attention processors and rotary tables change, modules never do.

`Stage` travels beside the forward, because blocks hand their processors no call geometry. Each row of the batch is one
job with its own site, so hooks see single videos [1, S, N, D] whatever the batch.

Knows WanTransformer3DModel's processors and rope buffers. Does not know guidance, schedules or solvers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import _get_qkv_projections
from torch import Tensor

from longgen.attention import merge
from longgen.models.texts import TextPlan
from longgen.types import Attend, Dense, Patch, Site

Part = tuple[Tensor, Tensor]


@dataclass
class Stage:
    """The forward in progress: one site (of layer 0) and one text plan per batch row. Filled by the denoiser."""

    attend: Attend
    sites: tuple[Site, ...] = ()
    texts: tuple[TextPlan, ...] = ()


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates channel pairs (2j, 2j+1) of x [B, S, N, D] by angles given as cos, sin [1, S, 1, D/2]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).type_as(x)


def rotation(rotary: tuple[Tensor, Tensor], tokens: int, theta: Tensor) -> Callable[..., Tensor]:
    """`rotate(x, positions=None)` of one forward.

    Args:
        rotary: the model's own (cos, sin), each [1, S, 1, D] with every angle twice.
        tokens: P.
        theta: frequencies [dim/2] of the temporal axis, fp64.
    """
    cos, sin = (table[..., 0::2] for table in rotary)

    def rotate(x: Tensor, positions: Tensor | None = None) -> Tensor:
        if positions is None:
            return rotate_pairs(x, cos, sin)
        angles = torch.outer(positions.double().cpu(), theta)  # [T', dim/2]
        return rotate_pairs(x, *(_retimed(base, f(angles), tokens) for base, f in ((cos, torch.cos), (sin, torch.sin))))

    return rotate


def _retimed(base: Tensor, temporal: Tensor, tokens: int) -> Tensor:
    """[1, T'·P, 1, D/2]: the spatial angles of one frame with other temporal ones."""
    frames = temporal.shape[0]
    temporal = temporal.to(base.device, base.dtype)[:, None].expand(-1, tokens, -1)  # [T', P, dim/2]
    spatial = base[0, :tokens, 0, temporal.shape[-1] :].expand(frames, -1, -1)  # [T', P, D/2 − dim/2]
    return torch.cat([temporal, spatial], dim=-1).flatten(0, 1)[None, :, None]


@dataclass
class SelfProcessor:
    """Stands in for WanAttnProcessor in `attn1` of one block."""

    stage: Stage
    patch: Patch
    layer: int
    theta: Tensor
    _attention_backend: Any = None
    _parallel_config: Any = None

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        assert rotary_emb is not None
        q, k, v = heads(attn, hidden_states, hidden_states)  # [B, S, N, D]
        rows = [
            self._row(replace(site, layer=self.layer), q[b : b + 1], k[b : b + 1], v[b : b + 1], rotary_emb)
            for b, site in enumerate(self.stage.sites)
        ]
        return project_out(attn, torch.cat(rows), q.dtype)

    def _row(self, site: Site, q: Tensor, k: Tensor, v: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        patch, attend = self.patch, self.stage.attend
        rotate = rotation(rotary, site.tokens, self.theta)
        if patch.kv is not None:
            k, v = patch.kv(site, k, v)
        if patch.logits is not None:
            attend = patch.logits(site, attend)
        if patch.attention is not None:
            return patch.attention(site, q, k, v, rotate, attend)
        return attend(rotate(q), rotate(k), v, Dense())[0]


@dataclass
class CrossProcessor:
    """Stands in for WanAttnProcessor in `attn2` of one block; hands plain rows to the processor that it replaced."""

    stage: Stage
    patch: Patch
    layer: int
    inner: Any
    _attention_backend: Any = None
    _parallel_config: Any = None

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        if self.patch.cross is None and all(text.plain for text in self.stage.texts):
            return self.inner(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
        assert encoder_hidden_states is not None
        q, k, v = heads(attn, hidden_states, encoder_hidden_states)
        rows = []
        for b, (site, text) in enumerate(zip(self.stage.sites, self.stage.texts, strict=True)):
            used = text.tokens.shape[1]  # rows with fewer texts are padded to the longest
            row = replace(site, layer=self.layer)
            rows.append(self._row(row, text, q[b : b + 1], k[b : b + 1, :used], v[b : b + 1, :used]))
        return project_out(attn, torch.cat(rows), q.dtype)

    def _row(self, site: Site, text: TextPlan, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ks, vs = k.chunk(text.count, dim=1), v.chunk(text.count, dim=1)
        if text.plain:
            return self._attend(site, q, k, v)[0]
        if text.penalties is not None:
            # A penalty is constant over a text's tokens, so it acts on that part's log-sum-exp.
            parts = [self._attend(site, q, kj, vj) for kj, vj in zip(ks, vs, strict=True)]
            cost = text.penalties.to(q.device).repeat_interleave(site.tokens, dim=0)  # [S, m]
            return merge([(out, lse - cost[:, j]) for j, (out, lse) in enumerate(parts)])[0].type_as(q)
        out = torch.empty_like(q)
        index = torch.tensor(text.at(site.layer, site.layers), device=q.device)  # [T]
        split = q.unflatten(1, (-1, site.tokens))  # [1, T, P, N, D]
        for j, (kj, vj) in enumerate(zip(ks, vs, strict=True)):
            mine = (index == j).nonzero().flatten()
            if len(mine):
                part = self._attend(subset(site, mine), split[:, mine].flatten(1, 2), kj, vj)[0]
                out.unflatten(1, (-1, site.tokens))[:, mine] = part.unflatten(1, (-1, site.tokens))
        return out

    def _attend(self, site: Site, q: Tensor, k: Tensor, v: Tensor) -> Part:
        if self.patch.cross is not None:
            return self.patch.cross(site, q, k, v, self.stage.attend)
        return self.stage.attend(q, k, v, Dense())


def subset(site: Site, index: Tensor) -> Site:
    """The site of some of its latents [n]."""
    level = site.level if site.level.uniform else site.level[index.cpu()]
    frames = tuple(site.frames[i] for i in index.tolist())
    return replace(site, level=level, frames=frames, grid=(len(frames), *site.grid[1:]))


def heads(attn: Any, hidden: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of `hidden` [B, S, C], keys and values of `context`, normed and split: [B, ·, N, D]."""
    q, k, v = _get_qkv_projections(attn, hidden, None if context is hidden else context)
    q, k, v = (x.unflatten(2, (attn.heads, -1)) for x in (attn.norm_q(q), attn.norm_k(k), v))
    return q, k, v


def project_out(attn: Any, out: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, S, N, D] → [B, S, C] through the output projection and its dropout."""
    hidden = out.flatten(2, 3).to(dtype)
    for module in attn.to_out:
        hidden = module(hidden)
    return hidden


@dataclass
class Installed:
    """A patch on one transformer, put on by `installed` and taken off with the very objects that were there."""

    transformer: WanTransformer3DModel
    patch: Patch
    tables: dict[int, Part] = field(default_factory=dict)
    own: Part = field(init=False)
    theta: Tensor = field(init=False)

    def __post_init__(self) -> None:
        rope = self.transformer.rope
        self.own = (rope.freqs_cos, rope.freqs_sin)
        theta = 1.0 / 10_000.0 ** (torch.arange(0, rope.t_dim, 2, dtype=torch.float64) / rope.t_dim)
        self.theta = theta if self.patch.freqs is None else self.patch.freqs(theta)

    def place(self, frames: int) -> None:
        """Sets the rotary tables for calls of `frames` latents (a positions patch may depend on the length)."""
        if self.patch.freqs is None and self.patch.positions is None:
            return
        if frames not in self.tables:
            self.tables[frames] = self._build(frames)
        self._set(self.tables[frames])

    def _build(self, frames: int) -> Part:
        positions = torch.arange(frames, dtype=torch.float64)
        if self.patch.positions is not None:
            positions = self.patch.positions(positions).double().cpu()
        angles = torch.outer(positions, self.theta).repeat_interleave(2, dim=1)  # [T, dim]
        cos, sin = (table.clone() for table in self.own)
        cos[:frames, : angles.shape[1]] = torch.cos(angles).to(cos)
        sin[:frames, : angles.shape[1]] = torch.sin(angles).to(sin)
        return cos, sin

    def _set(self, tables: Part) -> None:
        self.transformer.rope.freqs_cos, self.transformer.rope.freqs_sin = tables


@contextmanager
def installed(transformer: WanTransformer3DModel, patch: Patch, stage: Stage, attention: bool) -> Iterator[Installed]:
    """Puts processors in place and takes them off again, whatever happens inside.

    Args:
        attention: whether self-attention gets its processor too; without it only text attention does.
    """
    state = Installed(transformer, patch)
    kept = [(block.attn1.processor, block.attn2.processor) for block in transformer.blocks]
    try:
        for layer, block in enumerate(transformer.blocks):
            if attention:
                block.attn1.processor = SelfProcessor(stage, patch, layer, state.theta)
            block.attn2.processor = CrossProcessor(stage, patch, layer, block.attn2.processor)
        yield state
    finally:
        for block, (own, cross) in zip(transformer.blocks, kept, strict=True):
            block.attn1.processor, block.attn2.processor = own, cross
        state._set(state.own)
