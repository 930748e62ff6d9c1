"""A tiny random LTX-Video pipeline: the real classes at toy sizes, 4×8 latents at 32×64 pixels, 8 frames per latent."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline, LTXVideoTransformer3DModel
from models.tiny import WORDS, tokenizer
from transformers import T5Config, T5EncoderModel

HEIGHT, WIDTH = 32, 64
OVERRIDES = {"native_frames": 33, "native_size": [HEIGHT, WIDTH], "fps": 25, "steps": 4, "guidance": 3.0}


def vae(timestep_conditioning: bool = False) -> AutoencoderKLLTXVideo:
    torch.manual_seed(5)
    made = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, True, False),
        decoder_spatio_temporal_scaling=(True, True, True, False),
        decoder_inject_noise=(False, False, False, False, False),
        upsample_residual=(False, False, False, False),
        upsample_factor=(1, 1, 1, 1),
        patch_size=1,
        patch_size_t=1,
        timestep_conditioning=timestep_conditioning,
        encoder_causal=True,
        decoder_causal=False,
    )
    made.use_framewise_encoding = made.use_framewise_decoding = False
    return made.eval()


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """As the checkpoint ships it: shift by sequence length, stretched to end at 0.1."""
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, max_image_seq_len=4096,
        shift_terminal=0.1,
    )  # fmt: skip


def ltx(**changes: Any) -> LTXPipeline:
    torch.manual_seed(2)
    config = T5Config(vocab_size=len(WORDS) + 3, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0)
    transformer = LTXVideoTransformer3DModel(
        **{
            "in_channels": 8, "out_channels": 8, "patch_size": 1, "patch_size_t": 1, "num_attention_heads": 2,
            "attention_head_dim": 16, "cross_attention_dim": 32, "num_layers": 2, "caption_channels": 16, **changes,
        }
    ).eval()  # fmt: skip
    with torch.no_grad():
        transformer.proj_out.weight.mul_(4)
    pipe = LTXPipeline(scheduler(), vae(), T5EncoderModel(config).eval(), tokenizer(), transformer)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents(frames: int = 5, seed: int = 3) -> torch.Tensor:
    """[1, 8, T, 4, 8]."""
    return torch.randn(1, 8, frames, 4, 8, generator=torch.Generator().manual_seed(seed))
