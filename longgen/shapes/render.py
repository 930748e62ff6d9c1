"""The procedural world: a spec and an identity become frames.

Knows outlines, motion on the torus and compositing; every batch is vectorised in torch. Knows nothing of models or
judging. Lengths are in units of the picture's side, time in frames, y points down, colours are RGB in 0-1.
Letters: B batch, F frames, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from longgen.shapes.grammar import (
    BACKGROUNDS,
    COLOUR_SPREAD,
    COLOURS,
    MOTIONS,
    SHADE_SPREAD,
    SHAPES,
    Spec,
)

SIDE = 64
FPS = 8
NATIVE_FRAMES = 33

SIZE_RANGE = (0.13, 0.20)
SPEED_RANGE = (0.035, 0.05)
GRADIENT_RANGE = (-0.3, 0.3)
LANE_RANGE = (0.25, 0.75)
ORBIT_RANGE = (0.20, 0.27)
ORBIT_OFFSET = 0.06

DIRECTIONS: dict[str, tuple[float, float]] = {
    "drifting left": (-1.0, 0.0),
    "drifting right": (1.0, 0.0),
    "rising": (0.0, -1.0),
    "falling": (0.0, 1.0),
    "circling": (0.0, 0.0),
}
"""Unit direction of each drift on the screen; a circling shape has none."""


@dataclass(frozen=True)
class Identity:
    """What the prompt does not say, constant through a video.

    Args:
        size: r, 0.13-0.20 sides.
        colour: exact RGB of the shape.
        shade: exact RGB of the background before its gradient.
        gradient: g of the vertical factor 1 + g (y/H - 1/2), -0.3 to 0.3.
        speed: sides per frame along the path, 0.035-0.05.
        x: drift: where the shape is at frame 0; circling: the centre's x.
        y: the same, downwards.
        orbit: radius of the circle, 0.20-0.27 sides; 0 for a drift.
        phase: angle on the circle at frame 0, radians; 0 for a drift.
    """

    size: float
    colour: tuple[float, float, float]
    shade: tuple[float, float, float]
    gradient: float
    speed: float
    x: float
    y: float
    orbit: float = 0.0
    phase: float = 0.0


@dataclass(frozen=True)
class Scenes:
    """A batch of videos as tensors, one row each: word indices and identities. All [B], colours [B, 3]."""

    shape: Tensor
    motion: Tensor
    size: Tensor
    colour: Tensor
    shade: Tensor
    gradient: Tensor
    speed: Tensor
    x: Tensor
    y: Tensor
    orbit: Tensor
    phase: Tensor

    def __len__(self) -> int:
        return self.shape.shape[0]

    def to(self, device: torch.device | str) -> Scenes:
        """The same scenes with their tensors on `device`."""
        return Scenes(*(getattr(self, f.name).to(device) for f in fields(self)))

    def identity(self, i: int) -> Identity:
        """The identity of row `i`."""
        row = {f.name: getattr(self, f.name)[i].tolist() for f in fields(Identity)}
        row["colour"], row["shade"] = tuple(row["colour"]), tuple(row["shade"])
        return Identity(**row)


def of(specs: Sequence[Spec], identities: Sequence[Identity]) -> Scenes:
    """Scenes of the given specs and identities, row by row."""
    words = torch.tensor([spec.indices for spec in specs])
    values = {
        f.name: torch.tensor([getattr(one, f.name) for one in identities], dtype=torch.float32)
        for f in fields(Identity)
    }
    return Scenes(shape=words[:, 1], motion=words[:, 2], **values)


def draw(specs: Sequence[Spec], generator: torch.Generator) -> Scenes:
    """Random identities for `specs`, one per spec, each drawn uniformly from its range."""
    n = len(specs)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator)

    words = torch.tensor([spec.indices for spec in specs])
    motion = words[:, 2]
    circling = motion == MOTIONS.index("circling")
    sideways = (motion == MOTIONS.index("drifting left")) | (motion == MOTIONS.index("drifting right"))
    along, lane = uniform(0.0, 1.0), uniform(*LANE_RANGE)
    centre = 0.5 + uniform(-ORBIT_OFFSET, ORBIT_OFFSET, 2)
    colour = torch.tensor([COLOURS[spec.colour] for spec in specs])
    shade = torch.tensor([BACKGROUNDS[spec.background] for spec in specs])
    return Scenes(
        shape=words[:, 1],
        motion=motion,
        size=uniform(*SIZE_RANGE),
        colour=(colour + uniform(-COLOUR_SPREAD, COLOUR_SPREAD, 3)).clamp(0, 1),
        shade=(shade + uniform(-SHADE_SPREAD, SHADE_SPREAD, 3)).clamp(0, 1),
        gradient=uniform(*GRADIENT_RANGE),
        speed=uniform(*SPEED_RANGE),
        x=torch.where(circling, centre[:, 0], torch.where(sideways, along, lane)),
        y=torch.where(circling, centre[:, 1], torch.where(sideways, lane, along)),
        orbit=torch.where(circling, uniform(*ORBIT_RANGE), 0.0),
        phase=torch.where(circling, uniform(0.0, 2 * math.pi), 0.0),
    )


def positions(scenes: Scenes, times: Tensor) -> Tensor:
    """Centres of the shapes.

    Args:
        scenes: B videos.
        times: frame numbers, [F] or [B, F], any sign.

    Returns:
        [B, F, 2] (x, y) in [0, 1), on the torus. Circling runs clockwise on the screen (y points down).
    """
    times = times.to(torch.float64).expand(len(scenes), -1)
    travel = scenes.speed[:, None].double() * times
    direction = torch.tensor([DIRECTIONS[m] for m in MOTIONS], dtype=torch.float64, device=times.device)[scenes.motion]
    angle = scenes.phase[:, None] + travel / scenes.orbit[:, None].clamp(min=1e-6)
    swing = torch.stack([angle.cos(), angle.sin()], -1) * scenes.orbit[:, None, None]
    start = torch.stack([scenes.x, scenes.y], -1)[:, None].double()
    return ((start + direction[:, None] * travel[..., None] + swing) % 1.0).float()


def outline(shape: str, x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """Signed distance-like field of an outline about the origin: negative inside, unit slope across the edge.

    Args:
        shape: one of `grammar.SHAPES`.
        x: coordinates, y down, any broadcastable shapes.
        y: the same.
        r: the size, broadcastable.
    """
    if shape == "circle":
        return torch.hypot(x, y) - r
    if shape == "ring":
        return (torch.hypot(x, y) - 0.8 * r).abs() - 0.28 * r
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.85 * r
    if shape == "diamond":
        return (x.abs() + y.abs()) / math.sqrt(2) - 0.8 * r
    if shape == "triangle":
        return torch.maximum(math.sqrt(3) / 2 * x.abs() - y / 2, y) - 0.55 * r
    if shape == "star":
        return _star(x, y, r)
    raise ValueError(f"unknown shape {shape!r}")


def _star(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """Five points, one up, outer radius 1.2 r, inner 0.5 r: fold into one tenth, then the distance to its edge line."""
    step = 2 * math.pi / 5
    angle = torch.atan2(x, -y)  # 0 at the upper point
    fold = (angle - step * torch.round(angle / step)).abs()  # 0 at a point, step / 2 at a notch
    radius = torch.hypot(x, y)
    u, v = radius * fold.cos(), radius * fold.sin()
    tip, notch_u, notch_v = 1.2, 0.5 * math.cos(step / 2), 0.5 * math.sin(step / 2)
    length = math.hypot(tip - notch_u, notch_v)
    normal_u, normal_v = notch_v / length, (tip - notch_u) / length
    return normal_u * (u - tip * r) + normal_v * v


def masks(
    scenes: Scenes, times: Tensor, side: int = SIDE, corner: Tensor | None = None, crop: int | None = None
) -> Tensor:
    """Anti-aliased coverage of the shapes, [B, F, H, W] in 0-1: a ramp one pixel wide across each edge.

    Args:
        scenes: B videos.
        times: [F] or [B, F] frame numbers.
        side: pixels per side of the whole picture.
        corner: [B, 2] (x, y) of the crop's first pixel; default the origin.
        crop: pixels per side of the crop; default the whole picture.
    """
    crop = crop or side
    centre = positions(scenes, times)
    corner = torch.zeros(len(scenes), 2, device=centre.device) if corner is None else corner
    pixel = (corner[:, :, None] + torch.arange(crop, device=centre.device) + 0.5) / side  # [B, 2, crop]
    offset = (pixel[:, None] - centre[..., None] + 0.5) % 1.0 - 0.5  # [B, F, 2, crop]
    dx, dy = offset[:, :, 0, None, :], offset[:, :, 1, :, None]
    out = torch.empty(*centre.shape[:2], crop, crop, device=centre.device)
    for index, name in enumerate(SHAPES):
        rows = (scenes.shape == index).nonzero().flatten()
        if len(rows):
            field = outline(name, dx[rows], dy[rows], scenes.size[rows, None, None, None])
            out[rows] = (0.5 - field * side).clamp_(0, 1)
    return out


def compose(scenes: Scenes, mask: Tensor, side: int = SIDE, corner: Tensor | None = None) -> Tensor:
    """Colour a coverage mask: [B, F, H, W] -> [B, 3, F, H, W] in 0-1, over the background with its gradient."""
    rows = torch.arange(mask.shape[2], device=mask.device) + 0.5
    rows = rows.expand(len(scenes), -1) if corner is None else rows + corner[:, 1:2]
    factor = 1 + scenes.gradient[:, None] * (rows / side - 0.5)  # [B, H]
    back = (scenes.shade[:, :, None] * factor[:, None]).clamp(0, 1)[:, :, None, :, None]  # [B, 3, 1, H, 1]
    return torch.lerp(back, scenes.colour[:, :, None, None, None], mask[:, None])


def render(
    scenes: Scenes,
    frames: int = NATIVE_FRAMES,
    start: int | Tensor = 0,
    side: int = SIDE,
) -> Tensor:
    """Videos of any length from any start frame.

    Args:
        scenes: B videos.
        frames: F >= 1.
        start: first frame number, one for all or [B].
        side: pixels per side.

    Returns:
        [B, 3, F, side, side] float in 0-1.
    """
    device = scenes.size.device
    times = torch.as_tensor(start, device=device).reshape(-1, 1) + torch.arange(frames, device=device)
    return compose(scenes, masks(scenes, times, side), side)


def to_uint8(video: Tensor) -> Tensor:
    """[B, 3, F, H, W] in 0-1 -> [B, F, H, W, 3] bytes, rounded."""
    return (video.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()
