"""Gaussian noise that is a function of (seed, tag, latent index) alone.

Knows nothing of lengths, windows, batches or devices: latent i of a seed has the same noise in a video of any length,
in any window, beside any batch-mate, and after a resume. Always drawn on the CPU in fp32.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from longgen.types import LatentGrid


def generator(seed: int, tag: str, index: int = 0) -> torch.Generator:
    """A generator of its own for every (seed, tag, index)."""
    digest = hashlib.blake2b(f"{seed}/{tag}/{index}".encode(), digest_size=8).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little") >> 1)


def latent_noise(grid: LatentGrid, seed: int, start: int, stop: int, tag: str = "noise") -> Tensor:
    """Unit Gaussian noise of latents [start, stop), [1, C, stop − start, H, W] in fp32.

    >>> grid = LatentGrid(9, 4, 2, 2, stride=4)
    >>> whole = latent_noise(grid, 7, 0, 9)
    >>> bool((latent_noise(grid.with_frames(100), 7, 3, 5) == whole[:, :, 3:5]).all())
    True
    """
    frame = (grid.channels, grid.height, grid.width)
    drawn = [torch.randn(frame, generator=generator(seed, tag, i)) for i in range(start, stop)]
    return torch.stack(drawn, dim=1)[None] if drawn else torch.empty(1, grid.channels, 0, grid.height, grid.width)
