"""Exact streaming decode of Wan's causal VAE in constant memory.

The decoder carries a feature cache over time, so a clip can be decoded in pieces with the same result. Its first call
must take exactly one latent; later calls may take any number. Knows the VAE only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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


@torch.no_grad()
def stream_decode(vae: AutoencoderKLWan, chunks: Iterable[Tensor], chunk: int = 1) -> Iterator[Tensor]:
    """Final latents [1, C, t, H, W] in order → frames [f, 3, height, width] in [0, 1], fp32, as they come.

    Args:
        chunk: latents per decoder call after the first, ≥ 1. The result does not depend on it (≤ 1e-5).
    """
    hook = getattr(vae, "_hf_hook", None)  # offloading moves the VAE in before its decode(), which is not called here
    if hook is not None:
        hook.pre_forward(vae)
    cache: list[Tensor | str | None] = [None] * vae._cached_conv_counts["decoder"]
    for i, piece in enumerate(rechunk(chunks, chunk)):
        z = denormalise(vae, piece.to(vae.device, vae.dtype))
        x = vae.decoder(vae.post_quant_conv(z), feat_cache=cache, feat_idx=[0], first_chunk=i == 0)
        if vae.config.patch_size is not None:
            x = unpatchify(x, patch_size=vae.config.patch_size)
        yield (x[0].float().clamp(-1, 1) / 2 + 0.5).transpose(0, 1)
