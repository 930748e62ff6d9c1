"""A tiny random Wan-VACE pipeline, and control videos for it."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import WanVACEPipeline, WanVACETransformer3DModel
from models import tiny
from torch import Tensor

CHANNELS = 2 * 4 + 64  # known and reactive latents of the tiny VAE, and 8×8 pixels of mask


def transformer(
    seed: int = 0, layers: int = 3, control: tuple[int, ...] = (0, 2), channels: int = 4, shown: int = CHANNELS
) -> WanVACETransformer3DModel:
    """`layers` layers, control blocks that feed those of `control`; scaled up, so that texts and control matter."""
    torch.manual_seed(seed)
    model = WanVACETransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=channels,
        out_channels=channels,
        text_dim=16,
        freq_dim=16,
        ffn_dim=32,
        num_layers=layers,
        vace_layers=list(control),
        vace_in_channels=shown,
    ).eval()
    with torch.no_grad():
        model.vace_patch_embedding.weight.mul_(3)
        for block in model.vace_blocks:
            block.proj_out.weight.mul_(3)
        for block in (*model.blocks, *model.vace_blocks):
            for attention in (block.attn1, block.attn2):
                attention.to_q.weight.mul_(3)
                attention.to_k.weight.mul_(3)
                attention.to_out[0].weight.mul_(3)
    return model


def vace(solver: str = "unipc", experts: int = 1) -> WanVACEPipeline:
    """A pipeline of one or two experts."""
    torch.manual_seed(2)
    extra: dict[str, Any] = {} if experts == 1 else {"transformer_2": transformer(7), "boundary_ratio": 0.875}
    pipe = WanVACEPipeline(
        tokenizer=tiny.tokenizer(),
        text_encoder=tiny.text_encoder(),
        vae=tiny.vae(),
        scheduler={"unipc": tiny.unipc, "euler": tiny.euler}[solver](),
        transformer=transformer(),
        **extra,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def depth(frames: int, height: int = tiny.HEIGHT, width: int = tiny.WIDTH) -> Tensor:
    """A control video uint8 [F, H, W, 3]: a ramp that moves, over blotches."""
    blotches = torch.rand(height, width, generator=torch.Generator().manual_seed(5))
    ramp = torch.linspace(0, 1, width).expand(height, width)
    gray = torch.stack([0.6 * ramp.roll(2 * i, 1) + 0.4 * blotches.roll(i, 0) for i in range(frames)])
    return (gray * 255).to(torch.uint8)[..., None].expand(-1, -1, -1, 3).contiguous()
