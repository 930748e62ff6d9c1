"""A loaded HunyuanVideo checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import HunyuanVideoPipeline
from torch import Tensor

from longgen.models import solvers
from longgen.models.common import PipelineModel
from longgen.models.hunyuan.denoiser import HunyuanDenoiser
from longgen.models.hunyuan.info import describe
from longgen.models.hunyuan.text import pack
from longgen.models.hunyuan.vae import stream_decode
from longgen.protocols import Conditions
from longgen.types import LatentGrid, ModelInfo


class HunyuanModel(PipelineModel):
    """HunyuanVideo: two text encoders, joint attention, embedded guidance."""

    describe = staticmethod(describe)

    @staticmethod
    def kind(info: ModelInfo, path: Path) -> Any:
        return HunyuanVideoPipeline

    @property
    def pooled_width(self) -> int:
        """Length of CLIP's pooled vector."""
        return int(self.pipe.transformer.config.pooled_projection_dim)

    @torch.no_grad()
    def encode(self, text: str) -> Tensor:
        """[1, R + L, D] in the transformer's dtype: R rows that hold CLIP's pooled vector, then Llama's words."""
        words, pooled, mask = self.pipe.encode_prompt(
            text, device=self.device, max_sequence_length=self.info.text_tokens
        )
        return pack(pooled.to(self.dtype), words.to(self.dtype), mask)

    def solver(self, name: str | None, steps: int, flow_shift: float | None) -> solvers.SchedulerSolver:
        """Where σ is the step rule's to choose, it runs from 1 towards 0 in equal steps before the shift."""
        if name not in (None, "default", "euler"):
            return super().solver(name, steps, flow_shift)
        shift = flow_shift if flow_shift is not None else self.info.flow_shift
        sigmas = np.linspace(1.0, 0.0, steps + 1)[:-1]
        return solvers.make(self.pipe.scheduler, name, steps, shift, sigmas=sigmas)

    def normalise(self, z: Tensor) -> Tensor:
        return z * self.pipe.vae.config.scaling_factor

    def denoiser(self, conditions: Conditions, grid: LatentGrid, steps: int) -> HunyuanDenoiser:
        return HunyuanDenoiser(self, conditions, steps)

    def frames(self, chunks: Iterable[Tensor], chunk: int) -> Iterator[Tensor]:
        return stream_decode(self.vae, chunks, self.device)
