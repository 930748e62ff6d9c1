"""A first-frame image in latents, as families share it: as a clean latent, or as channels beside the noise.

Where the image is follows from the absolute indices of a call: it is latent 0 of the video, wherever in the call that
latent lies, and a call without it sees no image. Knows calls and latents; does not know families.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from longgen.errors import BadInput
from longgen.types import Call, LatentGrid, Level, add_noise


def check_size(image: Tensor, grid: LatentGrid, spatial: int) -> None:
    """BadInput for an image [H, W, 3] that is not as large as the video."""
    size = (grid.height * spatial, grid.width * spatial)
    if tuple(image.shape[:2]) != size:
        raise BadInput(f"the image is {image.shape[0]}×{image.shape[1]}, the video {size[0]}×{size[1]} (height×width)")


def hold_first(call: Call, first: Tensor) -> Call:
    """The call with the video's latent 0, if it holds it, replaced by `first` [1, C, 1, H, W] at a clean level.

    Its clean estimate is then that latent itself, since σ is 0 there.
    """
    if 0 not in call.frames:
        return call
    still = torch.tensor([index == 0 for index in call.frames])
    x = torch.where(still[:, None, None].to(call.x.device), first.to(call.x), call.x)
    level = call.level.spread(len(call.frames))
    mask = still.to(level.sigma.device)
    sigma, t = (torch.where(mask, torch.zeros_like(v), v) for v in (level.sigma, level.t))
    alpha = torch.where(mask, torch.ones_like(level.alpha), level.alpha)
    return replace(call, x=x, level=Level(sigma, alpha, t, level.step))


def beside(table: Tensor, frames: Sequence[int]) -> Tensor:
    """What lies beside the noise of the latents with these absolute indices [1, C', T, H, W].

    Args:
        table: [1, C', L, H, W] for the video's first latents; the last one stands for all that follow.
    """
    last = table.shape[2] - 1
    return table[:, :, [min(index, last) for index in frames]]


def noisiest(level: Level) -> Level:
    """The highest of a call's levels."""
    return level if level.uniform else level[level.sigma.argmax()]


def known_latents(level: Level, frames: int) -> Tensor:
    """[T] bool: latents below the call's highest level, which a clip continues (`extend.condition=native`)."""
    sigma = level.spread(frames).sigma
    return sigma < sigma.max()


def at_one_level(call: Call, noise: Callable[[int, int], Tensor]) -> Call:
    """The call with its known latents noised to the level of the others, for networks that take one level.

    Args:
        noise: (start, stop) → unit noise of the latents [start, stop) of the video.
    """
    if call.level.uniform:
        return call
    known, level = known_latents(call.level, len(call.frames)), noisiest(call.level)
    if len(call.level.t.unique()) > 2:
        raise ValueError("all latents that are not known must have one level, and those that are another")
    drawn = torch.cat([noise(i, i + 1) for i in call.frames], dim=2).to(call.x.device)
    x = torch.where(known[:, None, None].to(call.x.device), add_noise(call.x.float(), drawn, level), call.x)
    return replace(call, x=x, level=level)
