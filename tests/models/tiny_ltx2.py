"""A tiny random LTX-2 pipeline: the real classes at toy sizes, 4×8 latents at 32×64 pixels, 8 frames per latent."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    FlowMatchEulerDiscreteScheduler,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder
from models.tiny import WORDS, tokenizer
from models.tiny_ltx import scheduler
from transformers import LlamaConfig, LlamaModel

OVERRIDES = {
    "native_frames": 33, "native_size": [32, 64], "fps": 24, "steps": 4, "guidance": 3.0, "max_sequence_length": 12,
}  # fmt: skip
NEWER = {  # LTX-2.3: gates, text modulated by the timestep, projections in the connector
    "gated_attn": True, "audio_gated_attn": True, "cross_attn_mod": True, "audio_cross_attn_mod": True,
    "use_prompt_embeddings": False, "perturbed_attn": True,
}  # fmt: skip


def encoder() -> LlamaModel:
    """Stands in for Gemma: the pipeline takes the hidden states of all layers."""
    config = LlamaConfig(
        vocab_size=len(WORDS) + 3, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.3, pad_token_id=0,
    )  # fmt: skip
    return LlamaModel(config).eval()


def vae() -> AutoencoderKLLTX2Video:
    torch.manual_seed(5)
    made = AutoencoderKLLTX2Video(
        latent_channels=8, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, True, False), decoder_spatio_temporal_scaling=(True, True, True, False),
        decoder_inject_noise=(False,) * 5, downsample_type=("spatiotemporal",) * 4,
        upsample_type=("spatiotemporal",) * 4, upsample_residual=(False,) * 4, upsample_factor=(1,) * 4, patch_size=1,
        decoder_causal=False,
    )  # fmt: skip
    made.latents_mean.copy_(torch.linspace(-0.5, 0.5, 8))
    made.latents_std.copy_(torch.linspace(0.5, 1.5, 8))
    return made.eval()


def audio_vae() -> AutoencoderKLLTX2Audio:
    return AutoencoderKLLTX2Audio(
        base_channels=4, output_channels=2, ch_mult=(1,), num_res_blocks=1, attn_resolutions=None, in_channels=2,
        resolution=32, latent_channels=2, norm_type="pixel", causality_axis="height", dropout=0.0,
        mid_block_add_attention=False, sample_rate=16000, mel_hop_length=160, is_causal=True, mel_bins=8,
    ).eval()  # fmt: skip


def vocoder() -> LTX2Vocoder:
    return LTX2Vocoder(
        in_channels=16, hidden_channels=8, out_channels=2, upsample_kernel_sizes=[4, 4], upsample_factors=[2, 2],
        resnet_kernel_sizes=[3], resnet_dilations=[[1, 3, 5]], leaky_relu_negative_slope=0.1,
        output_sampling_rate=16000,
    ).eval()  # fmt: skip


def transformer(**changes: Any) -> LTX2VideoTransformer3DModel:
    config: dict[str, Any] = {
        "in_channels": 8, "out_channels": 8, "num_attention_heads": 2, "attention_head_dim": 16,
        "cross_attention_dim": 32, "vae_scale_factors": (8, 8, 8), "audio_in_channels": 4, "audio_out_channels": 4,
        "audio_num_attention_heads": 2, "audio_attention_head_dim": 8, "audio_cross_attention_dim": 16,
        "num_layers": 2, "caption_channels": 16, "rope_type": "split",
    }  # fmt: skip
    model = LTX2VideoTransformer3DModel(**{**config, **changes}).eval()
    with torch.no_grad():
        model.proj_out.weight.mul_(2)
    return model


def connectors(newer: bool) -> LTX2TextConnectors:
    shared = {f"{m}_connector_{name}": n for m in ("video", "audio") for name, n in (
        ("num_attention_heads", 2), ("num_layers", 1), ("num_learnable_registers", 4),
    )}  # fmt: skip
    wide, high = (16, 8) if newer else (8, 8)
    return LTX2TextConnectors(
        caption_channels=16, text_proj_in_factor=3, **shared, video_connector_attention_head_dim=wide,
        audio_connector_attention_head_dim=high, rope_type="split", per_modality_projections=newer,
        video_hidden_dim=32, audio_hidden_dim=16,
    ).eval()  # fmt: skip


def ltx2(newer: bool = False, **changes: Any) -> LTX2Pipeline:
    torch.manual_seed(2)
    pipe = LTX2Pipeline(
        scheduler=scheduler(),
        vae=vae(),
        audio_vae=audio_vae(),
        text_encoder=encoder(),
        tokenizer=tokenizer(),
        connectors=connectors(newer),
        transformer=transformer(**{**(NEWER if newer else {}), **changes}),
        vocoder=vocoder(),
    )
    assert isinstance(pipe.scheduler, FlowMatchEulerDiscreteScheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe
