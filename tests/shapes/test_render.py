"""The renderer against the design's formulas, written out again in NumPy with 16 samples per pixel and axis."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from longgen.shapes import render
from longgen.shapes.grammar import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, Spec, all_specs


def inside(shape: str, x: NDArray[np.float64], y: NDArray[np.float64], r: float) -> NDArray[np.bool_]:
    """The design's outlines, y down; the star as a polygon of ten corners by the even-odd rule."""
    radius = np.hypot(x, y)
    if shape == "star":
        turns = np.arange(10) * math.pi / 5
        length = np.where(np.arange(10) % 2 == 0, 1.2 * r, 0.5 * r)
        corner_x, corner_y = length * np.sin(turns), -length * np.cos(turns)
        odd = np.zeros_like(x, dtype=bool)
        for i in range(10):
            x0, y0, x1, y1 = corner_x[i], corner_y[i], corner_x[i - 1], corner_y[i - 1]
            crosses = (y0 > y) != (y1 > y)
            odd ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
        return odd
    return {
        "circle": radius < r,
        "ring": np.abs(radius - 0.8 * r) < 0.28 * r,
        "square": np.maximum(np.abs(x), np.abs(y)) < 0.85 * r,
        "diamond": (np.abs(x) + np.abs(y)) / math.sqrt(2) < 0.8 * r,
        "triangle": np.maximum(math.sqrt(3) / 2 * np.abs(x) - y / 2, y) < 0.55 * r,
    }[shape]


def place(motion: str, one: render.Identity, t: float) -> tuple[float, float]:
    """Where the shape is at time t."""
    if motion == "circling":  # clockwise on a screen whose y points down: the angle grows
        angle = one.phase + one.speed / one.orbit * t
        return one.x + one.orbit * math.cos(angle), one.y + one.orbit * math.sin(angle)
    step = {"drifting left": (-1, 0), "drifting right": (1, 0), "rising": (0, -1), "falling": (0, 1)}[motion]
    return one.x + step[0] * one.speed * t, one.y + step[1] * one.speed * t


def reference(spec: Spec, one: render.Identity, t: float) -> NDArray[np.float64]:
    """One frame, [64, 64, 3] in 0-1."""
    fine = (np.arange(64 * 16) + 0.5) / (64 * 16)
    cx, cy = place(spec.motion, one, t)
    x, y = np.meshgrid((fine - cx + 0.5) % 1 - 0.5, (fine - cy + 0.5) % 1 - 0.5)
    cover = inside(spec.shape, x, y, one.size).reshape(64, 16, 64, 16).mean((1, 3))[..., None]
    factor = 1 + one.gradient * ((np.arange(64) + 0.5) / 64 - 0.5)
    back = np.clip(np.array(one.shade) * factor[:, None, None], 0, 1)
    return back * (1 - cover) + np.array(one.colour) * cover


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("motion", MOTIONS)
def test_frames_follow_the_formulas(shape: str, motion: str) -> None:
    spec = Spec("yellow", shape, motion, "navy")
    scenes = render.draw([spec], torch.Generator().manual_seed(len(shape) + len(motion)))
    for t in (0, 11, 500):
        frame = render.render(scenes, 1, start=t)[0, :, 0].permute(1, 2, 0).numpy()
        error = np.abs(frame - reference(spec, scenes.identity(0), t))
        assert error.mean() < 2e-3  # anti-aliasing differs by a fraction of an edge pixel
        assert (error.max(-1) > 0.35).mean() < 2e-3  # at sharp points alone


def test_identities_lie_in_their_ranges_and_fill_them() -> None:
    specs = list(all_specs())
    scenes = render.draw(specs, torch.Generator().manual_seed(0))
    for values, (low, high) in (
        (scenes.size, render.SIZE_RANGE),
        (scenes.speed, render.SPEED_RANGE),
        (scenes.gradient, render.GRADIENT_RANGE),
    ):
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < values.max() <= high
    colour = torch.tensor([COLOURS[s.colour] for s in specs])
    shade = torch.tensor([BACKGROUNDS[s.background] for s in specs])
    assert (scenes.colour - colour).abs().max() <= 0.06 + 1e-6
    assert (scenes.shade - shade).abs().max() <= 0.04 + 1e-6
    circling = scenes.motion == MOTIONS.index("circling")
    assert ((scenes.orbit[circling] >= 0.2) & (scenes.orbit[circling] <= 0.27)).all()
    assert (scenes.orbit[~circling] == 0).all()


@pytest.mark.parametrize("start", [0, 5, 40])
@pytest.mark.parametrize("frames", [1, 2, 9])
def test_any_stretch_is_a_cut_of_the_whole(start: int, frames: int) -> None:
    specs = [Spec("red", "ring", "circling", "teal"), Spec("white", "star", "rising", "gray")]
    scenes = render.draw(specs, torch.Generator().manual_seed(3))
    whole = render.render(scenes, 64)
    torch.testing.assert_close(render.render(scenes, frames, start), whole[:, :, start : start + frames])


def test_crops_are_cuts_and_rows_survive_the_identity() -> None:
    specs = [Spec("blue", "square", "drifting left", "brown"), Spec("green", "circle", "circling", "black")]
    scenes = render.draw(specs, torch.Generator().manual_seed(4))
    whole = render.render(scenes, 5)
    corner = torch.tensor([[7.0, 20.0], [30.0, 1.0]])
    crop = render.compose(scenes, render.masks(scenes, torch.arange(5), corner=corner, crop=24), corner=corner)
    for i, (x, y) in enumerate(corner.int().tolist()):
        torch.testing.assert_close(crop[i], whole[i, :, :, y : y + 24, x : x + 24], atol=1e-5, rtol=0)
    again = render.of(specs, [scenes.identity(0), scenes.identity(1)])
    torch.testing.assert_close(render.render(again, 5), whole)


def test_same_seed_same_videos() -> None:
    specs = list(all_specs())[:5]
    one, two = (render.draw(specs, torch.Generator().manual_seed(9)) for _ in range(2))
    assert torch.equal(render.render(one, 3), render.render(two, 3))
