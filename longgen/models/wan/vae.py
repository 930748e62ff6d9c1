"""Exact streaming decode and encode of Wan's causal VAE in constant memory.

Decoder and encoder carry a feature cache over time, so a clip can pass in pieces with the same result. The decoder's
first call must take exactly one latent; later calls may take any number. The encoder takes one frame, then as many as a
latent covers. With spatial tiling every tile carries a cache of its own, and time stays outermost. Knows the VAE only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import patchify, unpatchify
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
    """A spatial part of the latents or frames and what its decoder or encoder remembers of the frames before."""

    rows: slice
    columns: slice
    cache: list[Tensor | str | None] = field(default_factory=list)

    def decode(self, vae: AutoencoderKLWan, z: Tensor, first: bool) -> Tensor:
        """z [1, C, t, H, W] → [1, c, f, h, w], still patchified."""
        self.cache = self.cache or [None] * vae._cached_conv_counts["decoder"]
        x = vae.post_quant_conv(z[..., self.rows, self.columns])
        return vae.decoder(x, feat_cache=self.cache, feat_idx=[0], first_chunk=first)

    def encode(self, vae: AutoencoderKLWan, x: Tensor) -> Tensor:
        """x [1, c, f, h, w], patchified, f = 1 at first → the mean of the posterior [1, C, 1, ·, ·]."""
        self.cache = self.cache or [None] * vae._cached_conv_counts["encoder"]
        out = vae.encoder(x[..., self.rows, self.columns], feat_cache=self.cache, feat_idx=[0])
        return vae.quant_conv(out).chunk(2, dim=1)[0]


def tiles(vae: AutoencoderKLWan, height: int, width: int) -> list[list[Tile]]:
    """Rows of latent tiles as `enable_tiling` sets them, overlapping; one when tiling is off or the video is small."""
    ratio = vae.spatial_compression_ratio
    size = (vae.tile_sample_min_height // ratio, vae.tile_sample_min_width // ratio)
    step = (vae.tile_sample_stride_height // ratio, vae.tile_sample_stride_width // ratio)
    return cut(height, width, size, step, vae.use_tiling and (height > size[0] or width > size[1]))


def cut(height: int, width: int, size: tuple[int, int], step: tuple[int, int], tiled: bool) -> list[list[Tile]]:
    """Tiles of `size`, `step` apart."""
    if not tiled:
        return [[Tile(slice(None), slice(None))]]
    return [
        [Tile(slice(i, i + size[0]), slice(j, j + size[1])) for j in range(0, width, step[1])]
        for i in range(0, height, step[0])
    ]


def join(vae: AutoencoderKLWan, parts: list[list[Tensor]], height: int, width: int) -> Tensor:
    """Decoded tiles [1, c, f, h, w], cross-faded, as frames of height × width latents."""
    patch = vae.config.patch_size or 1
    scale = vae.spatial_compression_ratio // patch
    return crossfaded(vae, parts, patch)[..., : height * scale, : width * scale]


def crossfaded(vae: AutoencoderKLWan, parts: list[list[Tensor]], divisor: int) -> Tensor:
    """Tiles [1, c, f, h, w] faded over their overlaps with those above and to the left; 1/`divisor` of pixel size."""
    if len(parts) == len(parts[0]) == 1:
        return parts[0][0]
    down, right = vae.tile_sample_stride_height // divisor, vae.tile_sample_stride_width // divisor
    fade = (vae.tile_sample_min_height // divisor - down, vae.tile_sample_min_width // divisor - right)
    rows = []
    for i, row in enumerate(parts):
        for j, part in enumerate(row):
            if i > 0:
                part = vae.blend_v(parts[i - 1][j], part, fade[0])
            if j > 0:
                part = vae.blend_h(row[j - 1], part, fade[1])
            row[j] = part
        rows.append(torch.cat([part[..., :down, :right] for part in row], dim=-1))
    return torch.cat(rows, dim=-2)


@torch.no_grad()
def stream_encode(
    vae: AutoencoderKLWan, frames: Iterable[Tensor], device: torch.device | None = None
) -> Iterator[Tensor]:
    """n·stride + 1 frames [3, height, width] in [−1, 1] → the transformer's latents, fp32, one by one [1, C, 1, h, w].

    What `encode(whole clip).latent_dist.mode()` gives, normalised.

    Args:
        device: where the VAE runs, if offloading keeps its weights elsewhere.
    """
    source, count, plan = iter(frames), 1, list[list[Tile]]()
    while piece := list(islice(source, count)):
        x = torch.stack(piece, dim=1)[None].to(device or vae.device, vae.dtype)  # [1, 3, f, height, width]
        plan = plan or _frame_tiles(vae, *x.shape[-2:])
        if vae.config.patch_size is not None:
            x = patchify(x, patch_size=vae.config.patch_size)
        # Tiles are as large in patchified frames as in plain ones, as diffusers' tiled_encode has it.
        divisor = vae.spatial_compression_ratio // (vae.config.patch_size or 1)
        parts = [[tile.encode(vae, x) for tile in row] for row in plan]
        size = [side // divisor for side in x.shape[-2:]]
        yield normalise(vae, crossfaded(vae, parts, divisor)[..., : size[0], : size[1]].float())
        count = vae.config.scale_factor_temporal


def _frame_tiles(vae: AutoencoderKLWan, height: int, width: int) -> list[list[Tile]]:
    """Rows of tiles of frames of this size in pixels, as `tiles` of latents."""
    size = (vae.tile_sample_min_height, vae.tile_sample_min_width)
    step = (vae.tile_sample_stride_height, vae.tile_sample_stride_width)
    patch = vae.config.patch_size or 1
    return cut(height // patch, width // patch, size, step, vae.use_tiling and (height > size[0] or width > size[1]))


def memory(vae: AutoencoderKLWan) -> int:
    """Latents after which the encoder has forgotten a frame: each cached convolution remembers two of its own steps."""
    return 2 * vae._cached_conv_counts["encoder"]


@torch.no_grad()
def stream_decode(
    vae: AutoencoderKLWan, chunks: Iterable[Tensor], chunk: int = 1, device: torch.device | None = None
) -> Iterator[Tensor]:
    """Final latents [1, C, t, H, W] in order → frames [f, 3, height, width] in [0, 1], fp32, as they come.

    Args:
        chunk: latents per decoder call after the first, ≥ 1. The result does not depend on it (≤ 1e-5).
        device: where the VAE runs, if offloading keeps its weights elsewhere.
    """
    plan: list[list[Tile]] = []
    for i, piece in enumerate(rechunk(chunks, chunk)):
        z = denormalise(vae, piece.to(device or vae.device, vae.dtype))
        plan = plan or tiles(vae, *z.shape[-2:])
        x = join(vae, [[tile.decode(vae, z, i == 0) for tile in row] for row in plan], *z.shape[-2:])
        if vae.config.patch_size is not None:
            x = unpatchify(x, patch_size=vae.config.patch_size)
        yield (x[0].float().clamp(-1, 1) / 2 + 0.5).transpose(0, 1)
