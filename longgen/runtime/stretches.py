"""Stretches of a story between hard cuts. Each is sampled as a video of its own, so that nothing crosses a cut:
no attention, no shared or shuffled noise, no prefix, no keys, no colour matching.

Knows timelines and latent indices. Does not know loops or models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from longgen.story.schedules import cuts, seeds
from longgen.types import Call, Event, Final, LatentGrid, Preview, Timeline


@dataclass(frozen=True)
class Stretch:
    """Latents [start, stop) of the video, made after `lead` latents that are dropped.

    A model takes the first latent of a run for a single frame; in the middle of a video it would stand still for as
    many frames as a latent holds. So a stretch after a cut begins a little early.

    Args:
        seed: of the stretch's noise where a shot has none.
    """

    start: int
    stop: int
    lead: int
    seed: int

    @property
    def frames(self) -> int:
        """Latents that the loop makes."""
        return self.lead + self.stop - self.start

    @property
    def first(self) -> int:
        """Index in the video of the loop's latent 0."""
        return self.start - self.lead

    def place(self, call: Call) -> Call:
        """A call in the video's indices; what is dropped is told what the first latent of the stretch is told."""
        return replace(call, frames=tuple(max(self.start, self.first + i) for i in call.frames))

    def show(self, events: Iterable[Event]) -> list[Event]:
        """Events in the video's indices, without what is dropped."""
        shown: list[Event] = []
        for event in events:
            start = event.start + self.first
            drop = max(0, self.start - start)
            x = event.x[:, :, drop:]
            if not x.shape[2]:
                continue
            if isinstance(event, Final):
                shown.append(Final(start + drop, event.stop + self.first, x))
            else:
                shown.append(Preview(event.step, x, start + drop))
        return shown

    def spans(self, windows: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Windows [a, b) of the loop in the video's indices."""
        return [(max(a + self.first, self.start), b + self.first) for a, b in windows]

    def seeds(self, timeline: Timeline, grid: LatentGrid, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Noise of the loop's latents [start, stop) by seed: (seed, a, b), a shot's own seed where it has one.

        What is dropped, and what a queue feeds past the end, goes with the shot beside it.
        """
        a, b = start + self.first, stop + self.first
        inside = min(max(a, self.start), self.stop - 1), max(min(b, self.stop), self.start + 1)
        told = seeds(timeline, grid.stride, self.seed, *inside, grid.lead_pad)
        parts = [(seed, i - self.first, j - self.first) for seed, i, j in told]
        parts[0] = (parts[0][0], start, parts[0][2])
        parts[-1] = (parts[-1][0], parts[-1][1], stop)
        return parts


def stretches(timeline: Timeline, grid: LatentGrid, seed: int) -> tuple[Stretch, ...]:
    """The video cut into stretches, on the grid of temporal patches. Without a hard cut there is one.

    The first has the run's seed. Later ones have that of their first shot, or one that follows from the run's, so that
    they do not repeat its noise.
    """
    unit = grid.patch[0]
    lead = -(-(grid.lead_pad + 1) // unit) * unit
    at = sorted({-(-cut // unit) * unit for cut in cuts(timeline, grid.stride, grid.lead_pad) if cut > 0})
    edges = [0, *(a for a in at if a < grid.frames), grid.frames]
    found = [Stretch(0, edges[1], 0, seed)]
    for k, (start, stop) in enumerate(pairwise(edges[1:]), 1):
        own = seeds(timeline, grid.stride, apart(seed, k), start, start + 1, grid.lead_pad)[0][0]
        found.append(Stretch(start, stop, lead, own))
    return tuple(found)


def apart(seed: int, k: int) -> int:
    """The seed of stretch k ≥ 1, a function of the run's."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{k}".encode(), digest_size=8).digest(), "big") >> 1


def longest(parts: Sequence[Stretch]) -> int:
    """Latents of the longest run of the loop."""
    return max(part.frames for part in parts)
