"""From frames to network inputs without torchvision. Knows tensors, no network.

Resizing follows torchvision on uint8 tensors with antialias off, as VBench calls it: interpolate in float, clamp, round
back to 256 levels. Frames are uint8 [H, W, 3]; results float32 [3, h, w].
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]


def to_tensor(frame: NDArray[np.uint8]) -> Tensor:
    """float32 [3, H, W] with levels 0-255."""
    return torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1).float()


def resize(x: Tensor, size: tuple[int, int], mode: str = "bilinear", antialias: bool = False) -> Tensor:
    """[3, H, W] levels → [3, h, w] levels, rounded."""
    if tuple(x.shape[1:]) == size:
        return x
    y = F.interpolate(x[None], size=size, mode=mode, align_corners=False, antialias=antialias)[0]
    return y.clamp(0, 255).round()


def short_side(height: int, width: int, side: int) -> tuple[int, int]:
    """Size with the short side at `side`, the long one cut to whole pixels as torchvision does.

    >>> short_side(480, 832, 224)
    (224, 388)
    """
    if height <= width:
        return side, int(side * width / height)
    return int(side * height / width), side


def centre_crop(x: Tensor, side: int) -> Tensor:
    """The middle [3, side, side], rounded as torchvision rounds it."""
    top, left = (round((n - side) / 2) for n in x.shape[1:])
    return x[:, top : top + side, left : left + side]


def normalise(x: Tensor, statistics: Statistics) -> Tensor:
    """Levels → (x/255 − mean) / std."""
    mean, std = (torch.tensor(s).view(3, 1, 1) for s in statistics)
    return (x / 255 - mean) / std


def short_side_crop(
    frame: NDArray[np.uint8], side: int, statistics: Statistics, mode: str = "bicubic", crop: bool = True
) -> Tensor:
    """Short side to `side`, centre crop (unless told not to), normalised."""
    x = to_tensor(frame)
    x = resize(x, short_side(x.shape[1], x.shape[2], side), mode)
    return normalise(centre_crop(x, side) if crop else x, statistics)
