"""A loaded Wan checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import diffusers
from torch import Tensor

from longgen.models.common import PipelineModel, files_of, load_pipeline
from longgen.models.pipeline import PipelineDenoiser
from longgen.models.wan.denoiser import WanDenoiser
from longgen.models.wan.info import describe
from longgen.models.wan.vae import normalise, stream_decode
from longgen.protocols import Conditions
from longgen.types import LatentGrid, LoadOptions, ModelInfo


class WanModel(PipelineModel):
    """Wan2.1 or Wan2.2-A14B, from text or from an image, or Wan2.2-TI2V-5B."""

    @classmethod
    def load(cls, info: ModelInfo, path: Path, options: LoadOptions) -> WanModel:
        # By name: merely importing the image pipeline makes transformers warn where torchvision is missing.
        kind = getattr(diffusers, "WanImageToVideoPipeline" if info.needs_image else "WanPipeline")
        return cls(info, load_pipeline(kind, path, options), options)

    @classmethod
    def from_pipeline(cls, pipe: Any) -> WanModel:
        return cls(describe(files_of(pipe)), pipe, LoadOptions(device=str(pipe._execution_device)))

    def normalise(self, z: Tensor) -> Tensor:
        return normalise(self.pipe.vae, z)

    def denoiser(self, conditions: Conditions, grid: LatentGrid, steps: int) -> PipelineDenoiser:
        return WanDenoiser(self, conditions, grid, steps)

    def decode(self, chunks: Iterable[Tensor], chunk: int = 1) -> Iterator[Tensor]:
        """Final latents [1, C, t, H, W], in order → frames [f, 3, height, width] in [0, 1], streamed."""
        try:
            yield from stream_decode(self.pipe.vae, chunks, chunk, self.device)
        finally:
            self.pipe.maybe_free_model_hooks()  # a run is over: offloaded weights go, caches are emptied
