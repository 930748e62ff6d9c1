"""A loaded Wan checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import diffusers
from torch import Tensor

from longgen.models.common import PipelineModel
from longgen.models.pipeline import PipelineDenoiser
from longgen.models.wan.denoiser import WanDenoiser
from longgen.models.wan.info import describe
from longgen.models.wan.vae import normalise, stream_decode
from longgen.protocols import Conditions
from longgen.types import LatentGrid, ModelInfo


class WanModel(PipelineModel):
    """Wan2.1 or Wan2.2-A14B, from text or from an image, or Wan2.2-TI2V-5B."""

    describe = staticmethod(describe)

    @staticmethod
    def kind(info: ModelInfo, path: Path) -> Any:
        # By name: merely importing the image pipeline makes transformers warn where torchvision is missing.
        return getattr(diffusers, "WanImageToVideoPipeline" if info.needs_image else "WanPipeline")

    def normalise(self, z: Tensor) -> Tensor:
        return normalise(self.pipe.vae, z)

    def denoiser(self, conditions: Conditions, grid: LatentGrid, steps: int) -> PipelineDenoiser:
        return WanDenoiser(self, conditions, grid, steps)

    def frames(self, chunks: Iterable[Tensor], chunk: int) -> Iterator[Tensor]:
        return stream_decode(self.vae, chunks, chunk, self.device)
