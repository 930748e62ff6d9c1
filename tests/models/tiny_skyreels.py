"""Tiny random SkyReels-V2 pipelines: the real classes at toy sizes, 4×6 latents at 32×48 pixels."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import SkyReelsV2DiffusionForcingPipeline, SkyReelsV2Pipeline, SkyReelsV2Transformer3DModel
from models import tiny

OVERRIDES = {**tiny.OVERRIDES, "fps": 24, "guidance": 6.0}


def transformer(**changes: Any) -> SkyReelsV2Transformer3DModel:
    """Two layers of two heads of 12 channels; output layers scaled up, so that texts and levels matter."""
    torch.manual_seed(4)
    config = {
        "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4,
        "out_channels": 4, "text_dim": 16, "freq_dim": 16, "ffn_dim": 32, "num_layers": 2,
    }  # fmt: skip
    model = SkyReelsV2Transformer3DModel(**(config | changes)).eval()
    with torch.no_grad():
        for block in model.blocks:
            for attention in (block.attn1, block.attn2):
                for layer in (attention.to_q, attention.to_k, attention.to_out[0]):
                    layer.weight.mul_(3)
    return model


def skyreels(kind: str = "df", shift: float = 8.0, **changes: Any) -> SkyReelsV2DiffusionForcingPipeline:
    """A pipeline of the kind "df" or "t2v"; `changes` go to the transformer."""
    torch.manual_seed(2)
    made = {"df": SkyReelsV2DiffusionForcingPipeline, "t2v": SkyReelsV2Pipeline}[kind](
        tokenizer=tiny.tokenizer(),
        text_encoder=tiny.text_encoder(),
        vae=tiny.vae(),
        scheduler=tiny.unipc(shift),
        transformer=transformer(**changes),
    )
    made.set_progress_bar_config(disable=True)
    return made
