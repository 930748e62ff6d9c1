"""Condition media: a first-frame image, and videos that steer or begin a run, read and fitted to its size.

Knows files and sizes. Does not know what a model makes of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longgen.errors import BadInput

LOW, HIGH = 5, 95  # percentiles that become black and white: one range for all windows is LongVie's (2508.03694)
DENSE = 64  # grey levels between them below which a map counts as sparse


def read_image(path: Path, size: tuple[int, int]) -> Tensor:
    """uint8 [H, W, 3]: the middle of the image in the proportions of `size` (height, width), resized with Lanczos."""
    import numpy as np
    from PIL import Image, ImageOps

    fitted = ImageOps.fit(_open(path), (size[1], size[0]), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(fitted).copy())


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image that can be read, turned as its camera says."""
    width, height = _open(path).size
    return height, width


def _open(path: Path) -> Any:
    """The whole image in RGB, upright."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except FileNotFoundError:
        raise BadInput(f"image {path} does not exist") from None
    except Image.UnidentifiedImageError:
        raise BadInput(f"image {path} is not an image that can be read, such as PNG or JPEG") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadInput(f"image {path} cannot be read: {' '.join(str(error).split())}") from None


@dataclass(frozen=True)
class Fitted:
    """Frames of a video at the size of a run, uint8 [H, W, 3], decoded as they are iterated over.

    Args:
        size: (height, width).
        start: first frame.
        count: frames in all; the video's last stands for those past its end.
        levels: grey levels that become 0 and 255, everything between in proportion; None leaves all as it is.
    """

    path: Path
    size: tuple[int, int]
    start: int
    count: int
    levels: tuple[int, int] | None = None

    def __iter__(self) -> Iterator[Tensor]:
        import cv2

        from longgen.media.read import open_video

        video, table = open_video(self.path), None if self.levels is None else stretch(*self.levels)
        there = min(self.start + self.count, len(video))
        frame = None
        for picture in video.frames(self.start, there):
            fitted = cv2.resize(picture, (self.size[1], self.size[0]), interpolation=cv2.INTER_AREA)
            frame = torch.from_numpy(fitted if table is None else cv2.LUT(fitted, table.numpy()))
            yield frame
        for _ in range(self.start + self.count - there):
            assert frame is not None
            yield frame


def stretch(low: int, high: int) -> Tensor:
    """Table [256] uint8 that takes grey level `low` to 0 and `high` to 255.

    >>> stretch(50, 101)[[0, 50, 60, 101, 255]].tolist()
    [0, 0, 50, 255, 255]
    """
    level = torch.arange(256, dtype=torch.float64)
    return ((level - low) / (high - low) * 255).round().clamp(0, 255).to(torch.uint8)


def whole_range(path: Path) -> tuple[int, int] | None:
    """The 5th and 95th percentile of all values of a whole video: one range for all its windows.

    None for sparse maps (edges, poses), whose percentiles say nothing: fewer than 64 levels apart.
    """
    import numpy as np

    from longgen.media.read import open_video

    counts = np.zeros(256, dtype=np.int64)
    for frame in open_video(path):
        counts += np.bincount(frame.ravel(), minlength=256)
    share = np.cumsum(counts) / counts.sum()
    low, high = (int(np.searchsorted(share, percent / 100)) for percent in (LOW, HIGH))
    return (low, high) if high - low >= DENSE else None
