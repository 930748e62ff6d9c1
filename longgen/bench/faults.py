"""Faults planted into clips at fixed doses, and the re-encodings that a metric must not care about. Knows no metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from longgen.bench.footage import Clip, Frames
from longgen.media import VideoWriter, open_video

DOSES: dict[str, tuple[float, ...]] = {
    "blur": (0.8, 1.5, 2.5, 4.0, 6.0),
    "step": (3, 6, 10, 16, 32),
    "swap": (1, 2, 3, 4, 5),
    "exposure": (10, 30, 45, 60, 80),
    "warm": (8, 20, 35, 50, 70),
    "tint": (8, 20, 35, 50, 70),
    "fade": (0.85, 0.65, 0.45, 0.25, 0.05),
    "contrast": (0.85, 0.65, 0.5, 0.35, 0.2),
    "noise": (3, 8, 14, 22, 32),
    "loop": (0.2, 0.35, 0.5, 0.6, 0.7),
    "freeze": (0.25, 0.4, 0.55, 0.7, 0.85),
    "foreign": (1, 2, 3, 4, 5),
    "mix": (0.1, 0.25, 0.5, 0.75, 1.0),
    "late": (0.03, 0.08, 0.12, 0.16, 0.2),
    "return": (0.1, 0.25, 0.4, 0.5, 0.6),
}
"""Five doses of each fault, the second the smallest that is plainly visible (and, for exposure, not yet common in
untouched footage):

