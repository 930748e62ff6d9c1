"""Optical flow without weights and what follows from it. Knows OpenCV, no metric.

DIS (dense inverse search, arXiv 1603.03590), medium preset, gives the same bits on any number of threads.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Flow = NDArray[np.float32]

FLOW_SIDE = 256


def shrink(frame: Image, side: int = FLOW_SIDE) -> Image:
    """Frame [H, W, …] with its short side at most `side`, by area averaging; smaller frames stay as they are."""
    height, width = frame.shape[:2]
    scale = side / min(height, width)
    if scale >= 1:
        return frame
    size = (round(width * scale), round(height * scale))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def grey(frame: Image) -> Image:
    """RGB [H, W, 3] → luma [h, w] on the flow grid."""
    return np.asarray(cv2.cvtColor(shrink(frame), cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def dis(first: Image, second: Image) -> Flow:
    """Flow from `first` to `second`, uint8 [h, w] each, float32 [h, w, 2]: second(p + flow(p)) ≈ first(p)."""
    # DIS needs at least a few patches of 8 pixels; thumbnails below that are enlarged by repetition.
    short = min(first.shape)
    if short < 32:
        factor = -(-32 // short)
        size = (first.shape[1] * factor, first.shape[0] * factor)
        large = [
            np.asarray(cv2.resize(x, size, interpolation=cv2.INTER_NEAREST), dtype=np.uint8) for x in (first, second)
        ]
        return resize_flow(dis(*large), (first.shape[0], first.shape[1]))
    engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = np.zeros((*first.shape, 2), np.float32)
    return np.asarray(engine.calc(first, second, flow), dtype=np.float32)


def resize_flow(flow: Flow, size: tuple[int, int]) -> Flow:
    """Flow on another grid (height, width), its vectors scaled with the grid."""
    height, width = size
    scale = np.array([width / flow.shape[1], height / flow.shape[0]], np.float32)
    large = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large * scale, dtype=np.float32)


def warp(image: NDArray[np.uint8] | NDArray[np.float32], flow: Flow) -> NDArray[np.float32]:
    """image(p + flow(p)), bilinear, edges replicated; float32, the image's shape."""
    height, width = flow.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    moved = cv2.remap(
        image.astype(np.float32), x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, dtype=np.float32)


def residual(first: Image, second: Image, flow: Flow) -> float:
    """mean |warp(second; flow) − first| / 255, with flow from first to second."""
    return float(np.abs(warp(second, flow) - first.astype(np.float32)).mean(dtype=np.float64)) / 255


def top_mean(values: NDArray[np.float32], fraction: float) -> float:
    """Mean of the largest `fraction` of the values (VBench's rule: int(n · fraction) of them, at least one).

    >>> top_mean(np.arange(100, dtype=np.float32), 0.05)
    97.0
    """
    flat = values.ravel()
    k = max(1, int(flat.size * fraction))
    return float(np.partition(flat, flat.size - k)[flat.size - k :].mean(dtype=np.float64))


def thumbnail(frame: Image, side: int) -> Flow:
    """Unit vector [3·side² + 1]: colour thumbnail less its mean, and a constant component of one grey level."""
    small = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
    vector = np.append(small - small.mean(), np.sqrt(small.size))
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)
