"""A tiny random HunyuanVideo pipeline: the real classes at toy sizes, 4×6 latents at 32×48 pixels."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from models.tiny import WORDS, tokenizer
from tokenizers.pre_tokenizers import Sequence, Split, WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

HEIGHT, WIDTH = 32, 48
OVERRIDES = {"native_frames": 17, "native_size": [HEIGHT, WIDTH], "fps": 8, "steps": 4, "guidance": 6.0}
TOKENS = len(WORDS) + 3


def llama_tokenizer(length: int = 12) -> PreTrainedTokenizerFast:
    """Word-level, with so much in front that the pipeline's template ends where it crops: at token 95."""
    made = tokenizer(length)
    made.backend_tokenizer.pre_tokenizer = Sequence([WhitespaceSplit(), Split("<|eot_id|>", "isolated")])
    before, _ = DEFAULT_PROMPT_TEMPLATE["template"].split("{}")
    missing = DEFAULT_PROMPT_TEMPLATE["crop_start"] - len(made(before, add_special_tokens=False).input_ids)
    assert missing >= 0
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single=" ".join(["<unk>"] * missing + ["$A", "</s>"]), special_tokens=[("</s>", 1), ("<unk>", 2)]
    )
    return made


def llama() -> LlamaModel:
    """Three layers, of which the pipeline skips two."""
    config = LlamaConfig(
        vocab_size=TOKENS, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.3, pad_token_id=0,
    )  # fmt: skip
    return LlamaModel(config).eval()


def clip() -> CLIPTextModel:
    """Pooled vectors of 24 channels, which is more than one row of word embeddings."""
    config = CLIPTextConfig(
        vocab_size=TOKENS, hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=77, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return CLIPTextModel(config).eval()


def vae() -> AutoencoderKLHunyuanVideo:
    torch.manual_seed(5)
    return AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    ).eval()


def transformer(**changes: Any) -> HunyuanVideoTransformer3DModel:
    """Two dual-stream and two single-stream layers; query, key and last layers scaled up, so that all inputs matter."""
    config: dict[str, Any] = {
        "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2,
        "num_single_layers": 2, "num_refiner_layers": 1, "mlp_ratio": 2.0, "patch_size": 2, "patch_size_t": 1,
        "text_embed_dim": 16, "pooled_projection_dim": 24, "rope_axes_dim": (4, 6, 6),
    }  # fmt: skip
    model = HunyuanVideoTransformer3DModel(**{**config, **changes}).eval()
    with torch.no_grad():
        for block in [*model.transformer_blocks, *model.single_transformer_blocks]:
            block.attn.norm_q.weight.mul_(2)
        model.proj_out.weight.mul_(4)
    return model


def hunyuan(**changes: Any) -> HunyuanVideoPipeline:
    torch.manual_seed(2)
    pipe = HunyuanVideoPipeline(
        text_encoder=llama(),
        tokenizer=llama_tokenizer(),
        transformer=transformer(**changes),
        vae=vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=clip(),
        tokenizer_2=tokenizer(77),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents(frames: int = 5, seed: int = 3) -> torch.Tensor:
    """[1, 4, T, 4, 6]."""
    return torch.randn(1, 4, frames, 4, 6, generator=torch.Generator().manual_seed(seed))
