"""Exact streaming decode of Wan's causal VAE in constant memory.

The decoder carries a feature cache over time, so a clip can be decoded in pieces with the same result. Its first call
must take exactly one latent; later calls may take any number. With spatial tiling every tile carries a cache of its
own, and time stays outermost. Knows the VAE only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from torch import Tensor


def rechunk(chunks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """[1, C, t, H, W] pieces of any lengths → one latent, then pieces of `size` latents, then the remainder."""
    held: list[Tensor] = []
    want = 1
    for chunk in chunks:
        held.append(chunk)
        while (have := sum(piece.shape[2] for piece in held)) >= want:
            joined = held[0] if len(held) == 1 else torch.cat(held, dim=2)
            yield joined[:, :, :want]
            held = [joined[:, :, want:]] if have > want else []
            want = size
    if held:
        yield torch.cat(held, dim=2)


def denormalise(vae: AutoencoderKLWan, z: Tensor) -> Tensor:
    """The transformer's latents → the VAE's: z·std + mean per channel, as WanPipeline does it."""
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1, 1).to(z.device, z.dtype)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return z / (1.0 / std) + mean


def normalise(vae: AutoencoderKLWan, z: Tensor) -> Tensor:
    """The VAE's latents → the transformer's: (z − mean)/std per channel, as WanImageToVideoPipeline does it."""
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1, 1).to(z.device, z.dtype)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return (z - mean) * (1.0 / std)


@dataclass
class Tile:
    """A spatial part of the latents and what its decoder remembers of the frames before."""

    rows: slice
    columns: slice
    cache: list[Tensor | str | None] = field(default_factory=list)

    def decode(self, vae: AutoencoderKLWan, z: Tensor, first: bool) -> Tensor:
        """z [1, C, t, H, W] → [1, c, f, h, w], still patchified."""
        self.cache = self.cache or [None] * vae._cached_conv_counts["decoder"]
        x = vae.post_quant_conv(z[..., self.rows, self.columns])
        return vae.decoder(x, feat_cache=self.cache, feat_idx=[0], first_chunk=first)


def tiles(vae: AutoencoderKLWan, height: int, width: int) -> list[list[Tile]]:
    """Rows of tiles as `enable_tiling` sets them, overlapping; one tile when tiling is off or the latents are small."""
    ratio = vae.spatial_compression_ratio
    tall, wide = vae.tile_sample_min_height // ratio, vae.tile_sample_min_width // ratio
    if not vae.use_tiling or (height <= tall and width <= wide):
        return [[Tile(slice(None), slice(None))]]
    down, right = vae.tile_sample_stride_height // ratio, vae.tile_sample_stride_width // ratio
    return [
        [Tile(slice(i, i + tall), slice(j, j + wide)) for j in range(0, width, right)] for i in range(0, height, down)
    ]


def join(vae: AutoencoderKLWan, parts: list[list[Tensor]], height: int, width: int) -> Tensor:
    """Decoded tiles [1, c, f, h, w] cross-faded over their overlaps with those above and to the left."""
    if len(parts) == len(parts[0]) == 1:
        return parts[0][0]
    patch = vae.config.patch_size or 1
    down, right = vae.tile_sample_stride_height // patch, vae.tile_sample_stride_width // patch
    fade = (vae.tile_sample_min_height // patch - down, vae.tile_sample_min_width // patch - right)
    rows = []
    for i, row in enumerate(parts):
        for j, part in enumerate(row):
            if i > 0:
                part = vae.blend_v(parts[i - 1][j], part, fade[0])
            if j > 0:
                part = vae.blend_h(row[j - 1], part, fade[1])
            row[j] = part
        rows.append(torch.cat([part[..., :down, :right] for part in row], dim=-1))
    scale = vae.spatial_compression_ratio // patch
    return torch.cat(rows, dim=-2)[..., : height * scale, : width * scale]


@torch.no_grad()
def stream_decode(
    vae: AutoencoderKLWan, chunks: Iterable[Tensor], chunk: int = 1, device: torch.device | None = None
) -> Iterator[Tensor]:
    """Final latents [1, C, t, H, W] in order → frames [f, 3, height, width] in [0, 1], fp32, as they come.

    Args:
        chunk: latents per decoder call after the first, ≥ 1. The result does not depend on it (≤ 1e-5).
        device: where the VAE runs, if offloading keeps its weights elsewhere.
    """
    hook = getattr(vae, "_hf_hook", None)  # offloading moves the VAE in before its decode(), which is not called here
    if hook is not None:
        hook.pre_forward(vae)
    plan: list[list[Tile]] = []
    for i, piece in enumerate(rechunk(chunks, chunk)):
        z = denormalise(vae, piece.to(device or vae.device, vae.dtype))
        plan = plan or tiles(vae, *z.shape[-2:])
        x = join(vae, [[tile.decode(vae, z, i == 0) for tile in row] for row in plan], *z.shape[-2:])
        if vae.config.patch_size is not None:
            x = unpatchify(x, patch_size=vae.config.patch_size)
        yield (x[0].float().clamp(-1, 1) / 2 + 0.5).transpose(0, 1)
