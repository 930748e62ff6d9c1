"""Open-vocabulary detection, captions and actions through transformers: stand-ins for VBench's research code.

GRiT, Tag2Text and UMT have no maintained package. OWLv2, BLIP and VideoMAE answer the same questions on other scales,
so whatever they feed is marked as not comparable with VBench. They run only when named on the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from longgen.metrics.backends import hub
from longgen.metrics.backends.pixels import CLIP, IMAGENET, normalise, resize, short_side_crop, to_tensor
from longgen.metrics.backends.vision import tokenizer
from longgen.metrics.base import Unavailable

Frame = NDArray[np.uint8]


class Owl:
    """(frame, labels) → [{"label", "score", "box": [x0, y0, x1, y1] in pixels}]."""

    comparable = False
    floor = 0.1

    def __init__(self, model: Any, tokens: Any, name: str, device: str = "cpu") -> None:
        self.model, self.tokens, self.id, self.device = model.eval().to(device), tokens, name, device
        self.side = int(model.config.vision_config.image_size)

    @torch.inference_mode()
    def __call__(self, frame: Frame, labels: Sequence[str]) -> list[dict[str, Any]]:
        edge = max(frame.shape[:2])
        pad = (0, edge - frame.shape[1], 0, edge - frame.shape[0])
        square = F.pad(to_tensor(frame), pad, value=127.5)  # OWLv2 pads right and below with grey
        x = normalise(resize(square, (self.side, self.side), antialias=True), CLIP)[None].to(self.device)
        rows = [self.tokens(f"a photo of a {label}")[0] for label in labels]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device)
        out = self.model(input_ids=ids, attention_mask=(ids != 0).long(), pixel_values=x)
        scores, classes = out.logits[0].sigmoid().max(-1)
        boxes = corners(out.pred_boxes[0]) * edge
        return [
            {"label": labels[int(c)], "score": float(s), "box": [float(v) for v in b]}
            for s, c, b in zip(scores, classes, boxes)
            if s > self.floor
        ]


def corners(boxes: Tensor) -> Tensor:
    """[n, 4] centre x, y, width, height → x0, y0, x1, y1."""
    centre, size = boxes[:, :2], boxes[:, 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=1)


class Blip:
    """Frame → caption, greedily decoded."""

    comparable = False

    def __init__(self, model: Any, decode: Any, name: str, device: str = "cpu") -> None:
        self.model, self.decode, self.id, self.device = model.eval().to(device), decode, name, device
        self.side = int(model.config.vision_config.image_size)

    @torch.inference_mode()
    def __call__(self, frame: Frame) -> str:
        x = normalise(resize(to_tensor(frame), (self.side, self.side), "bicubic"), CLIP)[None].to(self.device)
        ids = self.model.generate(pixel_values=x, max_new_tokens=20, do_sample=False, num_beams=1)
        return str(self.decode(ids[0]))


class VideoMae:
    """16 frames → {action: probability}."""

    comparable = False

    def __init__(self, model: Any, name: str, device: str = "cpu") -> None:
        self.model, self.id, self.device = model.eval().to(device), name, device
        self.side = int(model.config.image_size)

    @torch.inference_mode()
    def __call__(self, frames: Sequence[Frame]) -> dict[str, float]:
        x = torch.stack([short_side_crop(f, self.side, IMAGENET, mode="bilinear") for f in frames])[None]
        p = self.model(pixel_values=x.to(self.device)).logits[0].softmax(-1)
        return {str(self.model.config.id2label[i]): float(v) for i, v in enumerate(p)}


def _refuse_official(role: str, spec: str, instead: str, given: str) -> None:
    if not spec.startswith(("hf:", "random:", "/", ".", "~")):
        raise Unavailable(
            f"needs {spec}, research code without a package; give results as --given {given}=FILE, your own callable "
            f"as --backend {role}=call:module:name, or a model on another scale: --backend {role}={instead}"
        )


def load_detector(spec: str, device: str = "cpu") -> Owl:
    """Role `detector`: OWLv2."""
    from transformers import Owlv2Config, Owlv2ForObjectDetection

    _refuse_official("detector", spec, "hf:google/owlv2-base-patch16-ensemble", "detections")
    seed = hub.seed_of(spec)
    if seed is not None:
        small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        text = small | {"vocab_size": 99, "eos_token_id": 98, "bos_token_id": 0, "pad_token_id": 0}
        vision = small | {"image_size": 64, "patch_size": 16}
        with hub.seeded(seed):
            model = Owlv2ForObjectDetection(Owlv2Config(text_config=text, vision_config=vision, projection_dim=32))
        return Owl(model, lambda t: torch.tensor([hub.toy_tokens(t, 99)]), spec, device)
    folder, name = hub.folder_of("detector", spec)
    model = Owlv2ForObjectDetection.from_pretrained(folder, local_files_only=True)
    return Owl(model, tokenizer(folder, 16), name, device)


def load_captioner(spec: str, device: str = "cpu") -> Blip:
    """Role `captioner`: BLIP."""
    from transformers import AutoTokenizer, BlipConfig, BlipForConditionalGeneration

    _refuse_official("captioner", spec, "hf:Salesforce/blip-image-captioning-base", "captions")
    seed = hub.seed_of(spec)
    if seed is not None:
        small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        special = {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2, "sep_token_id": 2, "pad_token_id": 0}
        text = small | special | {"encoder_hidden_size": 32}
        with hub.seeded(seed):
            config = BlipConfig(text_config=text, vision_config=small | {"image_size": 32, "patch_size": 16})
            model = BlipForConditionalGeneration(config)
        return Blip(model, lambda ids: " ".join(f"w{int(i)}" for i in ids), spec, device)
    folder, name = hub.folder_of("captioner", spec)
    words = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = BlipForConditionalGeneration.from_pretrained(folder, local_files_only=True)
    return Blip(model, lambda ids: words.decode(ids, skip_special_tokens=True), name, device)


def load_action(spec: str, device: str = "cpu") -> VideoMae:
    """Role `action`: VideoMAE fine-tuned on Kinetics-400."""
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    _refuse_official("action", spec, "hf:MCG-NJU/videomae-base-finetuned-kinetics", "labels")
    seed = hub.seed_of(spec)
    if seed is not None:
        small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        with hub.seeded(seed):
            config = VideoMAEConfig(image_size=32, patch_size=16, num_frames=16, num_labels=7, **small)
            return VideoMae(VideoMAEForVideoClassification(config), spec, device)
    folder, name = hub.folder_of("action", spec)
    return VideoMae(VideoMAEForVideoClassification.from_pretrained(folder, local_files_only=True), name, device)
