"""Condition media: a first-frame image and a control video, read and fitted to the size of the run.

Knows files and sizes. Does not know what a model makes of them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from longgen.errors import BadInput


def read_conditions(
    image: str | None, control: str | None, size: tuple[int, int], frames: int
) -> dict[str, Tensor | None]:
    """`image` as uint8 [H, W, 3] and `control` as uint8 [F, H, W, 3], both resized to `size` (height, width)."""
    return {
        "image": None if image is None else read_image(Path(image), size),
        "control": None if control is None else read_control(Path(control), size, frames),
    }


def read_image(path: Path, size: tuple[int, int]) -> Tensor:
    """uint8 [H, W, 3], resized to (height, width) with Lanczos."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            fitted = picture.convert("RGB").resize((size[1], size[0]), Image.Resampling.LANCZOS)
    except FileNotFoundError:
        raise BadInput(f"image {path} does not exist") from None
    except (UnidentifiedImageError, OSError) as error:
        raise BadInput(f"image {path} cannot be read: {error}") from None
    return torch.from_numpy(np.asarray(fitted).copy())


def read_control(path: Path, size: tuple[int, int], frames: int) -> Tensor:
    """uint8 [F, H, W, 3]; BadInput when the video has fewer frames than the run."""
    import cv2
    import numpy as np

    from longgen.media.read import open_video

    video = open_video(path)
    if len(video) < frames:
        raise BadInput(f"control video {path} has {len(video)} frames; this run needs {frames}")
    picked = [cv2.resize(f, (size[1], size[0]), interpolation=cv2.INTER_AREA) for f in video.frames(0, frames)]
    return torch.from_numpy(np.stack(picked))
