"""Factors of attention logits by frame distance, as a partition of all pairs into parts of one factor each.

Knows frame indices and plans. Does not know tensors or methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from longgen.types import FrameWindow, Plan, Union


@dataclass(frozen=True)
class Decay:
    """Factors of the logits beyond the trained window: α, and β within γ latents of multiples of the period."""

    alpha: float
    beta: float
    gamma: int = 0
    period: int = 0  # latents; 0: no β zones

    def at(self, distance: int) -> float:
        """λ at a frame distance outside the trained window."""
        if self.period == 0 or distance < self.period - self.gamma:
            return self.alpha
        offset = distance % self.period
        return self.beta if min(offset, self.period - offset) <= self.gamma else self.alpha


@lru_cache(maxsize=64)
def split(frames: int, native: int, tokens: int, decay: Decay, first: bool) -> Plan:
    """All (query, key) frame pairs as disjoint parts, one factor each: near pairs 1, then one band of distances after
    another on both sides.

    Near means |i − j| ≤ T0/2, the frame form of the published token distance L/2. `first` hides keys from T0 on from
    the queries of frame 0 (public Wan code; without it the first frame is blurry).
    """
    reach = native // 2
    parts, scales = [_part(frames, tokens, -reach, reach, first * native)], [1.0]
    for factor, run in groupby(range(reach + 1, frames), decay.at):
        distances = list(run)
        low, high = distances[0], distances[-1]
        for a, b in ((-high, -low), (low, high)):
            parts.append(_part(frames, tokens, a, b, first * native))
            scales.append(factor)
    return Union(tuple(parts), tuple(scales))


def _part(frames: int, tokens: int, low: int, high: int, hidden: int) -> FrameWindow:
    """Keys at offsets low … high from each query frame; frame 0 sees none from `hidden` (0: none hidden) on."""

    def span(i: int) -> tuple[int, int]:
        end = hidden if hidden and i == 0 else frames
        start = min(max(i + low, 0), end)
        return start, max(start, min(i + high + 1, end))

    return FrameWindow(tokens, tuple(span(i) for i in range(frames)))
