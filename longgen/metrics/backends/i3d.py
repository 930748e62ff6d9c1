"""I3D (Kinetics-400) as a TorchScript file, the detector of FVD. 400 logits per clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longgen.metrics.backends import hub
from longgen.metrics.backends.pixels import centre_crop, resize, short_side, to_tensor

SIDE = 224
SOURCE = "hub flateon/FVD-I3D-torchscript; a TorchScript file is a program: use only one you trust"


class I3d:
    """Frames of one clip → logits [400]. Short side 224, centre crop, [−1, 1] (StyleGAN-V's convention)."""

    comparable = False

    def __init__(self, model: Any, name: str, device: str = "cpu", side: int = SIDE) -> None:
        self.model, self.id, self.device, self.side = model.eval().to(device), name, device, side

    @torch.inference_mode()
    def __call__(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        clip = torch.stack([self._prepare(f) for f in frames], dim=1)[None].to(self.device)  # [1, 3, T, h, w]
        return np.asarray(self.forward(clip)[0].float().cpu(), dtype=np.float32)

    def forward(self, clip: Tensor) -> Tensor:
        """The published script takes three switches beside the clip."""
        out: Tensor = self.model(clip, rescale=False, resize=False, return_features=True)
        return out

    def _prepare(self, frame: NDArray[np.uint8]) -> Tensor:
        x = to_tensor(frame)
        return centre_crop(resize(x, short_side(x.shape[1], x.shape[2], self.side)), self.side) / 127.5 - 1


class ToyI3d(I3d):
    """A small 3-D convolution with random weights, for tests of shape and invariance."""

    def forward(self, clip: Tensor) -> Tensor:
        out: Tensor = self.model(clip).flatten(2).mean(-1)
        return out


def load_i3d(spec: str, device: str = "cpu") -> I3d:
    """Role `i3d`: `i3d_torchscript.pt` in longgen's cache, a path, or random:<seed>."""
    seed = hub.seed_of(spec)
    if seed is not None:
        with hub.seeded(seed):
            return ToyI3d(torch.nn.Conv3d(3, 8, (3, 8, 8), (2, 4, 4)), spec, device, side=32)
    path = hub.file_of("i3d", spec, SOURCE)
    return I3d(torch.jit.load(path, map_location="cpu"), path.name, device)
