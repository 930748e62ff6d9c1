"""Image embedders: DINO and CLIP through transformers, with VBench's preprocessing. One frame per forward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longgen.metrics.backends import hub
from longgen.metrics.backends.pixels import (
    CLIP,
    IMAGENET,
    centre_crop,
    normalise,
    resize,
    short_side,
    short_side_crop,
    to_tensor,
)

Frame = NDArray[np.uint8]
Vector = NDArray[np.float32]


class Dino:
    """CLS token of a DINO or DINOv2 vision transformer; short side 224, bilinear, no crop, positions interpolated."""

    def __init__(self, model: Any, name: str, comparable: bool, device: str = "cpu", side: int = 224) -> None:
        self.model, self.id, self.comparable, self.device = model.eval().to(device), name, comparable, device
        self.side = side

    @torch.inference_mode()
    def __call__(self, frame: Frame) -> Vector:
        x = short_side_crop(frame, self.side, IMAGENET, mode="bilinear", crop=False)[None].to(self.device)
        hidden = self.model(pixel_values=x, interpolate_pos_encoding=True).last_hidden_state
        return np.asarray(hidden[0, 0].float().cpu(), dtype=np.float32)


class Clip:
    """CLIP image features (224, bicubic, centre crop) and unit-norm text features."""

    def __init__(self, model: Any, tokens: Any, name: str, comparable: bool, device: str = "cpu") -> None:
        self.model, self.id, self.comparable, self.device = model.eval().to(device), name, comparable, device
        self.tokens = tokens
        self.side = int(model.config.vision_config.image_size)

    @torch.inference_mode()
    def __call__(self, frame: Frame) -> Vector:
        x = short_side_crop(frame, self.side, CLIP)[None].to(self.device)
        return _row(self.model.get_image_features(pixel_values=x))

    @torch.inference_mode()
    def text(self, text: str) -> Vector:
        """Unit-norm features of a phrase."""
        row = _row(self.model.get_text_features(input_ids=self.tokens(text).to(self.device)))
        return np.asarray(row / np.linalg.norm(row), dtype=np.float32)


def _row(output: Any) -> Vector:
    features = output if isinstance(output, Tensor) else output.pooler_output
    return np.asarray(features[0].float().cpu(), dtype=np.float32)


def tokenizer(folder: Path, length: int) -> Any:
    """text → token ids [1, n], cut to `length`."""
    from transformers import AutoTokenizer

    inner = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return lambda text: inner(text, truncation=True, max_length=length, return_tensors="pt").input_ids


def load_dino(spec: str, device: str = "cpu") -> Dino:
    """Role `dino`: a ViTModel or Dinov2Model."""
    from transformers import AutoModel, ViTConfig, ViTModel

    seed = hub.seed_of(spec)
    if seed is not None:
        with hub.seeded(seed):
            config = ViTConfig(
                hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=64
            )
            return Dino(ViTModel(config, add_pooling_layer=False), spec, False, device, side=64)
    folder, name = hub.folder_of("dino", spec)
    model = AutoModel.from_pretrained(folder, local_files_only=True)
    return Dino(model, name, spec.startswith("hf:facebook/dino-vitb16"), device)


class Dinov2(Dino):
    """CLS token of DINOv2 as VBench-Long and STREAM take it: short side 256 (bicubic), centre crop 224."""

    @torch.inference_mode()
    def __call__(self, frame: Frame) -> Vector:
        x = to_tensor(frame)
        x = resize(x, short_side(x.shape[1], x.shape[2], self.side * 8 // 7), "bicubic")
        hidden = self.model(pixel_values=normalise(centre_crop(x, self.side), IMAGENET)[None].to(self.device))
        return np.asarray(hidden.last_hidden_state[0, 0].float().cpu(), dtype=np.float32)


def load_dinov2(spec: str, device: str = "cpu") -> Dinov2:
    """Role `dinov2`: facebook/dinov2-base for VBench-Long, dinov2-small for STREAM."""
    from transformers import AutoModel, Dinov2Config, Dinov2Model

    seed = hub.seed_of(spec)
    if seed is not None:
        with hub.seeded(seed):
            config = Dinov2Config(
                hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
            )
            return Dinov2(Dinov2Model(config), spec, False, device, side=28)
    folder, name = hub.folder_of("dinov2", spec)
    return Dinov2(AutoModel.from_pretrained(folder, local_files_only=True), name, True, device)


def load_clip_b32(spec: str, device: str = "cpu") -> Clip:
    """Role `clip_b32`."""
    return _load_clip("clip_b32", spec, "hf:openai/clip-vit-base-patch32", device)


def load_clip_l14(spec: str, device: str = "cpu") -> Clip:
    """Role `clip_l14`."""
    return _load_clip("clip_l14", spec, "hf:openai/clip-vit-large-patch14", device)


def _load_clip(role: str, spec: str, official: str, device: str) -> Clip:
    from transformers import CLIPConfig, CLIPModel

    seed = hub.seed_of(spec)
    if seed is not None:
        small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        text = small | {"vocab_size": 99, "eos_token_id": 98, "bos_token_id": 0, "pad_token_id": 0}
        vision = small | {"image_size": 32, "patch_size": 16}
        with hub.seeded(seed):
            model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
        return Clip(model, lambda t: torch.tensor([hub.toy_tokens(t, 99)]), spec, False, device)
    folder, name = hub.folder_of(role, spec)
    model = CLIPModel.from_pretrained(folder, local_files_only=True)
    length = int(model.config.text_config.max_position_embeddings)
    return Clip(model, tokenizer(folder, length), name, spec.startswith(official), device)
