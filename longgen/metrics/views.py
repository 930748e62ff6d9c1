"""Views of a place: key points, how two views lie over one another, and how alike they then are."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from longgen.metrics.flow import shrink
from longgen.metrics.longstats import Floats

ROWS = 120
INLIERS, INLIER_SHARE = 12, 0.25
BLOCK = 15
TEXTURED = 4.0


@dataclass(frozen=True)
class Key:
    """One view: luma [h, w], key points [k, 2], their descriptors [k, 32]."""

    grey: NDArray[np.uint8]
    points: NDArray[np.float32]
    descriptors: NDArray[np.uint8]


def key(frame: NDArray[np.uint8]) -> Key:
    """The view that a frame shows, on at most 120 rows."""
    grey = np.asarray(cv2.cvtColor(shrink(frame, ROWS), cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    finder = cv2.ORB.create(nfeatures=400, fastThreshold=8, patchSize=21, edgeThreshold=12)
    points, descriptors = finder.detectAndCompute(grey, None)
    if descriptors is None:
        return Key(grey, np.zeros((0, 2), np.float32), np.zeros((0, 32), np.uint8))
    return Key(grey, np.array([p.pt for p in points], np.float32), np.asarray(descriptors, dtype=np.uint8))


def align(first: Key, second: Key) -> Floats | None:
    """Similarity transform [2, 3] from the first view to the second, or None when they do not show the same place."""
    if min(len(first.points), len(second.points)) < INLIERS:
        return None
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(first.descriptors, second.descriptors)
    if len(matches) < INLIERS:
        return None
    a = first.points[[m.queryIdx for m in matches]]
    b = second.points[[m.trainIdx for m in matches]]
    matrix, inliers = cv2.estimateAffinePartial2D(a, b, method=cv2.RANSAC, ransacReprojThreshold=2.0)
    if matrix is None or inliers.sum() < max(INLIERS, INLIER_SHARE * len(matches)):
        return None
    return np.asarray(matrix, dtype=np.float64)


def displacement(matrix: Floats, grey: NDArray[np.uint8]) -> float:
    """Largest movement of a corner of the view, as a share of its width."""
    height, width = grey.shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], dtype=np.float64)
    return float(np.linalg.norm(corners @ matrix.T - corners[:, :2], axis=1).max()) / width


def likeness(first: NDArray[np.uint8], second: NDArray[np.uint8], matrix: Floats) -> float:
    """Mean over textured blocks of the second view of max(0, NCC) with the first one moved onto it."""
    height, width = second.shape
    moved = cv2.warpAffine(first, matrix, (width, height), flags=cv2.INTER_LINEAR).astype(np.float64)
    inside = cv2.warpAffine(np.ones_like(first), matrix, (width, height), flags=cv2.INTER_NEAREST)
    values = []
    for y in range(0, height - BLOCK + 1, BLOCK):
        for x in range(0, width - BLOCK + 1, BLOCK):
            cut = (slice(y, y + BLOCK), slice(x, x + BLOCK))
            a, b = moved[cut], second[cut].astype(np.float64)
            if inside[cut].all() and max(a.std(), b.std()) > TEXTURED:
                product = ((a - a.mean()) * (b - b.mean())).mean()
                values.append(max(0.0, product / max(a.std() * b.std(), 1e-9)))
    return float(np.mean(values)) if values else 1.0
