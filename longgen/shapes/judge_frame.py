"""Reads every frame of a shapes video: background, object, colour, outline. Exact on rendered truth.

Knows the world of `grammar` and `render` and nothing else: no model, no codec, no prompt. All frames are read at
once. Letters: F frames, H W pixels, K outlines, R radii, P pixels of a patch. Lengths are in sides, colours in 0-1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longgen.shapes.grammar import BACKGROUNDS, COLOURS, SHAPES
from longgen.shapes.render import outline

Array = NDArray[Any]

MIN_CONTRAST = 0.15
"""RGB distance from the background below which a frame holds no object."""
FOREGROUND = 0.25
"""RGB distance at which a pixel belongs to some object, unless half the main object's contrast is lower."""
MIN_OBJECT = 12
"""Pixels below which a component is a speck; the smallest true outline has about 100."""
COLOUR_REACH = 0.30
"""RGB distance to the nearest colour word beyond which a colour has no name (words are at least 0.45 apart)."""
SHADE_REACH = 0.20
"""The same for backgrounds."""
MIN_OVERLAP = 0.60
"""Soft intersection over union with the best outline below which a blob has no shape."""
RADII = (0.92, 1.0, 1.08)
"""Sizes tried per outline, relative to the size that gives the blob's area."""
AREA = {
    "circle": math.pi,
    "ring": math.pi * (1.08**2 - 0.52**2),
    "square": 1.7**2,
    "diamond": 4 * 0.8**2,
    "triangle": 3 * math.sqrt(3) * 0.55**2,
    "star": 5 * 1.2 * 0.5 * math.sin(math.pi / 5),
}
"""Area of each outline over r squared."""


@dataclass(frozen=True)
class Reading:
    """What each frame shows; arrays over F frames. Word indices follow `grammar`'s lists, -1 where nothing fits.

    Args:
        colour: index of the colour word.
        shape: index of the outline.
        background: index of the background word.
        objects: number of separate objects on the torus.
        x: centre of the main object, 0-1.
        y: the same, downwards.
        size: r of the outline.
        rgb: exact colour, [F, 3].
        shade: exact background before its gradient, [F, 3].
        gradient: g.
        overlap: soft intersection over union with the best outline, 0-1.
    """

    colour: Array
    shape: Array
    background: Array
    objects: Array
    x: Array
    y: Array
    size: Array
    rgb: Array
    shade: Array
    gradient: Array
    overlap: Array

    def __len__(self) -> int:
        return len(self.x)

    def part(self, first: int, last: int) -> Reading:
        """Frames [first, last)."""
        return Reading(**{name: value[first:last] for name, value in vars(self).items()})

    @property
    def present(self) -> Array:
        """Where an object is to be seen, [F] bool."""
        return np.asarray(self.objects > 0)


@torch.no_grad()
def read(frames: Tensor | Array) -> Reading:
    """Read a video, uint8 [F, H, W, 3] or float [F, H, W, 3] in 0-1, square frames."""
    video = torch.as_tensor(frames)
    if video.ndim != 4 or video.shape[-1] != 3 or video.shape[1] != video.shape[2]:
        raise ValueError(f"a shapes video is [frames, side, side, 3], not {tuple(video.shape)}")
    parts = [_read(part) for part in video.split(32)]  # frames are independent; a few at a time stay in cache
    return Reading(**{name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]})


def _read(video: Tensor) -> dict[str, Tensor]:
    video = video.float() / 255 if video.dtype == torch.uint8 else video.float()
    video = video.permute(0, 3, 1, 2)  # F 3 H W
    shade, gradient, back = _background(video)
    delta = video - back
    distance = delta.square().sum(1).sqrt()  # F H W
    rgb, contrast = _object_colour(video, distance)
    main, objects = _objects(distance, contrast)
    axis = (rgb - back.mean((2, 3)))[:, :, None, None]
    cover = (delta * axis).sum(1) / axis.square().sum(1).clamp(min=1e-6)
    cover = cover.clamp(0, 1) * _grow(main)
    centre = _centre(cover)
    shape, size, overlap = _outline(cover, centre)
    there = objects > 0
    shape = torch.where(there & (overlap >= MIN_OVERLAP), shape, -1)
    return {
        "colour": torch.where(there, _nearest(rgb, COLOURS, COLOUR_REACH), -1),
        "shape": shape,
        "background": _nearest(shade, BACKGROUNDS, SHADE_REACH),
        "objects": objects,
        "x": centre[:, 0],
        "y": centre[:, 1],
        "size": size,
        "rgb": rgb,
        "shade": shade,
        "gradient": gradient,
        "overlap": overlap,
    }


