"""Streaming decode of HunyuanVideo's VAE: the tiles that its own temporal tiling decodes, one at a time.

The decoder looks back over the whole of what it is given (causal attention, norms over time), so its result depends on
the tiling; diffusers decodes tiles of 5 latents every 3 and fades 4 frames between them. The same tiles in order need
the latents of one tile and the last frames of the one before. Knows the VAE only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch import Tensor


@torch.no_grad()
def stream_decode(vae: AutoencoderKLHunyuanVideo, chunks: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Final latents [1, C, t, H, W] in order → frames [f, 3, height, width] in [0, 1], fp32, equal to `vae.decode`.

    A clip of up to one tile is decoded at once, and so is any clip where `use_framewise_decoding` was switched off.
    """
    size, stride = (n // vae.temporal_compression_ratio for n in (vae.tile_sample_min_num_frames, _stride(vae)))
    held: Tensor | None = None  # latents from the next tile on
    before: Tensor | None = None  # the last frames of the tile before
    for chunk in chunks:
        z = chunk.to(device, vae.dtype) / vae.config.scaling_factor
        held = z if held is None else torch.cat([held, z], dim=2)
        while vae.use_framewise_decoding and held.shape[2] > size:
            shown, before = _tile(vae, held[:, :, : size + 1], before)
            held = held[:, :, stride:]
            yield _frames(shown)
    if held is None:
        return
    if before is None:
        yield _frames(_decode(vae, held))
        return
    while held.shape[2] > 0:
        shown, before = _tile(vae, held, before)
        held = held[:, :, stride:]
        if shown.shape[2] > 0:  # a tile of one latent only repeats the end of the tile before
            yield _frames(shown)


def _stride(vae: AutoencoderKLHunyuanVideo) -> int:
    return int(vae.tile_sample_stride_num_frames)


def _tile(vae: AutoencoderKLHunyuanVideo, z: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
    """(frames [1, 3, f, h, w] that a tile shows, the end that fades into the next tile)."""
    fade = vae.tile_sample_min_num_frames - _stride(vae)
    decoded = _decode(vae, z)
    if before is None:
        return decoded[:, :, : _stride(vae) + 1], decoded[:, :, -fade:].clone()
    faded = vae.blend_t(before, decoded[:, :, 1:], fade)  # a first latent makes one frame, not four
    return faded[:, :, : _stride(vae)], faded[:, :, -fade:].clone()


def _decode(vae: AutoencoderKLHunyuanVideo, z: Tensor) -> Tensor:
    """One tile in time, in spatial tiles where they are switched on and it is large."""
    ratio = vae.spatial_compression_ratio
    tall, wide = vae.tile_sample_min_height // ratio, vae.tile_sample_min_width // ratio
    if vae.use_tiling and (z.shape[-2] > tall or z.shape[-1] > wide):
        return vae.tiled_decode(z).sample
    return vae.decoder(vae.post_quant_conv(z))


def _frames(decoded: Tensor) -> Tensor:
    return (decoded[0].transpose(0, 1).float() / 2 + 0.5).clamp(0, 1)
