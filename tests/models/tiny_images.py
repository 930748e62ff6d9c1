"""Tiny random image-to-video pipelines, and an image of their size."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import (
    CogVideoXImageToVideoPipeline,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXImageToVideoPipeline,
    WanImageToVideoPipeline,
)
from models import tiny, tiny_cogvideox, tiny_ltx
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

CLIP = 16  # width of the image encoder; four patches and a class token


def image(height: int = tiny.HEIGHT, width: int = tiny.WIDTH, seed: int = 0) -> Image.Image:
    """Smooth noise, so that resizing and encoding leave something of it."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)


def pixels(picture: Image.Image) -> torch.Tensor:
    """uint8 [H, W, 3]."""
    return torch.from_numpy(np.asarray(picture).copy())


def wan_i2v(kind: str = "2.1", solver: str = "unipc", **changes: Any) -> WanImageToVideoPipeline:
    """A pipeline of the kind "2.1" (with an image encoder), "a14b" (two transformers) or "ti2v"."""
    torch.manual_seed(2)
    text, extra = tiny.text_encoder(), dict[str, Any]()
    wide: dict[str, Any] = {"in_channels": 12, "out_channels": 4, **changes}
    if kind == "2.1":
        wide |= {"image_dim": CLIP, "added_kv_proj_dim": 24}
        config = CLIPVisionConfig(
            hidden_size=CLIP, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32,
            patch_size=16, projection_dim=CLIP, initializer_range=0.5,
        )  # fmt: skip
        extra["image_encoder"] = CLIPVisionModel(config).eval()
        extra["image_processor"] = CLIPImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        )
    if kind == "a14b":
        extra |= {"transformer_2": tiny.transformer(4, seed=7, **wide), "boundary_ratio": 0.875}
    if kind == "ti2v":
        extra["expand_timesteps"] = True
        wide = changes
    pipe = WanImageToVideoPipeline(
        tokenizer=tiny.tokenizer(),
        text_encoder=text,
        vae=tiny.vae("2.2" if kind == "ti2v" else "2.1"),
        scheduler={"unipc": tiny.unipc, "euler": tiny.euler}[solver](),
        transformer=tiny.transformer(4, **wide),
        **extra,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


# as the checkpoints have them: positions learnt for one size, or none and an offset embedding
COGVIDEOX: dict[str, dict[str, Any]] = {
    "5b": {"use_learned_positional_embeddings": True},
    "1.5": {"ofs_embed_dim": 8},
}


def cogvideox_i2v(kind: str = "5b", invert: bool = False, **changes: Any) -> CogVideoXImageToVideoPipeline:
    """A pipeline of the kind "5b" or "1.5"; `invert` for a VAE whose image latents are divided by its factor."""
    made = tiny_cogvideox.cogvideox(kind, in_channels=8, **COGVIDEOX[kind], **changes)
    if kind == "5b":  # such a checkpoint holds positions that differ from the computed ones
        draw = torch.Generator().manual_seed(4)
        made.transformer.patch_embed.pos_embedding.copy_(
            torch.randn(made.transformer.patch_embed.pos_embedding.shape, generator=draw)
        )
    made.vae.register_to_config(invert_scale_latents=invert)
    pipe = CogVideoXImageToVideoPipeline(**made.components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def ltx_i2v(condition: bool = False) -> LTXImageToVideoPipeline | LTXConditionPipeline:
    """A pipeline for an image, or for conditions with the plain scheduler that those checkpoints ship."""
    parts = tiny_ltx.ltx().components
    draw = torch.Generator().manual_seed(1)  # a tiny VAE has trivial statistics
    parts["vae"].latents_mean.copy_(0.3 * torch.randn(8, generator=draw))
    parts["vae"].latents_std.copy_(torch.rand(8, generator=draw) + 0.5)
    if condition:
        parts["scheduler"] = FlowMatchEulerDiscreteScheduler()
    pipe = (LTXConditionPipeline if condition else LTXImageToVideoPipeline)(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe
