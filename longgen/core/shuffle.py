"""FreeNoise's rescheduled noise (arXiv 2310.15169, §3.2): a long video made of the first U noises, locally shuffled.

Knows window, stride and seed. Does not know how long the video is: latent i has one noise in a video of any length.
"""

from __future__ import annotations

import torch
from torch import Tensor

from longgen.core.noise import generator, latent_noise
from longgen.types import LatentGrid


def sources(seed: int, start: int, stop: int, window: int, stride: int) -> list[int]:
    """For each latent in [start, stop) the index < U of the base noise that it repeats.

    Latents [U + cS, U + (c+1)S) are a random permutation of latents [cS, (c+1)S), c = 0, 1, …, each of which may be
    a repetition itself. Hence every window that starts at a multiple of S holds exactly U distinct base noises.
    Needs 1 ≤ S ≤ U.
    """
    orders: dict[int, list[int]] = {}

    def order(chunk: int) -> list[int]:
        if chunk not in orders:
            orders[chunk] = torch.randperm(stride, generator=generator(seed, "shuffle", chunk)).tolist()
        return orders[chunk]

    def source(i: int) -> int:
        while i >= window:
            chunk, place = divmod(i - window, stride)
            i = chunk * stride + order(chunk)[place]
        return i

    return [source(i) for i in range(start, stop)]


def shuffled_noise(grid: LatentGrid, seed: int, start: int, stop: int, window: int, stride: int) -> Tensor:
    """Rescheduled noise of latents [start, stop), [1, C, stop − start, H, W] in fp32; draws only what it returns.

    The first U latents are those of `latent_noise`.
    """
    index = sources(seed, start, stop, window, stride)
    drawn = {i: latent_noise(grid, seed, i, i + 1) for i in set(index)}
    return torch.cat([drawn[i] for i in index], 2) if index else latent_noise(grid, seed, 0, 0)
