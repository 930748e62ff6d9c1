"""Patches on a Wan transformer: attention processors and rotary tables change, modules never do.

Knows WanTransformer3DModel's processors and rope buffers. Does not know guidance, schedules or solvers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import _get_qkv_projections
from torch import Tensor

from longgen.models.patching import Part, Processor, Stage, project_out, text_attention, video_attention
from longgen.types import Dense, Patch


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
class SelfProcessor(Processor):
    """For `attn1`; hands whole videos to the processor that it replaced where no hook is to act."""

    theta: Tensor = field(kw_only=True)
    inner: Any = field(kw_only=True)
    hooked: bool = field(kw_only=True)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        whole = self.whole(hidden_states)
        if not self.hooked:
            out: Tensor = self.inner(attn, whole, encoder_hidden_states, attention_mask, rotary_emb)
            return out.reshape(hidden_states.shape)
        assert rotary_emb is not None
        q, k, v = heads(attn, whole, None)  # [B, S, N, D]
        return project_out(attn, self.rows(q, k, v, *rotary_emb), q.dtype).reshape(hidden_states.shape)

    def compute(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor) -> Sequence[Tensor]:
        q, k, v = self.stage.inside(q, k, v)
        rows = []
        for site, qb, kb, vb in zip(self.stage.sites, q.split(1), k.split(1), v.split(1), strict=True):
            rotate, here = rotation((cos, sin), site.tokens, self.theta), replace(site, layer=self.layer)
            rows.append(video_attention(self.patch, here, qb, kb, vb, rotate, self.stage.attend))
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
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        whole = self.whole(hidden_states)
        if self.patch.cross is None and self.stage.plain:
            given: Tensor = self.inner(attn, whole, encoder_hidden_states, attention_mask, rotary_emb)
            return given.reshape(hidden_states.shape)
        assert encoder_hidden_states is not None
        longest = self.stage.words
        seen, words = encoder_hidden_states.split([encoder_hidden_states.shape[1] - longest, longest], dim=1)
        q, k, v = heads(attn, whole, words)
        out = self.rows(q, k, v)
        if seen.shape[1]:
            out = out + self._image(attn, q, seen).type_as(out)
        return project_out(attn, out, q.dtype).reshape(hidden_states.shape)

    def _image(self, attn: Any, q: Tensor, seen: Tensor) -> Tensor:
        """Attention to CLIP's tokens [B, n, C] of the image, which stands beside that to the text. [B, S, N, D]."""
        k, v = attn.norm_added_k(attn.add_k_proj(seen)), attn.add_v_proj(seen)
        return self.stage.attend(q, k.unflatten(2, (attn.heads, -1)), v.unflatten(2, (attn.heads, -1)), Dense())[0]

    def compute(self, q: Tensor, k: Tensor, v: Tensor) -> Sequence[Tensor]:
        (q,), (k, v) = self.stage.inside(q), self.stage.heads(k, v)
        rows = []
        for b, (site, text) in enumerate(zip(self.stage.sites, self.stage.texts, strict=True)):
            used = text.tokens.shape[1]  # rows with fewer texts were padded to the longest
            here, mine = replace(site, layer=self.layer), slice(b, b + 1)
            rows.append(
                text_attention(self.patch, here, text, q[mine], k[mine, :used], v[mine, :used], self.stage.attend)
            )
        return (self.stage.outside(torch.cat(rows)),)


def heads(attn: Any, hidden: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of `hidden` [B, S, C], keys and values of `context` or of itself, normed and split: [B, ·, N, D]."""
    q, k, v = _get_qkv_projections(attn, hidden, context)
    q, k, v = (x.unflatten(2, (attn.heads, -1)) for x in (attn.norm_q(q), attn.norm_k(k), v))
    return q, k, v


@dataclass
class Tables:
    """A transformer's rotary tables under a patch; its own ones come back as the very same objects."""

    transformer: WanTransformer3DModel
    patch: Patch
    built: dict[int, Part] = field(default_factory=dict)
    own: Part = field(init=False)
    theta: Tensor = field(init=False)

    def __post_init__(self) -> None:
        rope = self.transformer.rope
        self.own = (rope.freqs_cos, rope.freqs_sin)
        theta = 1.0 / 10_000.0 ** (torch.arange(0, rope.t_dim, 2, dtype=torch.float64) / rope.t_dim)
        self.theta = theta if self.patch.freqs is None else self.patch.freqs(theta)

    def place(self, frames: int) -> None:
        """Sets the tables for calls of `frames` latents (a positions patch may depend on the length)."""
        if self.patch.freqs is None and self.patch.positions is None:
            return
        if frames not in self.built:
            self.built[frames] = self._build(frames)
        self._set(self.built[frames])

    def restore(self) -> None:
        self._set(self.own)

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
def latents_as_batch(transformer: WanTransformer3DModel) -> Iterator[None]:
    """Inside, blocks take every latent as an entry of the batch, [B·T, P, C], with timesteps [B·T].

    So levels of their own are embedded, and modulate, latent by latent, as the blocks do it for videos; token by token
    there would be P times as much of both. Processors bring the latents of a video together again.
    """

    def fold(module: Any, args: Any, out: Tensor) -> Tensor:
        return out.transpose(1, 2).flatten(0, 1).unsqueeze(2)  # [B, C, T, h, w] → [B·T, C, 1, h, w]

    handle = transformer.patch_embedding.register_forward_hook(fold)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def installed(transformer: WanTransformer3DModel, patch: Patch, stage: Stage, attention: bool) -> Iterator[Tables]:
    """Puts processors in place and takes them off again, whatever happens inside.

    Args:
        attention: whether hooks and the engine serve self-attention; without it the processors in place do.
    """
    tables = Tables(transformer, patch)
    places = blocks_of(transformer, patch)
    kept = [(block.attn1.processor, block.attn2.processor) for _, block, _ in places]
    try:
        for layer, block, worn in places:
            block.attn1.processor = SelfProcessor(
                stage, worn, layer, theta=tables.theta, inner=block.attn1.processor, hooked=attention
            )
            block.attn2.processor = CrossProcessor(stage, worn, layer, inner=block.attn2.processor)
        yield tables
    finally:
        for (_, block, _), (own, cross) in zip(places, kept, strict=True):
            block.attn1.processor, block.attn2.processor = own, cross
        tables.restore()


def blocks_of(transformer: Any, patch: Patch) -> list[tuple[int, Any, Patch]]:
    """(layer, block, what it wears) of all blocks; those of a VACE control branch count as the layers that they feed.

    A control block holds the same latents at the same positions beside the same texts, so routes, logits and text hooks
    act there too. Shared keys and values do not: they would show one window the control of another.
    """
    main = [(layer, block, patch) for layer, block in enumerate(transformer.blocks)]
    if not hasattr(transformer, "vace_blocks"):
        return main
    beside = zip(transformer.config.vace_layers, transformer.vace_blocks, strict=True)
    return main + [(layer, block, replace(patch, kv=None)) for layer, block in beside]
