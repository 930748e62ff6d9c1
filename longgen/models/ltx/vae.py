"""Exact streaming decode of LTX's VAE: its decoder looks a bounded distance both ways, so pieces with a halo suffice.

Latents [a − h, b + h) are decoded, and of the result the frames of [a, b) are kept: frame j of a piece that begins at
latent s is frame 8·s + j of the video. With h at least the decoder's reach nothing differs from decoding the whole; the
decoder's own temporal tiling (diffusers 0.42.1) is one frame late and is not used. Knows the VAE only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor


def reach(vae: AutoencoderKLLTXVideo) -> int:
    """h: latents on either side that can change a latent's frames, counted from the decoder's modules.

    A temporal convolution of three taps reaches one step of its own resolution both ways, a causal one two steps back.
    """
    rate, total = 1.0, 1.0  # conv_in
    for block in [vae.decoder.mid_block, *vae.decoder.up_blocks]:
        if getattr(block, "conv_in", None) is not None:
            total += 2 / rate
        for upsampler in getattr(block, "upsamplers", None) or []:
            total += 1 / rate
            rate *= upsampler.stride[0]
        total += 2 * len(getattr(block, "resnets", None) or []) / rate
    total += 1 / rate  # conv_out
    return math.ceil(2 * total if vae.config.decoder_causal else total)


def denormalise(vae: AutoencoderKLLTXVideo, z: Tensor) -> Tensor:
    """The transformer's latents → the VAE's, as LTXPipeline does it."""
    mean, std = (v.view(1, -1, 1, 1, 1).to(z.device, z.dtype) for v in (vae.latents_mean, vae.latents_std))
    return z * std / vae.config.scaling_factor + mean


def normalise(vae: AutoencoderKLLTXVideo, z: Tensor) -> Tensor:
    """The VAE's latents → the transformer's, as LTXImageToVideoPipeline does it."""
    mean, std = (v.view(1, -1, 1, 1, 1).to(z.device, z.dtype) for v in (vae.latents_mean, vae.latents_std))
    return (z - mean) * vae.config.scaling_factor / std


@torch.no_grad()
def stream_decode(
    vae: AutoencoderKLLTXVideo, chunks: Iterable[Tensor], chunk: int, device: torch.device
) -> Iterator[Tensor]:
    """Frames [f, 3, height, width] in [0, 1] as soon as enough later latents are there.

    Args:
        chunk: latents that become frames per decoder call, at least; the halo makes small ones wasteful, so pieces are
            at least as long as the halo.
    """
    halo = reach(vae)
    size = max(chunk, halo)
    held: Tensor | None = None  # latents from `start` on
    start = done = 0  # first latent held; latents decoded so far
    for piece in chunks:
        piece = piece.to(device)
        held = piece if held is None else torch.cat([held, piece], dim=2)
        while start + held.shape[2] - done >= size + halo:
            yield _frames(vae, held, start, done, done + size)
            done += size
            cut = max(0, done - halo) - start
            held, start = held[:, :, cut:], start + cut
    if held is not None and start + held.shape[2] > done:
        yield _frames(vae, held, start, done, start + held.shape[2])


def _frames(vae: AutoencoderKLLTXVideo, held: Tensor, start: int, first: int, last: int) -> Tensor:
    """Frames of latents [first, last), decoded with all that is held around them."""
    ratio, halo = vae.temporal_compression_ratio, reach(vae)
    stop = min(last + halo, start + held.shape[2])
    z = denormalise(vae, held[:, :, : stop - start]).to(vae.dtype)
    temb = torch.zeros(1, device=z.device, dtype=z.dtype) if vae.config.timestep_conditioning else None
    decoded = vae.decoder(z, temb)[0]  # [3, (stop − start − 1)·ratio + 1, h, w]; frame j is 8·start + j of the video
    begin = 0 if first == 0 else (first - 1) * ratio + 1 - start * ratio
    end = (last - 1) * ratio + 1 - start * ratio
    return (decoded[:, begin:end].transpose(0, 1).float() / 2 + 0.5).clamp(0, 1)
