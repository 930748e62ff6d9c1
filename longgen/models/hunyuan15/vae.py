"""Exact streaming decode of HunyuanVideo-1.5's VAE, which diffusers decodes in one piece.

The decoder is causal: convolutions look back two frames, and one attention layer over all frames before. What they look
back on is kept here between pieces, so pieces give the whole decode; memory grows by that layer's keys and values, 2·C
numbers per latent pixel, instead of all activations and an S × S mask. Knows the VAE only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo15
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from longgen.models.wan.vae import rechunk


@dataclass
class Decoder:
    """One spatial tile's decoder and what its layers remember of the frames before."""

    own: Any
    before: dict[int, Tensor] = field(default_factory=dict)  # by layer
    first: bool = True

    def __call__(self, z: Tensor) -> Tensor:
        """z [1, C, t, H, W], the next latents → [1, 3, f, h, w]."""
        own = self.own
        x = self.conv(own.conv_in, z) + z.repeat_interleave(own.repeat, dim=1)
        x = self.resnet(own.mid_block.resnets[0], x)
        for attention, resnet in zip(own.mid_block.attentions, own.mid_block.resnets[1:], strict=True):
            x = self.resnet(resnet, x if attention is None else self.attention(attention, x))
        for block in own.up_blocks:
            for resnet in block.resnets:
                x = self.resnet(resnet, x)
            for upsampler in block.upsamplers or ():
                x = self.upsample(upsampler, x)
        x = self.conv(own.conv_out, own.conv_act(own.norm_out(x)))
        self.first = False
        return x

    def conv(self, layer: Any, x: Tensor) -> Tensor:
        """A causal convolution; before the first frame stands the first frame."""
        *space, back, _ = layer.time_causal_padding
        past = self.before.get(id(layer), x[:, :, :1].expand(-1, -1, back, -1, -1))
        x = torch.cat([past, x], dim=2)
        self.before[id(layer)] = x[:, :, x.shape[2] - back :].clone()
        return layer.conv(pad(x, (*space, 0, 0), mode=layer.pad_mode))

    def resnet(self, layer: Any, x: Tensor) -> Tensor:
        inner = self.conv(layer.conv1, layer.nonlinearity(layer.norm1(x)))
        inner = self.conv(layer.conv2, layer.nonlinearity(layer.norm2(inner)))
        return inner + (x if layer.conv_shortcut is None else layer.conv_shortcut(x))

    def attention(self, layer: Any, x: Tensor) -> Tensor:
        """Every frame on itself and all before, frame by frame."""
        normed, pixels = layer.norm(x), x.shape[-2] * x.shape[-1]
        q, kv = (y.flatten(2).transpose(1, 2) for y in (layer.to_q(normed), self._keys_and_values(layer, normed)))
        if id(layer) in self.before:
            kv = torch.cat([self.before[id(layer)], kv], dim=1)
        self.before[id(layer)] = kv
        k, v = kv.chunk(2, dim=-1)
        past = k.shape[1] - q.shape[1]
        rows = [
            scaled_dot_product_attention(q[:, a : a + pixels], k[:, : past + a + pixels], v[:, : past + a + pixels])
            for a in range(0, q.shape[1], pixels)
        ]
        return x + layer.proj_out(torch.cat(rows, dim=1).transpose(1, 2).unflatten(2, x.shape[2:]))

    @staticmethod
    def _keys_and_values(layer: Any, x: Tensor) -> Tensor:
        return torch.cat([layer.to_k(x), layer.to_v(x)], dim=1)

    def upsample(self, layer: Any, x: Tensor) -> Tensor:
        """Channels become pixels, and frames except at the clip's first."""
        inner = self.conv(layer.conv, x)
        if not layer.add_temporal_upsample:
            return _spread(layer, inner, 1) + _spread(layer, x.repeat_interleave(layer.repeats, dim=1), 1)
        start = 1 if self.first else 0
        parts = []
        if start:
            image = _spread(layer, inner[:, :, :1], 1)
            beside = _spread(layer, x[:, :, :1], 1).repeat_interleave(layer.repeats // 2, dim=1)
            parts.append(image[:, : image.shape[1] // 2] + beside)
        if x.shape[2] > start:
            beside = _spread(layer, x[:, :, start:], 2).repeat_interleave(layer.repeats, dim=1)
            parts.append(_spread(layer, inner[:, :, start:], 2) + beside)
        return torch.cat(parts, dim=2)


def _spread(layer: Any, x: Tensor, frames: int) -> Tensor:
    return layer._dcae_upsample_rearrange(x, r1=frames, r2=2, r3=2)


@dataclass
class Tile:
    """A spatial part of the latents and its decoder."""

    rows: slice
    columns: slice
    decoder: Decoder


def tiles(vae: AutoencoderKLHunyuanVideo15, height: int, width: int) -> list[list[Tile]]:
    """Rows of tiles as the VAE's own tiled decode lays them; one where tiling is off or the latents are small."""
    tall, wide = vae.tile_latent_min_height, vae.tile_latent_min_width
    if not vae.use_tiling or (height <= tall and width <= wide):
        return [[Tile(slice(None), slice(None), Decoder(vae.decoder))]]
    down, right = (int(size * (1 - vae.tile_overlap_factor)) for size in (tall, wide))
    return [
        [Tile(slice(i, i + tall), slice(j, j + wide), Decoder(vae.decoder)) for j in range(0, width, right)]
        for i in range(0, height, down)
    ]


def join(vae: AutoencoderKLHunyuanVideo15, parts: list[list[Tensor]]) -> Tensor:
    """Decoded tiles [1, 3, f, h, w] cross-faded over their overlaps with those above and to the left."""
    if len(parts) == len(parts[0]) == 1:
        return parts[0][0]
    tall, wide = vae.tile_sample_min_height, vae.tile_sample_min_width
    fades = [int(size * vae.tile_overlap_factor) for size in (tall, wide)]
    for i, row in enumerate(parts):
        for j, part in enumerate(row):  # blends write into the tile, as later ones expect
            if i > 0:
                vae.blend_v(parts[i - 1][j], part, fades[0])
            if j > 0:
                vae.blend_h(row[j - 1], part, fades[1])
    rows = [torch.cat([part[..., : tall - fades[0], : wide - fades[1]] for part in row], dim=-1) for row in parts]
    return torch.cat(rows, dim=-2)


@torch.no_grad()
def stream_decode(
    vae: AutoencoderKLHunyuanVideo15, chunks: Iterable[Tensor], chunk: int, device: torch.device
) -> Iterator[Tensor]:
    """Final latents [1, C, t, H, W] in order → frames [f, 3, height, width] in [0, 1], fp32, as they come.

    Args:
        chunk: latents per decoder call after the first, ≥ 1. The result does not depend on it (≤ 1e-5).
    """
    plan: list[list[Tile]] = []
    for piece in rechunk(chunks, chunk):
        z = piece.to(device, vae.dtype) / vae.config.scaling_factor
        plan = plan or tiles(vae, *z.shape[-2:])
        x = join(vae, [[tile.decoder(z[..., tile.rows, tile.columns]) for tile in row] for row in plan])
        yield (x[0].transpose(0, 1).float() / 2 + 0.5).clamp(0, 1)
