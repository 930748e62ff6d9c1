"""A queue of latents at rising noise levels: who is where, which windows run, what each of them updates.

Knows latent indices, counts and one-rung steps. Does not know noise or models.

Slots count from the clean front: after every iteration the front moves on by one group, and every latent in the queue
has come one rung down. Latents left of the front have left the queue and serve as context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from longgen.core import multistep
from longgen.types import Call, Level, ode_step

Range = tuple[int, int]


@dataclass(frozen=True)
class Job:
    """One model call on latents [window), of which [update) are taken one rung down; `guides` are shown before them."""

    window: Range
    update: Range
    guides: tuple[int, ...] = ()

    @property
    def latents(self) -> tuple[int, ...]:
        """All that the call sees."""
        return (*self.guides, *range(*self.window))


@dataclass(frozen=True)
class Queue:
    """Geometry of a diagonal queue.

    Args:
        total: T, latents of the video.
        window: f, latents per call (≤ T).
        rungs: K, updates that each latent gets in the queue.
        group: L, neighbouring latents that share a level (1: FIFO's diagonal; more: MIGA's zigzag).
        lookahead: windows overlap by half, and only their noisier half is updated.
        grow: start with the first group alone instead of a whole window already on the diagonal.
        feed: go on appending noise past T, so that no latent depends on T; what is appended is never emitted.
        guides: M < f, cleaner latents from further back that each call sees besides f − M of its own (MIGA).
    """

    total: int
    window: int
    rungs: int
    group: int = 1
    lookahead: bool = True
    grow: bool = False
    feed: bool = False
    guides: int = 0

    @property
    def own(self) -> int:
        """f − M, neighbouring latents in a call."""
        return self.window - self.guides

    @property
    def slots(self) -> int:
        """Latents in a full queue."""
        return self.rungs * self.group

    @cached_property
    def iterations(self) -> int:
        """Until the last latent has left the queue."""
        return -(-(self.total - self.front(0)) // self.group)

    def front(self, iteration: int) -> int:
        """The latent in slot 0; negative while the queue fills."""
        first = (self.group if self.grow else min(self.window, self.slots)) - self.slots
        return first + self.group * iteration

    def rung(self, latent: int, iteration: int) -> int:
        """Updates that a latent still needs in the queue: K before it enters, 0 after it has left."""
        return min(max((latent - self.front(iteration)) // self.group + 1, 0), self.rungs)

    def entered(self, iteration: int) -> int:
        """One past the last latent that is updated in this iteration."""
        stop = self.front(iteration) + self.slots
        return stop if self.feed else min(stop, self.total)

    def held(self, iteration: int) -> Range:
        """Latents that must be at hand: the queue, one window less one as clean context, and what guides it."""
        lo = max(0, self.front(iteration) - self.window + 1 - self.guides * self.group)
        return lo, max(self.entered(iteration), self.window)

    def emitted(self, iteration: int) -> Range:
        """Latents that leave the queue at the end of this iteration."""
        lo, hi = self.front(iteration), self.front(iteration + 1)
        return min(max(lo, 0), self.total), min(max(hi, 0), self.total)

    def blocks(self) -> list[Range]:
        """Slots [a, b) that one window each updates: whole windows, or alternately the larger and the smaller half of
        one (so that an odd window tiles the queue, too)."""
        half = self.own // 2 if self.lookahead and self.own > 1 else 0
        sizes = (self.own - half, half or self.own)
        edges, turn = [0], 0
        while edges[-1] < self.slots:
            edges.append(min(edges[-1] + sizes[turn % 2], self.slots))
            turn += 1
        return list(pairwise(edges))

    def jobs(self, iteration: int) -> list[Job]:
        """Calls of one iteration; all read the same old latents, and every latent in the queue is updated once.

        A window ends where its block ends; with lookahead its left part is cleaner context. Windows are moved, never
        padded or shortened, where they would reach before the first latent or past the last.
        """
        front, hi = self.front(iteration), self.held(iteration)[1]
        found: dict[Range, Range] = {}
        for a, b in self.blocks():
            lo, stop = max(front + a, 0), min(front + b, self.entered(iteration))
            if lo >= stop:
                continue
            start = min(max(front + b - self.own, 0), hi - self.own)
            window = (start, start + self.own) if start >= self.guides else (0, self.window)
            known = found.get(window)
            found[window] = (min(known[0], lo), max(known[1], stop)) if known else (lo, stop)
        return [Job(window, update, self.behind(window[0])) for window, update in found.items()]

    def behind(self, start: int) -> tuple[int, ...]:
        """The M guides of a window: one group apart from half a group before it on, or evenly spaced where there are
        fewer groups. A window that starts before latent M has none and is longer instead."""
        if start < self.guides or not self.guides:
            return ()
        far = start >= self.guides * self.group
        gap, first = (self.group, max(1, self.group // 2)) if far else (start // self.guides,) * 2
        return tuple(start - first - m * gap for m in reversed(range(self.guides)))


@dataclass(frozen=True)
class Course:
    """A whole run: `base` steps on one clip, the queue, then `floor` rungs that all latents take together, `passes`
    times over."""

    queue: Queue
    base: int = 0
    floor: int = 0
    passes: int = 1

    @property
    def top(self) -> int:
        """The highest rung, K."""
        return self.queue.rungs + self.floor

    @property
    def last(self) -> int:
        """Steps of the common last stage."""
        return self.floor * self.passes

    @property
    def steps(self) -> int:
        return self.base + self.queue.iterations + self.last

    @property
    def calls(self) -> int:
        """Model calls of the run. Between its two ends every iteration of the queue makes as many."""
        queue, n = self.queue, self.queue.iterations
        edge = min(queue.rungs + queue.window, n)
        ends = [*range(edge), *range(max(edge, n - edge), n)]
        turns = sum(len(queue.jobs(j)) for j in ends) + (n - len(ends)) * len(queue.jobs(min(edge, n - 1)))
        return self.base + turns + sum(len(self.last_jobs(s)) for s in range(self.last))

    def held(self, iteration: int) -> Range:
        """Latents at hand; all of them when a common last stage waits."""
        lo, hi = self.queue.held(iteration)
        return (0 if self.floor else lo), hi

    def rung(self, latent: int, iteration: int) -> int:
        """Rung of a latent in an iteration of the queue: 0 is clean."""
        return self.queue.rung(latent, iteration) + self.floor

    def last_jobs(self, step: int) -> list[Job]:
        """Calls of one step of the last stage: each latent is updated by one window; the cuts move with the step."""
        total, window = self.queue.total, self.queue.window
        half = max(1, window // 2)
        edges = sorted({0, total, *range(step % half, total, half)})
        found: dict[Range, Range] = {}
        for a, b in pairwise(edges):
            start = min(max((a + b) // 2 - window // 2, 0), total - window)
            span = (start, start + window)
            found[span] = (found[span][0], b) if span in found else (a, b)
        return [Job(span, update) for span, update in found.items()]


def advance(
    denoise: Callable[[Sequence[Call]], list[Tensor]],
    x: Tensor,
    lo: int,
    jobs: Sequence[Job],
    rungs: Level,
    rung: Callable[[int], int],
    memory: multistep.Memory,
) -> tuple[Tensor, list[Tensor], multistep.Memory]:
    """x [1, C, t, H, W] from latent `lo` on, after the jobs; the clean estimates of what each of them updates; and the
    memory after them. Steps are UniPC's where there is a memory, else of first order."""
    calls = []
    for job in jobs:
        own = [rung(i) for i in job.latents]
        level = rungs[own[0]] if len(set(own)) == 1 else rungs[torch.tensor(own)]
        seen = torch.tensor(job.latents, device=x.device) - lo
        calls.append(Call(x.index_select(2, seen), level, job.latents))
    moved, cleans, kept = x.clone(), [], memory
    for job, estimate in zip(jobs, denoise(calls)):
        (a, b), now = job.update, torch.tensor([rung(i) for i in range(*job.update)])
        skip = len(job.guides) - job.window[0]
        cleans.append(estimate[:, :, a + skip : b + skip])
        old = x[:, :, a - lo : b - lo]
        if memory:
            new, mine = multistep.unipc(multistep.part(memory, a - lo, b - lo), old, cleans[-1], rungs, now)
            kept = multistep.join(multistep.part(kept, 0, a - lo), mine, multistep.part(kept, b - lo))
        else:
            new = ode_step(old, cleans[-1], rungs[now], rungs[now - 1])
        moved[:, :, a - lo : b - lo] = new
    return moved, cleans, kept
