"""Qualities of one frame whose slow change is drift. Knows one frame, no time and no score."""

from __future__ import annotations

import cv2
import numpy as np

from longgen.metrics.flow import shrink
from longgen.metrics.looks import Frame, Vector, gradient, lab

SIDE = 64
"""All but noise are measured on 64 rows: half the size then measures the same scales, and coding is averaged away."""
QUALITIES = ("luma", "saturation", "contrast", "sharpness", "noise", "lab_a", "lab_b")
UNITS = ("grey levels", "nepers", "nepers", "nepers", "grey levels", "Lab a", "Lab b")
VISIBLE = (10.0, 0.25, 0.2, 0.06, 1.5, 4.0, 4.0)
"""A change of each that is easily seen when start and end stand side by side; weighs them in `start_end_contrast`."""


def qualities(frame: Frame) -> Vector:
    """Qualities whose slow change is drift, float32 [7], in the order of `QUALITIES`.

    luma: mean, grey levels. saturation: ln of mean Lab chroma (over 1). contrast: ln of the standard deviation of luma
    (over 1): a change of 0.1 is 10 %, for pale and for strong pictures alike.
    sharpness: ½ ln(mean Laplacian² / mean gradient²), nepers, after a Gaussian of one row: how fine the edges
    are, whatever their contrast.
    noise: Immerkær's σ of the calmest fifth of 8×8 blocks of the file's own pixels, grey levels.
    lab_a, lab_b: mean Lab a and b.
    """
    small = shrink(frame, SIDE).astype(np.float32)
    picture, grey = lab(small), np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.float32)
    inner = (slice(1, -1),) * 2 if min(grey.shape) > 2 else ...
    # smoothed first, so that what shrinking from one size or another leaves of the finest detail does not matter
    smooth = np.asarray(cv2.GaussianBlur(grey, (0, 0), 1.0), dtype=np.float32)
    fine = cv2.Laplacian(smooth, cv2.CV_32F)[inner]
    dx, dy = gradient(smooth)
    steep = dx[inner] ** 2 + dy[inner] ** 2
    sharp = 0.5 * np.log((np.mean(fine**2) + 0.02) / (np.mean(steep) + 0.02))
    values = (
        grey.mean(),
        np.log(1 + np.hypot(picture[..., 1], picture[..., 2]).mean()),
        np.log(1 + grey.std()),
        sharp,
        _noise(np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), dtype=np.uint8)),
        picture[..., 1].mean(),
        picture[..., 2].mean(),
    )
    return np.array(values, dtype=np.float32)


def _noise(grey: Frame) -> float:
    """Immerkær's mask (variance 36 for unit noise) by 8×8 blocks; the calmest fifth is the least textured."""
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = cv2.filter2D(grey, cv2.CV_32F, mask)[1:-1, 1:-1]
    rows, columns = response.shape[0] // 8, response.shape[1] // 8
    if rows == 0 or columns == 0:  # a picture of less than ten rows: all of it is one block
        return float(np.sqrt(np.mean(response**2) / 36)) if response.size else 0.0
    blocks = response[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8)
    power = np.sort((blocks**2).mean((1, 3)).ravel()) / 36
    return float(np.sqrt(power[: max(1, power.size // 5)].mean()))
