"""A loaded LTX-2 checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import LTX2Pipeline
from torch import Tensor

from longgen.models.ltx.model import LTXModel
from longgen.models.ltx2.denoiser import LTX2Denoiser
from longgen.models.ltx2.info import describe
from longgen.protocols import Conditions
from longgen.types import LatentGrid, ModelInfo


class LTX2Model(LTXModel):
    """LTX-2: LTX-Video's packing, schedule and decoding; text through connectors; the video part alone."""

    describe = staticmethod(describe)
    idle = frozenset({"audio_vae", "vocoder"})

    @staticmethod
    def kind(info: ModelInfo, path: Path) -> Any:
        return LTX2Pipeline

    def seconds(self, latents: Tensor, fps: float) -> Tensor:
        """When latents [T] are in a clip, in seconds: the middle of the frames that each stands for."""
        frames, stride = latents * self.info.stride, self.info.stride
        return ((frames + 1 - stride).clamp(min=0) + (frames + 1).clamp(min=0)) / 2 / fps

    @torch.no_grad()
    def encode(self, text: str) -> Tensor:
        """[1, L, D] in the transformer's dtype, behind the video's connector; rows that it masks are zero."""
        embeds, mask, _, _ = self.pipe.encode_prompt(
            text, do_classifier_free_guidance=False, max_sequence_length=self.info.text_tokens, device=self.device
        )
        told, _, seen = self.pipe.connectors(embeds, mask, padding_side=self.pipe.tokenizer.padding_side)
        return (told * seen[..., None]).to(self.dtype)

    def denoiser(self, conditions: Conditions, grid: LatentGrid, steps: int) -> LTX2Denoiser:
        return LTX2Denoiser(self, conditions, grid, steps)
