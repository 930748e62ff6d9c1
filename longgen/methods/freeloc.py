"""FreeLOC (arXiv 2603.25209): each layer gets the cure for what it suffers from, unseen positions or too many keys.

Knows the self-attention of one layer. Does not know loops or noise. Which layers are which is a probe result of one
checkpoint; where none is published, all layers are taken to suffer from positions.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from longgen.core import rope
from longgen.core.merge import Part, merge
from longgen.errors import BadInput
from longgen.protocols import Method, MethodInfo, Setting
from longgen.types import Attend, FrameWindow, ModelInfo, Patch, Rotate, Site, View

# Layers of Wan2.1-1.3B (30 of them) that suffer from length, out of the public settings, where they are misnamed.
PUBLISHED = {("wan", 30): (0, 1, 4, 6, 7, 9, 10, 11, 13, 14, 15, 16, 18, 22, 23, 24, 25)}
Spans = tuple[tuple[int, int], ...]  # of the keys [a, b) of each query frame
STRIPES = 4  # a striped tier shows one in so many tokens of a frame


@dataclass(frozen=True)
class Tiers:
    """Relative positions: exact below W1 frames, in groups of G1 below W2, of G2 beyond, there never above `clip`."""

    near: int
    middle: int
    fine: int
    coarse: int
    clip: int

    @property
    def shifts(self) -> tuple[int, int]:
        """What is added beyond W1 and W2, so that positions go on where the tier before ends."""
        second = self.near - self.near // self.fine
        most = max(self.middle // self.fine, -(-(self.middle - 1) // self.fine))
        return second, second + most - self.middle // self.coarse

    def sound(self, frames: int) -> bool:
        """Whether distances of the third tier fit below `clip`, or are clipped by one without overtaking the second."""
        second, third = self.shifts
        for i in range(self.middle, frames):
            place = i // self.coarse + third
            highest = i // self.fine + second - (i - self.middle + 1) // self.fine
            if place > self.clip + 1 or min(place, self.clip) - (i - self.middle) // self.coarse < highest:
                return False
        return True


@lru_cache(maxsize=64)
def tiers(frames: int, native: int, fine: int = 2, coarse: int = 8) -> Tiers:
    """The published tiers, W1 and W2 of (12, 20) up to twice T0 = 21 and (10, 14) beyond, as shares of T0.

    G2 grows where the video is longer than the published ones.

    >>> tiers(41, 21), tiers(81, 21)
    (Tiers(near=12, middle=20, fine=2, coarse=8, clip=20), Tiers(near=10, middle=14, fine=2, coarse=8, clip=20))
    """
    near, middle = (max(1, round(n * native / 21)) for n in ((12, 20) if frames <= 2 * native else (10, 14)))
    made = (Tiers(near, max(middle, near), fine, g, max(1, native - 1)) for g in range(coarse, frames + coarse + 1))
    return next((levels for levels in made if levels.sound(frames)), Tiers(near, frames, fine, coarse, native))


def ring(frames: int, low: int, high: int) -> Spans:
    """For each frame i the keys with low ≤ j − i < high, [a, b) inside the video."""
    spans = ((min(max(i + low, 0), frames), min(max(i + high, 0), frames)) for i in range(frames))
    return tuple((a, max(a, b)) for a, b in spans)


class FreeLoc(Method):
    """Layers that suffer from positions attend in tiers of re-encoded distances, merged by log-sum-exp; layers that
    suffer from length attend densely near by, to stripes farther on, and to the first frame."""

    info = MethodInfo(
        name="freeloc",
        title="Re-encoded distances in some layers, tiered sparse attention in the others",
        slots=("route", "logits"),
        paper="2603.25209",
        needs=frozenset({"self_attention", "rope", "cross_text"}),
        settings={
            "sparse": Setting(
                None, "1", "layers of sparse attention: none, all, or 0,4,7; default: published, or none"
            ),
            "fine": Setting(2, "latents", "G1, group of distances in the second tier", 1, 64),
            "coarse": Setting(8, "latents", "G2, least group of distances in the third tier", 1, 256),
            "dense": Setting(None, "latents", "reach of dense attention in sparse layers; default 8/21 of T0", 0),
            "striped": Setting(None, "latents", "reach of their stripes; default 24/21 of T0", 0),
        },
        cost="n · forward(T), attention over T² frame pairs, or T·(2·8 + 1 + 32/4 + 1) in sparse layers",
        global_positions=True,
        laws={n: {} for n in ("stochastic", "zero", "finite", "no_op", "beyond", "removal", "conflicts")},
        conflicts=dict.fromkeys(("riflex", "ntk", "pi"), rope.EXCLUSIVE),
    )
    family, layers = "", 0

    def fit(self, info: ModelInfo) -> FreeLoc:
        fitted = copy.copy(self)
        fitted.family, fitted.layers = info.family, info.layers
        return fitted

    def chosen(self) -> frozenset[int]:
        """The sparse layers; BadInput unless they exist."""
        words = ",".join(map(str, PUBLISHED.get((self.family, self.layers), ()))) or "none"
        words = words if self.sparse is None else str(self.sparse)
        if words in ("none", "all"):
            return frozenset(range(self.layers) if words == "all" else ())
        try:
            found = frozenset(int(word) for word in words.split(","))
        except ValueError:
            found = frozenset({-1})
        if not all(0 <= layer < self.layers for layer in found):
            raise BadInput(f"freeloc.sparse takes none, all, or layers such as 0,4 below {self.layers}, not {words!r}")
        return found

    def reaches(self, native: int) -> tuple[int, int]:
        """Frames to each side that sparse layers see densely, and in stripes."""
        dense = round(8 * native / 21) if self.dense is None else int(self.dense)
        return dense, max(dense, round(24 * native / 21) if self.striped is None else int(self.striped))

    def spans(self, frames: int, native: int) -> tuple[Spans, Spans, Spans]:
        """Keys that sparse layers see densely, in stripes behind (never frame 0, which all see), in stripes ahead."""
        dense, striped = self.reaches(native)
        behind = tuple((max(a, min(b, 1)), b) for a, b in ring(frames, -striped, -dense))
        return ring(frames, -dense, dense + 1), behind, ring(frames, dense + 1, striped + 1)

    def patch(self, view: View) -> Patch:
        if view.frames <= view.native:
            return Patch()
        sparse = self.chosen()

        def attention(site: Site, q: Tensor, k: Tensor, v: Tensor, rotate: Rotate, attend: Attend) -> Tensor:
            native = -(-view.native * site.grid[0] // len(site.frames))  # T0 in token frames
            if site.layer in sparse:
                return merge(self._sparse(site, q, k, v, rotate, attend, native))[0]
            levels = tiers(site.grid[0], native, self.fine, self.coarse)
            return merge(reencoded(site, q, k, v, rotate, attend, levels))[0]

        return Patch(attention=attention)

    def _sparse(
        self, site: Site, q: Tensor, k: Tensor, v: Tensor, rotate: Rotate, attend: Attend, native: int
    ) -> list[Part]:
        """Near frames; stripes of farther ones but frame 0; frame 0, at a re-encoded distance beyond the stripes."""
        frames, tokens, (dense, striped) = site.grid[0], site.tokens, self.reaches(native)
        turned_q, turned_k = rotate(q), rotate(k)
        bands = next(n for n in range(min(STRIPES, tokens), 0, -1) if tokens % n == 0)
        near, *stripes = self.spans(frames, native)
        parts = [attend(turned_q, turned_k, v, FrameWindow(tokens, near))]
        plans = (FrameWindow(tokens // bands, spans) for spans in stripes)
        parts += [_in_bands(attend, turned_q, turned_k, v, plan, bands) for plan in plans]
        window = round(12 * native / 21)
        place = torch.arange(frames) // self.coarse + window - -(-window // self.coarse)
        far_q = rotate(q, place.clamp(max=max(1, native - 1)))
        for queries, low, high in ((turned_q, dense, striped), (far_q, striped, frames)):
            first = tuple((0, int(low < i <= high)) for i in range(frames))
            parts.append(attend(queries, turned_k, v, FrameWindow(tokens, first)))
        return parts

    def key_frames(self, frames: int, info: ModelInfo) -> float:
        if frames <= info.native_latents:
            return float(frames)
        share = len(self.fit(info).chosen()) / info.layers
        near, *stripes = (sum(b - a for a, b in s) / frames for s in self.spans(frames, info.native_latents))
        first = max(frames - 1 - self.reaches(info.native_latents)[0], 0) / frames  # frame 0, where it is not near
        return share * (near + sum(stripes) / STRIPES + first) + (1 - share) * frames

    def check(self, frames: int, info: ModelInfo) -> None:
        self.fit(info).chosen()

    def notes(self, frames: int, info: ModelInfo) -> list[str]:
        if frames <= info.native_latents:
            return [f"freeloc: no-op, {frames} latents are within the native {info.native_latents}"]
        count = len(self.fit(info).chosen())
        return [f"freeloc: sparse attention in {count} of {info.layers} layers, re-encoded distances in the others"]


def reencoded(site: Site, q: Tensor, k: Tensor, v: Tensor, rotate: Rotate, attend: Attend, levels: Tiers) -> list[Part]:
    """Five disjoint key sets: near, and two tiers on each side, each with positions of its own."""
    frames, place = site.grid[0], torch.arange(site.grid[0])
    near, middle = levels.near, levels.middle
    parts = [attend(rotate(q), rotate(k), v, FrameWindow(site.tokens, ring(frames, 1 - near, near)))]
    fine, coarse = place // levels.fine, place // levels.coarse
    second = (near, middle, fine, fine + levels.shifts[0])
    third = (middle, frames, coarse, (coarse + levels.shifts[1]).clamp(max=levels.clip))
    for low, high, grouped, ahead in (second, third):
        behind, before = ring(frames, 1 - high, 1 - low), ring(frames, low, high)
        for mine, theirs, spans in ((ahead, grouped, behind), (grouped, ahead, before)):
            if any(b > a for a, b in spans):
                parts.append(attend(rotate(q, mine), rotate(k, theirs), v, FrameWindow(site.tokens, spans)))
    return parts


def _in_bands(attend: Attend, q: Tensor, k: Tensor, v: Tensor, plan: FrameWindow, bands: int) -> Part:
    """Attention among the tokens of one band of a frame's tokens: bands are laid along the batch."""
    batch, frames = q.shape[0], len(plan.spans)

    def split(x: Tensor) -> Tensor:  # [B, T·P, N, D] → [B·bands, T·P/bands, N, D]
        return x.unflatten(1, (frames, bands, -1)).transpose(1, 2).flatten(0, 1).flatten(1, 2)

    out, lse = attend(split(q), split(k), split(v), plan)
    out = out.unflatten(0, (batch, bands)).unflatten(2, (frames, -1)).transpose(1, 2).flatten(1, 3)
    lse = lse.unflatten(0, (batch, bands)).unflatten(3, (frames, -1)).permute(0, 2, 3, 1, 4).flatten(2, 4)
    return out, lse  # [B, N, bands, T, p] → [B, N, T·P]