blur: σ in pixels of 192 rows that the last frame reaches, growing evenly from 0. step: grey levels by which every
second window is brighter. swap: windows of 8 frames that stand in the wrong place, less one. exposure, warm, tint: grey
levels added by the last frame to all channels; to red and taken from blue; taken from green. fade, contrast: share of
the colour, of the contrast left at the end. noise: σ in grey levels at the end. loop: share of the clip that replays
its beginning. freeze: share of the clip that stands still. foreign: pieces of a tenth of the clip that come from
another clip. mix: weight of another clip in the middle tenth. late: delay of the cut to the second shot, as a share of
the clip. return: share of the picture that is another place when the camera comes back.
"""
WINDOW = 16


@dataclass(frozen=True)
class Planted:
    """A clip with what its sidecar would say: window boundaries, shots."""

    frames: Frames
    fps: float
    boundaries: tuple[int, ...]
    shots: tuple[tuple[int, str], ...]


def plant(fault: str, level: int, clip: Clip, other: Clip) -> Planted:
    """`clip` with a fault of dose `level` (0: clean, 1-5); `other` supplies foreign content of the same size."""
    dose = DOSES[fault][level - 1] if level else 0.0
    n = len(clip.frames)
    whole = Planted(clip.frames, clip.fps, tuple(range(WINDOW, n, WINDOW)), ((0, "a"), (n // 2, "b")))
    special: dict[str, Callable[[], Planted]] = {
        "swap": lambda: _swapped(whole, int(dose)),
        "loop": lambda: replace(whole, frames=_looped(clip.frames, dose)),
        "freeze": lambda: replace(whole, frames=_frozen(clip.frames, dose)),
        "foreign": lambda: replace(whole, frames=_foreign(clip.frames, other.frames, int(dose))),
        "mix": lambda: replace(whole, frames=_mixed(clip.frames, other.frames, dose)),
        "late": lambda: replace(whole, frames=_late(clip.frames, other.frames, dose)),
        "return": lambda: _returning(whole, other.frames, dose),
    }
    if fault in special:
        return special[fault]()
    if level == 0:
        return whole
    ramp = np.linspace(0, 1, n)
    if fault == "step":
        ramp = (np.arange(n) // WINDOW % 2).astype(float)
    rng = np.random.default_rng(5)
    frames = [FRAMEWISE[fault](f.astype(np.float32), dose, r, rng) for f, r in zip(clip.frames, ramp)]
    return replace(whole, frames=np.stack([np.clip(np.round(f), 0, 255).astype(np.uint8) for f in frames]))


Image = NDArray[np.float32]


def _blur(frame: Image, dose: float, ramp: float, rng: np.random.Generator) -> Image:
    return np.asarray(cv2.GaussianBlur(frame, (0, 0), dose * ramp)) if dose * ramp > 0.05 else frame


def _brighter(frame: Image, dose: float, ramp: float, rng: np.random.Generator) -> Image:
    return frame + np.float32(dose * ramp)


def _warm(frame: Image, dose: float, ramp: float, rng: np.random.Generator) -> Image:
    return frame + np.float32(dose * ramp) * np.array([1, 0, -1], np.float32)


def _tint(frame: Image, dose: float, ramp: float, rng: np.random.Generator) -> Image:
    return frame - np.float32(dose * ramp) * np.array([0, 1, 0], np.float32)


def _fade(frame: Image, dose: float, ramp: float, rng: np.random.Generator) -> Image:
    grey = frame @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.asarray(grey[..., None] + (frame - grey[..., None]) * np.float32(1 + (dose - 1) * ramp))


def _flatten(frame: Image, dose: float, ramp: float, rng: np.random.Generator) -> Image:
    return np.asarray(frame.mean() + (frame - frame.mean()) * np.float32(1 + (dose - 1) * ramp))


def _noisy(frame: Image, dose: float, ramp: float, rng: np.random.Generator) -> Image:
    return np.asarray(frame + rng.normal(0, dose * ramp, frame.shape), dtype=np.float32)


FRAMEWISE: dict[str, Callable[[Image, float, float, np.random.Generator], Image]] = {
    "blur": _blur,
    "step": _brighter,
    "exposure": _brighter,
    "warm": _warm,
    "tint": _tint,
    "fade": _fade,
    "contrast": _flatten,
    "noise": _noisy,
}


def _swapped(whole: Planted, count: int) -> Planted:
    """Windows of 8 frames, the first `count` + 1 of them in reverse order: one jump more for every window."""
    size = WINDOW // 2
    order = list(range(-(-len(whole.frames) // size)))
    moved = count + 1 if count else 0
    order[:moved] = order[:moved][::-1]
    parts = [whole.frames[k * size : (k + 1) * size] for k in order]
    return replace(whole, frames=np.concatenate(parts), boundaries=tuple(range(size, len(whole.frames), size)))


def _looped(frames: Frames, share: float) -> Frames:
    first = len(frames) - round(share * len(frames))
    return frames[np.arange(len(frames)) % first]


def _frozen(frames: Frames, share: float) -> Frames:
    return frames[np.minimum(np.arange(len(frames)), len(frames) - 1 - round(share * (len(frames) - 1)))]


def _foreign(frames: Frames, other: Frames, count: int) -> Frames:
    mixed, length = frames.copy(), len(frames) // 10
    for k in range(count):
        at = (2 * k + 1) * length
        mixed[at : at + length] = other[np.arange(at, at + length) % len(other)]
    return mixed


def _mixed(frames: Frames, other: Frames, share: float) -> Frames:
    mixed, n = frames.copy(), len(frames)
    for t in range(9 * n // 20, 11 * n // 20):
        mixed[t] = cv2.addWeighted(frames[t], 1 - share, other[t % len(other)], share, 0)
    return mixed


def _late(frames: Frames, other: Frames, delay: float) -> Frames:
    cut = len(frames) // 2 + round(delay * len(frames))
    return np.concatenate([frames[:cut], other[np.arange(cut, len(frames)) % len(other)]])


def _returning(whole: Planted, other: Frames, share: float) -> Planted:
    """The clip forwards and backwards through a window that slides there and back; changed tiles on the way back."""
    n, (height, width) = len(whole.frames), whole.frames.shape[1:3]
    wide = width * 2 // 3
    tiles = np.random.default_rng(3).permutation(30)[: round(share * 30)]
    frames = []
    for t in range(2 * n - 1):
        k = t if t < n else 2 * n - 2 - t
        picture = whole.frames[k].copy()
        if t >= n:
            for tile in tiles:
                y, x = height * (tile // 6) // 5, width * (tile % 6) // 6
                cut = (slice(y, y + height // 5), slice(x, x + width // 6))
                picture[cut] = other[0][cut]
        left = round((width - wide) * k / (n - 1))
        frames.append(picture[:, left : left + wide])
    return replace(whole, frames=np.stack(frames), boundaries=(), shots=())


def crf18(planted: Planted, scratch: Path) -> Planted:
    """Written as H.264 at CRF 18 and read again."""
    path = scratch / "crf18.mp4"
    with VideoWriter(path, planted.fps, crf=18, overwrite=True) as writer:
        writer.write(planted.frames)
    return replace(planted, frames=np.stack(list(open_video(path))))


def half_size(planted: Planted, scratch: Path) -> Planted:
    height, width = planted.frames.shape[1:3]
    small = [cv2.resize(f, (width // 2, height // 2), interpolation=cv2.INTER_AREA) for f in planted.frames]
    return replace(planted, frames=np.stack(small))


def half_rate(planted: Planted, scratch: Path) -> Planted:
    """Every second frame; a boundary or a shot begins with the first kept frame that belongs to it."""
    return Planted(
        planted.frames[::2],
        planted.fps / 2,
        tuple(-(-b // 2) for b in planted.boundaries),
        tuple((-(-start // 2), text) for start, text in planted.shots),
    )


CHANGES: dict[str, Callable[[Planted, Path], Planted]] = {
    "crf18": crf18,
    "half size": half_size,
    "half rate": half_rate,
}
