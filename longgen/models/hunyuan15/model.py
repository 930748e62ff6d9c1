"""A loaded HunyuanVideo-1.5 checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import HunyuanVideo15Pipeline
from torch import Tensor

from longgen.models.hunyuan.model import HunyuanModel
from longgen.models.hunyuan15.denoiser import Hunyuan15Denoiser
from longgen.models.hunyuan15.info import describe
from longgen.models.hunyuan15.text import pack
from longgen.models.hunyuan15.vae import stream_decode
from longgen.protocols import Conditions
from longgen.types import LatentGrid, ModelInfo


class Hunyuan15Model(HunyuanModel):
    """HunyuanVideo-1.5: HunyuanVideo's solver and scaling; texts, transformer and VAE of its own."""

    describe = staticmethod(describe)
    needed = frozenset({"vae"})

    @staticmethod
    def kind(info: ModelInfo, path: Path) -> Any:
        return HunyuanVideo15Pipeline

    @property
    def own_attention(self) -> bool:
        """Always: the network's own processors would make masks of all pairs."""
        return True

    @torch.no_grad()
    def encode(self, text: str) -> Tensor:
        """[1, G + L, D] in the transformer's dtype: ByT5's rows of quoted words, then Qwen's."""
        pipe = self.pipe
        words, mask = pipe._get_mllm_prompt_embeds(
            pipe.text_encoder,
            pipe.tokenizer,
            text,
            self.device,
            tokenizer_max_length=self.info.text_tokens,
            system_message=pipe.system_message,
            crop_start=pipe.prompt_template_encode_start_idx,
        )
        told = pipe.encode_prompt(
            text, device=self.device, dtype=self.dtype, prompt_embeds=words, prompt_embeds_mask=mask
        )
        return pack(*told)

    def denoiser(self, conditions: Conditions, grid: LatentGrid, steps: int) -> Hunyuan15Denoiser:
        return Hunyuan15Denoiser(self, conditions, steps)

    def frames(self, chunks: Iterable[Tensor], chunk: int) -> Iterator[Tensor]:
        return stream_decode(self.vae, chunks, chunk, self.device)
