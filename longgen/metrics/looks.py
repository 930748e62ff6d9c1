"""Small per-frame descriptors of the long-video diagnostics, without weights. Knows one frame, no time and no score.

All are taken on grids whose size is a fraction of the picture's height, so that the same video at half the size gives
nearly the same numbers; codec noise is averaged away first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from longgen.metrics.flow import shrink

Vector = NDArray[np.float32]
Frame = NDArray[np.uint8]

TINY = 16
LOOK_SIDE = 32
COLOUR_BINS, COLOUR_SHARE = (8, 12, 12), 0.6
TEXTURE_BINS, TEXTURE_SHARE = (8, 6), 0.4
CHROMA_REACH = 8.0
STEEPEST = 5.0


def tiny(frame: Frame) -> Vector:
    """Colour thumbnail in grey levels, float32 [16·16·3], averaged in floats so that steps below one level survive."""
    fine = cv2.resize(frame, (4 * TINY, 4 * TINY), interpolation=cv2.INTER_AREA)
    cells = fine.reshape(TINY, 4, TINY, 4, 3).mean((1, 3), dtype=np.float32)
    return np.asarray(cells.ravel(), dtype=np.float32)


def look(frame: Frame) -> Vector:
    """What a picture looks like wherever its parts stand: unit vector [1200]; the inner product of two is in 0-1.

    Square roots of two soft joint histograms: colour (L, a, b) and texture (steepness, L). The inner product is the
    mean of their Bhattacharyya coefficients. Motion hardly changes a look, other content does. Chroma is compressed by
    a square root, because most pictures are nearly grey; bins are filled linearly, so no value can jump over an edge.
    """
    picture = lab(shrink(frame, LOOK_SIDE))
    light = picture[..., 0]
    a, b = (np.sign(c) * np.sqrt(np.abs(c)) / CHROMA_REACH for c in (picture[..., 1], picture[..., 2]))
    steep = np.log2(1 + np.hypot(*gradient(np.ascontiguousarray(light)))) / STEEPEST
    colour = soft_histogram((light / 100, (a + 1) / 2, (b + 1) / 2), COLOUR_BINS)
    texture = soft_histogram((steep, light / 100), TEXTURE_BINS)
    vector = np.sqrt(np.concatenate([COLOUR_SHARE * colour, TEXTURE_SHARE * texture]))
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def soft_histogram(values: Sequence[NDArray[Any]], bins: Sequence[int]) -> NDArray[np.float64]:
    """Joint histogram of values in 0-1, [Π bins], sum 1; each value is shared linearly by its neighbouring bins."""
    places = np.zeros((1, values[0].size), dtype=int)
    weights = np.ones((1, values[0].size))
    for value, count in zip(values, bins):
        position = np.clip(value.ravel().astype(np.float64), 0, 1) * (count - 1)
        low = np.minimum(position.astype(int), count - 2)
        high = position - low
        places = np.concatenate([places * count + low, places * count + low + 1])
        weights = np.concatenate([weights * (1 - high), weights * high])
    counts = np.bincount(places.ravel(), weights.ravel(), int(np.prod(bins)))
    return np.asarray(counts / counts.sum())


def lab(rgb: NDArray[np.uint8] | Vector) -> Vector:
    """RGB 0-255 → CIE Lab, float32 [H, W, 3]."""
    return np.asarray(cv2.cvtColor(np.asarray(rgb, dtype=np.float32) / 255, cv2.COLOR_RGB2LAB), dtype=np.float32)


def gradient(grey: Vector) -> tuple[Vector, Vector]:
    """Sobel derivatives (x, y), levels per pixel."""
    dx = cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    dy = cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    return np.asarray(dx, dtype=np.float32), np.asarray(dy, dtype=np.float32)
