"""A tiny random CogVideoX pipeline: the real classes at toy sizes, 4×6 latents at 32×48 pixels, 4 frames per latent."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)
from models.tiny import WORDS, tokenizer
from transformers import T5Config, T5EncoderModel

HEIGHT, WIDTH = 32, 48
OVERRIDES = {"native_frames": 17, "native_size": [HEIGHT, WIDTH], "fps": 8, "steps": 4, "guidance": 6.0}
KINDS: dict[str, dict[str, Any]] = {
    "2b": {},
    "5b": {"use_rotary_positional_embeddings": True},
    "1.5": {"use_rotary_positional_embeddings": True, "patch_size_t": 2, "patch_bias": False},
}


def vae() -> AutoencoderKLCogVideoX:
    torch.manual_seed(5)
    return AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        sample_height=HEIGHT,
        sample_width=WIDTH,
    ).eval()


def scheduler(kind: type = CogVideoXDDIMScheduler) -> Any:
    """As the checkpoints ship it: zero terminal SNR, v-prediction."""
    return kind(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", snr_shift_scale=1.0
    )


def cogvideox(kind: str = "5b", **changes: Any) -> CogVideoXPipeline:
    """A pipeline of the kind "2b", "5b" or "1.5"; weights are scaled so that texts and levels matter."""
    torch.manual_seed(2)
    config = T5Config(vocab_size=len(WORDS) + 3, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0)
    transformer = CogVideoXTransformer3DModel(
        **{
            "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4,
            "time_embed_dim": 8, "text_embed_dim": 16, "num_layers": 2, "sample_width": 6, "sample_height": 4,
            "sample_frames": 17, "max_text_seq_length": 12, **KINDS[kind], **changes,
        }
    ).eval()  # fmt: skip
    with torch.no_grad():
        for block in transformer.transformer_blocks:
            for layer in (block.attn1.to_v, block.attn1.to_out[0]):
                layer.weight.mul_(3)
            for norm in (block.norm1, block.norm2):
                norm.linear.weight.mul_(3)
        transformer.patch_embed.text_proj.weight.mul_(3)
    pipe = CogVideoXPipeline(tokenizer(), T5EncoderModel(config).eval(), vae(), transformer, scheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents(frames: int = 5, seed: int = 3) -> torch.Tensor:
    """[1, 4, T, 4, 6]."""
    return torch.randn(1, 4, frames, 4, 6, generator=torch.Generator().manual_seed(seed))
