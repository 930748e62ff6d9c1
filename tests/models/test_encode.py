"""Frames to latents: equal to the VAE's own encode and the pipelines' normalisation, and the inverse of decode."""

from __future__ import annotations

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers import AutoencoderKLLTXVideo, LTXImageToVideoPipeline
from models import tiny, tiny_cogvideox, tiny_hunyuan, tiny_ltx
from PIL import Image
from torch import Tensor

from longgen.errors import BadInput
from longgen.models import cogvideox, hunyuan, ltx, wan


def with_statistics(pipe):
    """A tiny LTX-Video has the trivial ones."""
    draw = torch.Generator().manual_seed(1)
    pipe.vae.latents_mean.copy_(torch.randn(8, generator=draw))
    pipe.vae.latents_std.copy_(torch.rand(8, generator=draw) + 0.5)
    return pipe


FAMILIES = {
    "2.1": (wan, lambda: tiny.wan("2.1"), (32, 48)),
    "ti2v": (wan, lambda: tiny.wan("ti2v"), (64, 96)),
    "ltx": (ltx, lambda: with_statistics(tiny_ltx.ltx()), (32, 64)),
    "cogvideox": (cogvideox, lambda: tiny_cogvideox.cogvideox("5b"), (32, 48)),
    "cogvideox-1.5": (cogvideox, lambda: tiny_cogvideox.cogvideox("1.5"), (32, 48)),
    "hunyuan": (hunyuan, tiny_hunyuan.hunyuan, (32, 48)),
}


def moving(frames: int, height: int, width: int) -> Tensor:
    """uint8 [F, H, W, 3]: noise that drifts sideways."""
    still = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return torch.stack([still.roll(i, dims=1) for i in range(frames)])


def truth(pipe, frames: Tensor) -> Tensor:
    """As diffusers itself would: its pixel range, the VAE's mode, the normalisation of its pipelines."""
    vae = pipe.vae
    pictures = [Image.fromarray(frame) for frame in frames.numpy()]
    pixels = pipe.video_processor.preprocess_video(pictures)  # [1, 3, F, H, W] in [−1, 1]
    z = vae.encode(pixels).latent_dist.mode()
    if isinstance(vae, AutoencoderKLLTXVideo):
        return LTXImageToVideoPipeline._normalize_latents(z, vae.latents_mean, vae.latents_std, 1.0)
    if hasattr(vae.config, "latents_mean") and vae.config.latents_mean is not None:
        mean, std = (
            torch.tensor(v)[None, :, None, None, None] for v in (vae.config.latents_mean, vae.config.latents_std)
        )
        return (z - mean) / std
    return z * vae.config.scaling_factor


@pytest.mark.parametrize("kind", FAMILIES)
@torch.no_grad()
def test_equals_the_vae_and_has_the_right_length(kind):
    family, make, size = FAMILIES[kind]
    model = family.from_pipeline(make())
    info = model.info
    for count in (1, info.stride + 1, 3 * info.stride + 1):
        frames = moving(count, *size)
        z = model.encode_video(frames)
        assert z.dtype == torch.float32
        length = info.lead_pad + (count - 1) // info.stride + 1
        assert z.shape == (1, info.channels, length, size[0] // info.spatial, size[1] // info.spatial)
        assert (z[:, :, info.lead_pad :] - truth(model.pipe, frames)).abs().max() < 1e-5
        if info.lead_pad:
            assert torch.equal(z[:, :, 0], z[:, :, 1])
        assert sum(len(piece) for piece in model.decode([z])) == count


class Arrival(ModelHook):
    """In the place of offloading's own, which brings weights to the device before a module works."""

    def __init__(self) -> None:
        self.module: torch.nn.Module | None = None

    def pre_forward(self, module, *args, **kwargs):
        self.module = module
        return args, kwargs


@pytest.mark.parametrize("kind", FAMILIES)
@torch.no_grad()
def test_offloaded_decoders_are_brought_in(kind):
    """Decoders are called part by part, not by the method at which offloading waits."""
    family, make, size = FAMILIES[kind]
    model = family.from_pipeline(make())
    z = model.encode_video(moving(1, *size))
    add_hook_to_module(model.pipe.vae, arrival := Arrival())
    next(model.decode(iter([z])))
    assert arrival.module is model.pipe.vae


@pytest.mark.parametrize("kind", ["2.1", "ltx", "cogvideox"])
def test_what_cannot_be_encoded(kind):
    family, make, (height, width) = FAMILIES[kind]
    model = family.from_pipeline(make())
    with pytest.raises(BadInput, match="frames"):
        model.encode_video(moving(3, height, width))
    with pytest.raises(BadInput, match="sizes"):
        model.encode_video(moving(1, height + 1, width))
