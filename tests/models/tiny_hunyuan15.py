"""A tiny random HunyuanVideo-1.5 pipeline: the real classes at toy sizes, 2×3 latents at 32×48 pixels."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
)
from models.tiny import WORDS, tokenizer
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel, T5Config, T5EncoderModel

OVERRIDES = {"native_frames": 17, "native_size": [32, 48], "fps": 8, "steps": 4, "max_sequence_length": 12}
TOKENS = len(WORDS) + 3


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """Word-level; its chat template puts so much in front that the prompt begins where the pipeline crops: at 108."""
    made = tokenizer()
    made.chat_template = (
        "{{ 'a ' * 108 }}{% for m in messages if m['role'] == 'user' %}{{ m['content'] }} {% endfor %}"
        "{% if add_generation_prompt %}right{% endif %}"
    )
    return made


def qwen() -> Qwen2_5_VLTextModel:
    """Three layers, of which the pipeline skips two."""
    config = Qwen2_5_VLTextConfig(
        vocab_size=TOKENS, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=1,
        rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10_000.0},
    )  # fmt: skip
    return Qwen2_5_VLTextModel(config).eval()


def byt5() -> T5EncoderModel:
    config = T5Config(vocab_size=TOKENS, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, dropout_rate=0)
    return T5EncoderModel(config).eval()


def vae() -> AutoencoderKLHunyuanVideo15:
    torch.manual_seed(5)
    return AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=(8, 16, 16, 16, 16), layers_per_block=1, scaling_factor=1.3
    ).eval()


def transformer(**changes: Any) -> HunyuanVideo15Transformer3DModel:
    """Two layers; queries scaled up, so that all inputs matter."""
    config: dict[str, Any] = {
        "in_channels": 9, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2,
        "num_refiner_layers": 1, "mlp_ratio": 2.0, "text_embed_dim": 16, "text_embed_2_dim": 8, "image_embed_dim": 8,
        "rope_axes_dim": (4, 6, 6), "task_type": "t2v",
    }  # fmt: skip
    model = HunyuanVideo15Transformer3DModel(**{**config, **changes}).eval()
    with torch.no_grad():
        for block in model.transformer_blocks:
            block.attn.norm_q.weight.mul_(2)
    return model


def hunyuan15(**changes: Any) -> HunyuanVideo15Pipeline:
    torch.manual_seed(2)
    pipe = HunyuanVideo15Pipeline(
        text_encoder=qwen(),
        tokenizer=qwen_tokenizer(),
        transformer=transformer(**changes),
        vae=vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        text_encoder_2=byt5(),
        tokenizer_2=tokenizer(256),
        guider=ClassifierFreeGuidance(guidance_scale=6.0),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
