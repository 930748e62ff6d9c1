"""Video-text similarity. VBench's ViCLIP has no maintained package; X-CLIP is offered on its own scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from longgen.metrics.backends import hub
from longgen.metrics.backends.pixels import IMAGENET, short_side_crop
from longgen.metrics.backends.vision import tokenizer
from longgen.metrics.base import Unavailable


class XClip:
    """(8 frames, text) → cosine of X-CLIP's video and (video-conditioned) text features. Not VBench's scale."""

    comparable = False

    def __init__(self, model: Any, tokens: Any, name: str, device: str = "cpu") -> None:
        self.model, self.tokens, self.id, self.device = model.eval().to(device), tokens, name, device
        self.side = int(model.config.vision_config.image_size)

    @torch.inference_mode()
    def __call__(self, frames: Sequence[NDArray[np.uint8]], text: str) -> float:
        x = torch.stack([short_side_crop(f, self.side, IMAGENET, mode="bilinear") for f in frames])
        out = self.model(input_ids=self.tokens(text).to(self.device), pixel_values=x[None].to(self.device))
        return float((out.video_embeds[0] * out.text_embeds[0, 0]).sum())


def load_video_text(spec: str, device: str = "cpu") -> XClip:
    """Role `video_text`: an X-CLIP of 8 frames; ViCLIP itself only as the user's callable."""
    from transformers import XCLIPConfig, XCLIPModel

    if spec.startswith("ViClip"):
        raise Unavailable(
            f"needs {spec}, which has no maintained package; give your own as --backend video_text=call:module:name, "
            "(frames, text) → cosine, or X-CLIP on another scale: --backend video_text=hf:microsoft/xclip-base-patch32"
        )
    seed = hub.seed_of(spec)
    if seed is not None:
        small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        text = small | {"vocab_size": 99, "eos_token_id": 98, "bos_token_id": 0, "pad_token_id": 0}
        mit = {
            "mit_hidden_size": 16,
            "mit_intermediate_size": 32,
            "mit_num_hidden_layers": 1,
            "mit_num_attention_heads": 2,
        }
        vision = small | mit | {"image_size": 32, "patch_size": 16, "num_frames": 8}
        with hub.seeded(seed):
            config = XCLIPConfig(
                text_config=text, vision_config=vision, projection_dim=16, prompt_num_attention_heads=2
            )
            model = XCLIPModel(config)
        return XClip(model, lambda t: torch.tensor([hub.toy_tokens(t, 99)]), spec, device)
    folder, name = hub.folder_of("video_text", spec)
    model = XCLIPModel.from_pretrained(folder, local_files_only=True)
    return XClip(model, tokenizer(folder, int(model.config.text_config.max_position_embeddings)), name, device)
