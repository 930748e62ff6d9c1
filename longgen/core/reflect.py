"""MIGA's self-reflection: a group of latents that drifts from those before it is made again (arXiv 2605.18233).

Knows latents, rungs and calls. Does not know queues: what has come down how far is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from longgen.core import multistep
from longgen.core.queue import Job, advance
from longgen.types import Call, Level


def likeness(x: Tensor, others: Tensor) -> float:
    """Mean cosine between latents x [1, C, t, H, W] and others, each averaged over its channels."""
    a, b = (torch.nn.functional.normalize(y[0].mean(0).flatten(1).double(), dim=1) for y in (x, others))  # [t, H·W]
    return float((a @ b.T).mean())


@dataclass(frozen=True)
class Redo:
    """Latents from `start` on, to be made again from noise in the sight of the guides [first, start).

    Args:
        taken: how many rungs each of them has come down from the top; falls along the queue. Those that have come down
            furthest begin alone; the others join when their turn comes, so that all end where they were.
        guide_rungs: rung of each guide; guides are shown and never changed.
        window: longest call.
        keep: latents that one call updates; the rest of it is cleaner context.
    """

    first: int
    start: int
    taken: tuple[int, ...]
    guide_rungs: tuple[int, ...]
    window: int
    keep: int

    @property
    def stop(self) -> int:
        return self.start + len(self.taken)

    def rung(self, latent: int, turn: int, top: int) -> int:
        """Before a turn, 0 ≤ turn < taken[0]."""
        if latent < self.start:
            return self.guide_rungs[latent - self.first]
        return top - max(0, turn - (self.taken[0] - self.taken[latent - self.start]))

    def jobs(self, turn: int) -> list[Job]:
        """Calls of a turn on the latents that have joined, from the clean end on."""
        stop = self.start + sum(self.taken[0] - t <= turn for t in self.taken)
        jobs, b = list[Job](), stop
        while b > self.start:
            a, begin = max(self.start, b - self.keep), max(self.first, b - self.window)
            jobs.insert(0, Job((begin, min(begin + self.window, stop)), (a, b)))
            b = a
        return jobs

    def run(
        self,
        denoise: Callable[[Sequence[Call]], list[Tensor]],
        guides: Tensor,
        noise: Tensor,
        rungs: Level,
        memory: multistep.Memory,
    ) -> tuple[Tensor, multistep.Memory]:
        """Latents [start, stop) anew, and their step memory.

        Args:
            guides, noise: latents [first, start) as they are, and [start, stop) of start noise.
            memory: blank, of guides and noise together; {} for steps of first order.
        """
        x, top = torch.cat([guides, noise], 2), len(rungs.sigma) - 1
        for turn in range(self.taken[0]):
            now = partial(self.rung, turn=turn, top=top)
            x, _, memory = advance(denoise, x, self.first, self.jobs(turn), rungs, now, memory)
        own = self.start - self.first
        return x[:, :, own:], multistep.part(memory, own)
