"""Small clips whose right answers are known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from longgen.media import VideoWriter


def texture(height: int, width: int, seed: int = 0, blur: float = 2.0) -> np.ndarray:
    """Smooth random colour texture that wraps round at the edges, uint8 [H, W, 3], full range."""
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    wide = np.pad(noise, ((16, 16), (16, 16), (0, 0)), mode="wrap")
    smooth = cv2.GaussianBlur(wide, (0, 0), blur)[16:-16, 16:-16]
    return ((smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255).astype(np.uint8)


def panning(frames: int, height: int, width: int, step: int, seed: int = 0, blur: float = 2.0) -> np.ndarray:
    """A texture that moves `step` whole pixels to the right in every frame, wrapping round."""
    base = texture(height, width, seed, blur)
    return np.stack([np.roll(base, t * step, axis=1) for t in range(frames)])


def save(path: Path, clip: np.ndarray, fps: float = 8) -> Path:
    with VideoWriter(path, fps, overwrite=True) as writer:
        writer.write(clip)
    return path
