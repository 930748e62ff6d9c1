"""A loaded CogVideoX checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from diffusers import CogVideoXImageToVideoPipeline, CogVideoXPipeline
from torch import Tensor

from longgen.errors import BadInput
from longgen.models import solvers
from longgen.models.cogvideox.denoiser import CogVideoXDenoiser
from longgen.models.cogvideox.info import describe
from longgen.models.cogvideox.vae import stream_decode, without_first
from longgen.models.common import PipelineModel
from longgen.protocols import Conditions
from longgen.types import LatentGrid, ModelInfo


class CogVideoXModel(PipelineModel):
    """CogVideoX-2B, CogVideoX-5B or CogVideoX1.5-5B, the latter two from text or from an image."""

    describe = staticmethod(describe)

    @staticmethod
    def kind(info: ModelInfo, path: Path) -> Any:
        return CogVideoXImageToVideoPipeline if info.needs_image else CogVideoXPipeline

    def solver(self, name: str | None, steps: int, flow_shift: float | None) -> solvers.SchedulerSolver:
        """The checkpoint's own rule, or one of `solvers.PRESERVING` over the same schedule."""
        if flow_shift is not None:
            raise BadInput("CogVideoX is no flow model and has no flow shift; leave --flow-shift out")
        return solvers.make(self.pipe.scheduler, name, steps)

    def normalise(self, z: Tensor) -> Tensor:
        return z * self.pipe.vae.config.scaling_factor

    def encode_image(self, image: Tensor) -> Tensor:
        """An image uint8 [H, W, 3] as an image-to-video checkpoint sees it beside the noise, [1, C, 1, H, W].

        Some were trained with latents that were divided by the VAE's scaling factor where others are multiplied.
        """
        z, config = self.encode_pixels(self.pixels(image[None])), self.pipe.vae.config
        return z / config.scaling_factor**2 if config.invert_scale_latents else z

    def denoiser(self, conditions: Conditions, grid: LatentGrid, steps: int) -> CogVideoXDenoiser:
        return CogVideoXDenoiser(self, conditions, grid, steps)

    def rotary(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """The pipeline's own (cos, sin), each [S, D], for latents [B, C, T, H, W]; None with absolute positions."""
        if "rope" in self.info.refusals:
            return None
        frames, height, width = x.shape[2:]
        space = self.info.spatial
        return self.pipe._prepare_rotary_positional_embeddings(height * space, width * space, frames, self.device)

    def frames(self, chunks: Iterable[Tensor], chunk: int) -> Iterator[Tensor]:
        return stream_decode(self.vae, without_first(chunks, self.info.lead_pad), self.device)

    def to_model(self, x: Tensor) -> Tensor:
        """[1, C, T, H, W] → [1, T, C, H, W]."""
        return x.transpose(1, 2)

    def from_model(self, x: Tensor, grid: LatentGrid) -> Tensor:
        return x.transpose(1, 2)