def _background(video: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shade [F, 3], gradient [F] and background image [F, 3, H, W].

    The object never covers half a row, so row medians are background; a line through them gives shade and slope.
    """
    rows = video.median(3).values  # F 3 H
    height = rows.shape[2]
    y = (torch.arange(height) + 0.5) / height - 0.5
    shade = rows.mean(2)
    slope = (rows * y).sum(2) / y.square().sum()  # F 3
    gradient = (slope * shade).sum(1) / shade.square().sum(1).clamp(min=1e-6)
    back = shade[:, :, None] + slope[:, :, None] * y
    return shade, gradient, back[..., None].expand_as(video)


def _object_colour(video: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
    """Colour [F, 3] and contrast [F] of what differs most from the background.

    Contrast is that of the 24th most distant pixel, so that single specks do not count; the colour is the median
    over the pixels that reach 85 % of it.
    """
    flat = distance.flatten(1)
    contrast = flat.topk(24, dim=1).values[:, -1]
    core = (flat >= 0.85 * contrast[:, None]) & (flat <= 1.3 * contrast[:, None])
    pixels = video.flatten(2).masked_fill(~core[:, None], math.nan)  # F 3 HW
    return pixels.nanmedian(2).values, contrast


def _objects(distance: Tensor, contrast: Tensor) -> tuple[Tensor, Tensor]:
    """Largest component [F, H, W] bool and number of components [F], on the torus."""
    threshold = (0.5 * contrast).clamp(max=FOREGROUND)[:, None, None]
    ground = (distance > threshold) & (contrast > MIN_CONTRAST)[:, None, None]
    labels = components(ground)
    frames, height, width = labels.shape
    sizes = torch.zeros(frames, height * width + 1)
    sizes.scatter_add_(1, labels.flatten(1), torch.ones(frames, height * width))
    sizes[:, 0] = 0
    objects = (sizes >= MIN_OBJECT).sum(1)
    largest = sizes.argmax(1)
    main = (labels == largest[:, None, None]) & (objects > 0)[:, None, None]
    return main, objects


def components(ground: Tensor) -> Tensor:
    """Label the components of [F, H, W] bool masks on the torus: 0 is background, gaps of one pixel are bridged.

    Every pixel starts with its own number; the largest number within two pixels spreads until nothing changes.
    """
    return torch.cat([_components(part) for part in ground.split(16)])  # small enough for a core's cache


def _components(ground: Tensor) -> Tensor:
    frames, height, width = ground.shape
    own = torch.arange(1, height * width + 1, dtype=torch.int16 if height * width < 2**15 else torch.int32)
    labels = own.view(1, height, width) * ground
    active = torch.arange(frames)
    while len(active):
        now, mask = labels[active], ground[active]
        spread = now
        for _ in range(4):
            spread = _largest(spread) * mask
        labels[active] = spread
        active = active[(spread != now).flatten(1).any(1)]
    return labels.long()


def _largest(x: Tensor) -> Tensor:
    """Maximum over 5 x 5 pixels on the torus, [F, H, W]."""
    for axis in (1, 2):
        two = torch.maximum(x, x.roll(1, axis))
        four = torch.maximum(two, two.roll(2, axis))
        x = torch.maximum(four, x.roll(4, axis)).roll(-2, axis)
    return x


def _grow(mask: Tensor) -> Tensor:
    """The mask and two pixels about it: where its anti-aliased edge may lie."""
    return _largest(mask.float())


def _centre(cover: Tensor) -> Tensor:
    """Centroid (x, y) in [0, 1) of coverage [F, H, W] on the torus, [F, 2].

    A circular mean finds the neighbourhood, a plain mean of offsets about it is then exact.
    """
    side = cover.shape[-1]
    place = (torch.arange(side) + 0.5) / side
    out = []
    for weight in (cover.sum(1), cover.sum(2)):  # F W, then F H
        angle = 2 * math.pi * place
        rough = torch.atan2((weight * angle.sin()).sum(1), (weight * angle.cos()).sum(1)) / (2 * math.pi)
        offset = (place - rough[:, None] + 0.5) % 1.0 - 0.5
        out.append((rough + (weight * offset).sum(1) / weight.sum(1).clamp(min=1e-6)) % 1.0)
    return torch.stack(out, 1)


def _outline(cover: Tensor, centre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Best outline [F], its size [F] and the overlap [F] of coverage with it."""
    side = cover.shape[-1]
    patch, dx, dy = _patch(cover, centre)
    area = patch.sum(1) / side**2  # F
    overlaps = []
    for name in SHAPES:
        size = (area / AREA[name]).sqrt()[:, None] * torch.tensor(RADII)  # F R
        field = outline(name, dx[:, None], dy[:, None], size[..., None])  # F R P
        template = (0.5 - field * side).clamp(0, 1)
        both, either = torch.minimum(template, patch[:, None]), torch.maximum(template, patch[:, None])
        overlaps.append((both.sum(2) / either.sum(2).clamp(min=1e-6)).amax(1))
    best = torch.stack(overlaps, 1).max(1)
    size = (area / torch.tensor([AREA[name] for name in SHAPES])[best.indices]).sqrt()
    return best.indices, size, best.values


def _patch(cover: Tensor, centre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coverage [F, P] in a square about the centre, and the offsets (dx, dy) of its pixels from it in sides."""
    frames, side, _ = cover.shape
    reach = round(0.28 * side)
    near = torch.arange(-reach, reach + 1)
    first = (centre * side).floor().long()
    columns, rows = first[:, :1] + near, first[:, 1:] + near  # F n
    patch = cover[torch.arange(frames)[:, None, None], (rows % side)[:, :, None], (columns % side)[:, None, :]]
    dx = ((columns + 0.5) / side - centre[:, :1])[:, None, :].expand_as(patch)
    dy = ((rows + 0.5) / side - centre[:, 1:])[:, :, None].expand_as(patch)
    return patch.flatten(1), dx.flatten(1), dy.flatten(1)


def _nearest(rgb: Tensor, words: dict[str, tuple[float, float, float]], reach: float) -> Tensor:
    """Index of the nearest word [F], -1 beyond `reach`."""
    distance = torch.cdist(rgb, torch.tensor(list(words.values())))
    best = distance.min(1)
    return torch.where(best.values <= reach, best.indices, -1)
