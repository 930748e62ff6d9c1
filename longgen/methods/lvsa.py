"""LVSA, long-video sparse attention (arXiv 2605.31057): rotating key frames and a local band, O(T).

Knows the self-attention of one layer and the step of the loop. Does not know loops or noise.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache

from torch import Tensor

from longgen.protocols import Method, MethodInfo, Setting
from longgen.types import Attend, Dense, FrameGather, ModelInfo, Patch, Rotate, Site, View


def key_frames(frames: int, spacing: int, offset: int, first: int) -> list[int]:
    """The frames that every query sees: the first ones, and (offset + i·spacing) mod T for i < ⌈T/spacing⌉."""
    rotating = {(offset + i * spacing) % frames for i in range(-(-frames // spacing))}
    return sorted(rotating | set(range(min(first, frames))))


@lru_cache(maxsize=256)
def spacing(frames: int, reference: int, band: int, first: int, rule: str = "paper") -> int:
    """Distance between key frames: the largest with |key frames| ≥ max(first, R − (2W + 1)) at offset 0.

    `rule` "code" takes at least ⌈(T − m)/(R − m)⌉ with m = 2W + first, as the public code does.

    >>> spacing(49, 33, 4, 1), spacing(81, 21, 4, 1), spacing(81, 21, 3, 1)
    (2, 7, 6)
    >>> spacing(41, 33, 4, 1), spacing(41, 33, 4, 1, "code")
    (1, 2)
    """
    wanted = max(first, reference - (2 * band + 1))
    best = max((s for s in range(1, frames + 1) if len(key_frames(frames, s, 0, first)) >= wanted), default=1)
    if rule == "paper":
        return best
    kept = 2 * band + first
    return max(best, -(-max(frames - kept, reference - kept) // max(reference - kept, 1)))


@lru_cache(maxsize=256)
def frame_sets(frames: int, spacing: int, offset: int, band: int, first: int) -> tuple[tuple[int, ...], ...]:
    """For each query frame the frames it sees: all key frames and a band of 2W + 1 others about it, widened at clip
    ends and over key frames inside it; |G| + min(2W + 1, T − |G|) in all."""
    shared = key_frames(frames, spacing, offset, first)
    others = sorted(set(range(frames)) - set(shared))
    width = min(2 * band + 1, len(others))
    lows = (min(max(bisect_left(others, f) - band, 0), len(others) - width) for f in range(frames))
    return tuple(tuple(sorted(shared + others[low : low + width])) for low in lows)


class Lvsa(Method):
    """Each query frame attends to the first frame, key frames every k (their phase moves by one at each step), and a
    local band of 2W + 1 others. Calls up to R latents are dense."""

    info = MethodInfo(
        name="lvsa",
        title="Rotating key frames and a local band",
        slots=("route", "logits"),
        paper="2605.31057",
        needs=frozenset({"self_attention"}),
        settings={
            "band": Setting(3, "latents", "W: half-width of the local band, 2W + 1 latents", 0),
            "first": Setting(1, "latents", "latents at the start that every query sees", 0),
            "scale": Setting(1.0, "1", "budget R as a multiple of the native length", 0.1, 100),
            "rule": Setting("paper", "1", "spacing of key frames", choices=("paper", "code")),
        },
        cost="n · forward(T), attention over about T·R frame pairs",
        global_positions=True,
        laws={"stochastic": {}, "zero": {}, "finite": {}, "no_op": {}, "beyond": {}, "removal": {}, "conflicts": {}},
    )

    def _sets(self, frames: int, reference: int, step: int) -> tuple[tuple[int, ...], ...]:
        every = spacing(frames, reference, self.band, self.first, self.rule)
        return frame_sets(frames, every, step % frames, self.band, self.first)

    def patch(self, view: View) -> Patch:
        reference = round(view.native * self.scale)
        if view.frames <= reference:
            return Patch()

        def attention(site: Site, q: Tensor, k: Tensor, v: Tensor, rotate: Rotate, attend: Attend) -> Tensor:
            frames = site.grid[0]
            budget = reference * frames // len(site.frames)
            if frames <= budget:
                return attend(rotate(q), rotate(k), v, Dense())[0]
            plan = FrameGather(site.tokens, self._sets(frames, budget, site.step))
            return attend(rotate(q), rotate(k), v, plan)[0]

        return Patch(attention=attention)

    def key_frames(self, frames: int, info: ModelInfo) -> float:
        reference = round(info.native_latents * self.scale)
        return float(frames) if frames <= reference else float(len(self._sets(frames, reference, 0)[0]))

    def notes(self, frames: int, info: ModelInfo) -> list[str]:
        reference = round(info.native_latents * self.scale)
        if frames <= reference:
            return [f"lvsa: calls of {frames} latents are within the budget of {reference}: plain attention"]
        return [f"lvsa: each query sees {self.key_frames(frames, info):.0f} of {frames} latents (budget {reference})"]
