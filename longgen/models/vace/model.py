"""A loaded Wan-VACE checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import torch
from diffusers import WanVACEPipeline
from torch import Tensor

from longgen.models.vace.denoiser import VaceDenoiser
from longgen.models.vace.info import describe
from longgen.models.wan.model import WanModel
from longgen.models.wan.vae import memory, stream_encode
from longgen.protocols import Conditions
from longgen.types import LatentGrid, ModelInfo


class VaceModel(WanModel):
    """Wan2.1-VACE, or a Wan2.2-VACE of two experts."""

    describe = staticmethod(describe)

    @staticmethod
    def kind(info: ModelInfo, path: Path) -> Any:
        return WanVACEPipeline

    def denoiser(self, conditions: Conditions, grid: LatentGrid, steps: int) -> VaceDenoiser:
        return VaceDenoiser(self, conditions, grid, steps)

    def encode_control(self, frames: Iterable[Tensor]) -> Tensor:
        """A control video, uint8 frames [H, W, 3] that are read as a stream → latents [1, C, T, h, w] on the CPU."""
        pixels = (frame.permute(2, 0, 1).float() / 255 * 2 - 1 for frame in frames)
        return torch.cat(self._encoded(pixels), dim=2)

    def encode_gray(self, grid: LatentGrid) -> Tensor:
        """Latents of the gray that stands for frames to be made, [1, C, n, h, w]; from n − 1 on they do not change."""
        latents = min(grid.frames, memory(self.pipe.vae) + 1)
        frames = repeat(self._gray(grid.height, grid.width), (latents - 1) * grid.stride + 1)
        return torch.cat(self._encoded(frames), dim=2)

    def encode_after(self, known: Tensor, latents: int) -> Tensor:
        """The gray after known latents [1, C, k, h, w], with what the encoder remembers of them, [1, C, latents, h, w].

        Their pictures are decoded as a clip of its own for that.
        """
        gray = self._gray(*known.shape[-2:])
        pictures = (f.cpu() * 2 - 1 for piece in self.frames([known], 1) for f in piece)
        frames = chain(list(pictures), repeat(gray, latents * self.info.stride))
        return torch.cat(self._encoded(frames)[known.shape[2] :], dim=2)

    def _encoded(self, frames: Iterable[Tensor]) -> list[Tensor]:
        """Latents, one by one [1, C, 1, h, w], of frames [3, height, width] in [−1, 1]."""
        return [z.cpu() for z in stream_encode(self.vae, frames, self.device)]

    def _gray(self, height: int, width: int) -> Tensor:
        """A frame [3, ·, ·] of mid-gray, for latents of this size."""
        return torch.zeros(3, height * self.info.spatial, width * self.info.spatial)
