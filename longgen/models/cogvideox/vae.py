"""Exact streaming decode of CogVideoX's causal VAE in constant memory.

The decoder takes two latents at a time, the first time three, and carries the tails of its convolutions over. Its norms
span a batch in time, so the batches are part of the arithmetic and not free. A decoder call on one latent would make
one frame of it, and a first call on two would make eight; so a clip that does not fill its last batch repeats its last
latent there, and the surplus frames are cut. Knows the VAE only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor


def without_first(chunks: Iterable[Tensor], count: int) -> Iterator[Tensor]:
    """The stream without its first `count` latents."""
    for piece in chunks:
        kept = piece[:, :, count:]
        count = max(0, count - piece.shape[2])
        if kept.shape[2]:
            yield kept


def batches(chunks: Iterable[Tensor], size: int) -> Iterator[tuple[Tensor, int]]:
    """Pieces [1, C, t, H, W] of any lengths → (batch, latents in it that count): size + 1 latents, then size each."""
    held: Tensor | None = None
    want = size + 1
    for piece in chunks:
        held = piece if held is None else torch.cat([held, piece], dim=2)
        while held.shape[2] >= want:
            yield held[:, :, :want], want
            held, want = held[:, :, want:], size
    have = 0 if held is None else held.shape[2]
    if held is not None and have:
        single = have == 1 and want > size  # a picture
        missing = 0 if single else want - have
        yield torch.cat([held, held[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2), have


@dataclass
class Tile:
    """A spatial part of the latents and what its decoder remembers of the frames before."""

    rows: slice
    columns: slice
    cache: Any = None

    def decode(self, vae: AutoencoderKLCogVideoX, z: Tensor) -> Tensor:
        """z [1, C, t, H, W] → [1, 3, f, h, w]."""
        x = z[..., self.rows, self.columns]
        if vae.post_quant_conv is not None:
            x = vae.post_quant_conv(x)
        x, kept = vae.decoder(x, conv_cache=self.cache)
        self.cache = needed(kept)
        return x


def needed(cache: Any) -> Any:
    """A decoder's memory without that of its norms' convolutions, which look at one frame and remember all they saw."""
    if not isinstance(cache, dict):
        return cache
    return {name: needed(part) for name, part in cache.items() if name not in {"conv_y", "conv_b"}}


def tiles(vae: AutoencoderKLCogVideoX, height: int, width: int) -> list[list[Tile]]:
    """Rows of tiles as `enable_tiling` sets them, overlapping; one tile when tiling is off or the latents are small."""
    tall, wide = vae.tile_latent_min_height, vae.tile_latent_min_width
    if not vae.use_tiling or (height <= tall and width <= wide):
        return [[Tile(slice(None), slice(None))]]
    down, right = int(tall * (1 - vae.tile_overlap_factor_height)), int(wide * (1 - vae.tile_overlap_factor_width))
    return [
        [Tile(slice(i, i + tall), slice(j, j + wide)) for j in range(0, width, right)] for i in range(0, height, down)
    ]


def join(vae: AutoencoderKLCogVideoX, parts: list[list[Tensor]]) -> Tensor:
    """Decoded tiles [1, 3, f, h, w] cross-faded over their overlaps with those above and to the left."""
    if len(parts) == len(parts[0]) == 1:
        return parts[0][0]
    fade_v = int(vae.tile_sample_min_height * vae.tile_overlap_factor_height)
    fade_h = int(vae.tile_sample_min_width * vae.tile_overlap_factor_width)
    down, right = vae.tile_sample_min_height - fade_v, vae.tile_sample_min_width - fade_h
    for i, row in enumerate(parts):
        for j in range(len(row)):
            if i > 0:
                row[j] = vae.blend_v(parts[i - 1][j], row[j], fade_v)
            if j > 0:
                row[j] = vae.blend_h(row[j - 1], row[j], fade_h)
    return torch.cat([torch.cat([part[..., :down, :right] for part in row], dim=-1) for row in parts], dim=-2)


@torch.no_grad()
def stream_decode(
    vae: AutoencoderKLCogVideoX, chunks: Iterable[Tensor], device: torch.device | None = None
) -> Iterator[Tensor]:
    """Final latents [1, C, t, H, W] in order → frames [f, 3, height, width] in [0, 1], fp32, as they come.

    T latents make (T − 1)·4 + 1 frames. For odd T they are those of `vae.decode`.

    Args:
        device: where the VAE runs, if offloading keeps its weights elsewhere.
    """
    plan: list[list[Tile]] = []
    ratio = int(vae.config.temporal_compression_ratio)
    for i, (batch, count) in enumerate(batches(chunks, vae.num_latent_frames_batch_size)):
        z = 1 / vae.config.scaling_factor * batch.to(device or vae.device, vae.dtype)
        plan = plan or tiles(vae, *z.shape[-2:])
        x = join(vae, [[tile.decode(vae, z) for tile in row] for row in plan])
        frames = count * ratio if i else (count - 1) * ratio + 1
        yield (x[0, :, :frames].float().clamp(-1, 1) / 2 + 0.5).transpose(0, 1)
