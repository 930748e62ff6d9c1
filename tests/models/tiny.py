"""Tiny random pipelines, built offline: the real diffusers and transformers classes at toy sizes.

`from models.tiny import wan`: `wan("2.1")`, `wan("a14b")`, `wan("ti2v")`. Latents are 4×6 at 32×48 pixels, so a
frame has 6 tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from longgen.protocols import Conditions
from longgen.types import Call, LatentGrid, Level, Mix

HEIGHT, WIDTH = 32, 48
WORDS = tuple("a red blue green circle square star moving left right on black gray background blurry".split())  # noqa: SIM905
OVERRIDES = {"native_frames": 17, "native_size": [HEIGHT, WIDTH], "fps": 8, "steps": 4, "guidance": 4.0}


def tokenizer(length: int = 12) -> PreTrainedTokenizerFast:
    """Word-level, padding to `length` by default."""
    vocabulary = {w: i for i, w in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    core = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = Whitespace()
    core.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=length
    )


def text_encoder(width: int = 16) -> UMT5EncoderModel:
    config = UMT5Config(
        vocab_size=len(WORDS) + 3, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0
    )
    return UMT5EncoderModel(config).eval()


def transformer(channels: int, seed: int = 0, **changes: Any) -> WanTransformer3DModel:
    """Two layers of two heads of 12 channels; output layers scaled up, so that texts and levels matter."""
    torch.manual_seed(seed)
    config = {
        "patch_size": (1, 2, 2),
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": channels,
        "out_channels": channels,
        "text_dim": 16,
        "freq_dim": 16,
        "ffn_dim": 32,
        "num_layers": 2,
    }
    model = WanTransformer3DModel(**(config | changes)).eval()
    with torch.no_grad():
        for block in model.blocks:
            for attention in (block.attn1, block.attn2):
                attention.to_q.weight.mul_(3)
                attention.to_k.weight.mul_(3)
                attention.to_out[0].weight.mul_(3)
    return model


def vae(version: str = "2.1") -> AutoencoderKLWan:
    torch.manual_seed(1)
    common: dict[str, Any] = {"base_dim": 4, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
    stats = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.5, 0.7, 1.1, 0.9]}
    if version == "2.1":
        return AutoencoderKLWan(**common, **stats, temperal_downsample=[False, True, True]).eval()
    return AutoencoderKLWan(
        **common, **stats, temperal_downsample=[False, True, True], is_residual=True, patch_size=2, in_channels=12,
        out_channels=12, scale_factor_spatial=16,
    ).eval()  # fmt: skip


def unipc(shift: float = 3.0) -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)


def euler(shift: float = 3.0) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=shift)


def wan(kind: str = "2.1", solver: str = "unipc", **changes: Any) -> WanPipeline:
    """A pipeline of the kind "2.1", "a14b" or "ti2v"; `changes` go to the transformers."""
    torch.manual_seed(2)
    extra: dict[str, Any] = {}
    if kind == "a14b":
        extra = {"transformer_2": transformer(4, seed=7, **changes), "boundary_ratio": 0.875}
    if kind == "ti2v":
        extra = {"expand_timesteps": True}
    pipe = WanPipeline(
        tokenizer=tokenizer(),
        text_encoder=text_encoder(),
        vae=vae("2.2" if kind == "ti2v" else "2.1"),
        scheduler={"unipc": unipc, "euler": euler}[solver](),
        transformer=transformer(4, **changes),
        **extra,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def size(kind: str) -> tuple[int, int]:
    """Height and width in pixels that make 4×6 latents."""
    return (64, 96) if kind == "ti2v" else (HEIGHT, WIDTH)


def save(pipe: WanPipeline, folder: Path, **overrides: Any) -> Path:
    """The pipeline as a folder with a longgen.json beside model_index.json."""
    pipe.save_pretrained(folder, safe_serialization=True)
    (folder / "longgen.json").write_text(json.dumps(OVERRIDES | overrides))
    return folder


@dataclass
class Prompts:
    """A prompt schedule of fixed weights: `weights` [T_video, n] are indexed by absolute latent."""

    texts: tuple[str, ...] = ("a red circle moving left",)
    negatives: tuple[str, ...] = ("blurry gray",)
    scale: float | Tensor = 4.0
    weights: Tensor | None = None
    space: str = "text"
    early: Tensor | None = None
    split: float = 0.5
    spherical: bool = False

    def mix(self, frames: tuple[int, ...], level: Level) -> Mix:
        if self.weights is None:
            return Mix(torch.ones(len(frames), 1))
        pick = list(frames)
        early = None if self.early is None else self.early[pick]
        return Mix(self.weights[pick], self.space, early, self.split, self.spherical)

    def negative(self, frames: tuple[int, ...]) -> int:
        return 0

    def guidance(self, frames: tuple[int, ...]) -> Tensor | float:
        return self.scale[list(frames)] if isinstance(self.scale, Tensor) else self.scale


def denoiser(model: Any, frames: int = 5, steps: int = 4, **prompts: Any) -> Any:
    """A model's denoiser on `frames` latents of 4×6."""
    grid = LatentGrid(frames, model.info.channels, 4, 6, model.info.stride, model.info.patch)
    return model.denoiser(Conditions(Prompts(**prompts)), grid, steps)


def latents(frames: int = 5, channels: int = 4, seed: int = 3) -> Tensor:
    return torch.randn(1, channels, frames, 4, 6, generator=torch.Generator().manual_seed(seed))


def call(
    model: Any, row: int | Sequence[int] = 1, steps: int = 4, frames: Sequence[int] | None = None, **more: Any
) -> Call:
    """A call at one row of the default schedule, or at one row per latent."""
    schedule = model.solver(None, steps, None).schedule
    index = tuple(range(5)) if frames is None else tuple(frames)
    level = schedule[row] if isinstance(row, int) else schedule[torch.tensor(row)]
    return Call(latents(len(index), model.info.channels, **more), level, index)
