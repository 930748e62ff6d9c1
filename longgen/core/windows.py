"""Where windows lie: sizes in latents, starts, the frames of each call, and each latent's share of each window.

Knows geometry alone: no tensors of latents, no models, no steps beyond a counter that shifts windows. All lengths are
latents unless a name says frames; lengths and starts are whole multiples of the model's temporal patch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from longgen.errors import BadInput
from longgen.types import ModelInfo

Planner = Literal["static", "uniform", "looped", "batched"]
Starts = Literal["spread", "clamp"]
Weights = Literal["pyramid", "linear", "flat", "sine"]

# name → (default, unit, help, lowest): the settings that every windowed method offers for its sizes.
SIZE_SETTINGS: dict[str, tuple[Any, str, str, float]] = {
    "window": (None, "frames", "window length; default: the native length", 1),
    "stride": (None, "frames", "step between windows", 1),
    "overlap": (None, "frames", "frames shared by neighbours, instead of stride; default: a third of the window", 0),
    "window_latents": (None, "latents", "window length, explicit form", 1),
    "window_scale": (None, "native lengths", "window length, relative form", 0.1),
    "stride_latents": (None, "latents", "step between windows, explicit form", 1),
    "overlap_latents": (None, "latents", "latents shared by neighbours, explicit form", 0),
}

WINDOW_FORMS = ("window", "window_latents", "window_scale")  # of which one is given


@dataclass(frozen=True)
class Sizes:
    """U and S in latents, both multiples of `unit`, the temporal patch; 1 ≤ S ≤ U."""

    window: int
    stride: int
    unit: int = 1

    @property
    def overlap(self) -> int:
        return self.window - self.stride

    def count(self, frames: int) -> int:
        """n = ⌈(T − ov)/(U − ov)⌉ windows cover T latents."""
        return max(1, -(-(frames - self.overlap) // self.stride))

    def describe(self, info: ModelInfo) -> str:
        """The sizes as used, in latents and frames."""
        frames = (self.window - 1 - info.lead_pad) * info.stride + 1
        return (
            f"windows of {self.window} latents ({frames} frames), "
            f"step {self.stride} ({self.stride * info.stride} frames), overlap {self.overlap}"
        )


def _one_of(settings: Mapping[str, Any], *names: str) -> str | None:
    """The name of the one setting given among those that exclude each other; BadInput when two are."""
    given = [n for n in names if settings.get(n) is not None]
    if len(given) > 1:
        raise BadInput(f"{given[0]} and {given[1]} exclude each other; give one of {', '.join(names)}")
    for name in given:
        if not math.isfinite(settings[name]) or settings[name] < SIZE_SETTINGS[name][3]:
            raise BadInput(f"{name} must be at least {SIZE_SETTINGS[name][3]:g}, not {settings[name]}")
    return given[0] if given else None


def sizes(settings: Mapping[str, Any], info: ModelInfo) -> Sizes:
    """U and S out of a method's settings, rounded to the model's grid.

    A window of F frames takes the fewest latents that cover it; a stride or overlap of F frames rounds to F/stride.

    Raises:
        BadInput: two forms of one size, a size out of range, or a stride longer than the window.
    """
    unit = info.patch[0]

    def round_up(latents: int) -> int:
        return -(-latents // unit) * unit

    def nearest(latents: float) -> int:
        return math.floor(latents / unit + 0.5) * unit

    name = _one_of(settings, *WINDOW_FORMS)
    if name == "window":
        window = info.latents_for(int(settings["window"]))
    elif name == "window_scale":
        window = max(unit, nearest(settings[name] * info.native_latents))
    else:
        window = round_up(int(settings[name]) if name else info.native_latents)
    name = _one_of(settings, "stride", "overlap", "stride_latents", "overlap_latents")
    if name is None:
        return Sizes(window, max(unit, window - nearest(window / 3)), unit)
    latents = nearest(settings[name] if name.endswith("_latents") else settings[name] / info.stride)
    stride = max(unit, latents) if name.startswith("stride") else window - latents
    if not 1 <= stride <= window:
        raise BadInput(
            f"{name} {settings[name]} leaves a step of {stride} latents between windows of {window}; "
            f"the step must be 1 to {window} latents"
        )
    return Sizes(window, stride, unit)


def rounded(settings: Mapping[str, Any], sized: Sizes, info: ModelInfo) -> list[str]:
    """A line for each size in frames that the model's grid changed."""
    used = {
        "window": (sized.window - 1 - info.lead_pad) * info.stride + 1,
        "stride": sized.stride * info.stride,
        "overlap": sized.overlap * info.stride,
    }
    return [
        f"{n} {settings[n]} frames becomes {v} frames, the model's grid"
        for n, v in used.items()
        if settings.get(n) is not None and settings[n] != v
    ]


def bit_reversed(step: int) -> float:
    """The van der Corput fraction of a step, in [0, 1): 0, ½, ¼, ¾, ⅛ …

    >>> [bit_reversed(i) for i in range(4)]
    [0.0, 0.5, 0.25, 0.75]
    """
    value, scale = 0.0, 0.5
    while step:
        value += scale * (step & 1)
        step, scale = step >> 1, scale / 2
    return value


def starts(frames: int, sized: Sizes, placement: Starts = "spread") -> list[int]:
    """First latents of n windows over T latents, in order; the last window ends at T.

    "clamp" steps by S and moves the last window back; "spread" places the n starts evenly, so that no two windows
    nearly coincide.

    >>> starts(121, Sizes(21, 14), "clamp")[-3:], starts(121, Sizes(21, 14))[-3:]
    ([84, 98, 100], [75, 88, 100])
    """
    n, room = sized.count(frames), max(frames - sized.window, 0) // sized.unit
    if placement == "clamp":
        return [min(i * sized.stride, room * sized.unit) for i in range(n)]
    return [(i * room + (n - 1) // 2) // max(n - 1, 1) * sized.unit for i in range(n)]


def shifted_starts(frames: int, sized: Sizes, step: int) -> list[int]:
    """Starts moved back by a bit-reversed fraction of S, clipped to the video, so that seams do not coincide."""
    shift = int(sized.stride // sized.unit * bit_reversed(step)) * sized.unit
    room = max(frames - sized.window, 0)
    count = -(-(room + shift) // sized.stride) + 1
    return sorted({min(max(i * sized.stride - shift, 0), room) for i in range(count)})


def looped_starts(frames: int, sized: Sizes, step: int) -> list[int]:
    """Starts on a ring of T latents, moved back by a bit-reversed fraction of S. Windows wrap around the end."""
    if frames <= sized.window:
        return [0]
    shift = int(sized.stride // sized.unit * bit_reversed(step)) * sized.unit
    return [(i * sized.stride - shift) % frames for i in range(-(-frames // sized.stride))]


@lru_cache(maxsize=256)
def band(frames: int, width: int, border: Literal["cut", "shift"]) -> tuple[tuple[int, int], ...]:
    """Key spans [a, b) of a local band of `width` frames about each of T query frames.

    "cut" drops what lies outside the video, as |i − j| ≤ α does; "shift" moves the span inside, so that every query
    sees min(width, T) frames.

    >>> band(6, 3, "cut")
    ((0, 2), (0, 3), (1, 4), (2, 5), (3, 6), (4, 6))
    >>> band(6, 3, "shift")
    ((0, 3), (0, 3), (1, 4), (2, 5), (3, 6), (3, 6))
    """
    lows = [i - width // 2 for i in range(frames)]
    if border == "shift":
        lows = [min(max(low, 0), max(frames - width, 0)) for low in lows]
    return tuple((max(low, 0), min(low + width, frames)) for low in lows)


def window_weights(kind: Weights, length: int, overlap: int) -> Tensor:
    """Unnormalised weights of one window's latents, [length] in fp64, all > 0.

    pyramid min(i+1, U−i) · linear: a ramp over the overlap, flat inside · flat · sine sin(π(i+½)/U).
    """
    i = torch.arange(length, dtype=torch.float64)
    edge = torch.minimum(i + 1, length - i)
    if kind == "pyramid":
        return edge
    if kind == "linear":
        return (edge / (overlap + 1)).clamp(max=1)
    return torch.ones_like(i) if kind == "flat" else torch.sin(math.pi * (i + 0.5) / length)


@dataclass(frozen=True)
class Window:
    """One call of a windowed loop.

    Args:
        frames: absolute latent indices that the call sees, in order.
        lead: how many of them, at the head, are context whose output is dropped (anchor and retained latents).
        share: [len(frames) − lead] normalised weights in fp32; over all windows they sum to 1 at each latent.
    """

    frames: tuple[int, ...]
    lead: int
    share: Tensor

    @property
    def body(self) -> tuple[int, ...]:
        """The latents whose output counts."""
        return self.frames[self.lead :]


def shares(bodies: list[tuple[int, ...]], raw: list[Tensor], frames: int) -> list[Tensor]:
    """Raw weights divided by their sum over windows at each latent, fp32. Every latent must be covered."""
    total = torch.zeros(frames, dtype=torch.float64)
    for body, weight in zip(bodies, raw, strict=True):
        total.index_add_(0, torch.tensor(body), weight)
    if not bool((total > 0).all()):
        raise ValueError(f"latents {torch.nonzero(total <= 0).flatten().tolist()} lie in no window")
    return [(w / total[torch.tensor(b)]).float() for b, w in zip(bodies, raw, strict=True)]


def _calls(first: list[int], frames: int, length: int, anchor: int, retain: tuple[int, ...]) -> list[tuple[int, list]]:
    """(lead, frames) of each window. A window not at latent 0 gives its head up to context: `anchor` latents of its
    own, and before them the retained latents that it does not hold, in the place of as many of its first latents."""
    calls: list[tuple[int, list]] = []
    for start in first:
        own = [(start + j) % frames for j in range(length)]
        if start == 0:
            calls.append((0, own))
            continue
        extra: list[int] = []
        for _ in range(len(retain) + 1):  # an extra latent takes the place of one, which may be a retained one itself
            extra = [r for r in retain if r not in own[len(extra) :]]
        calls.append((anchor + len(extra), extra + own[len(extra) :]))
    return calls


def image_head(info: ModelInfo, sized: Sizes) -> tuple[int, ...]:
    """Latents that windows retain by default: the image's, for checkpoints that were never run without one.

    It stands in the place of an anchor. Windows whose overlap has no room for it go without.
    """
    return tuple(range(sized.unit)) if info.needs_image and sized.overlap >= sized.unit else ()


def image_note(info: ModelInfo, seen: bool) -> list[str]:
    """What windows past the first see of an image that the checkpoint needs, as a note."""
    if not info.needs_image:
        return []
    if seen:
        return [
            "every window sees the image as its first latent, which draws each back to it; "
            "extend goes on from what was made"
        ]
    return ["warning: what does not begin the video sees no image, without which this checkpoint was never run"]


def plan(
    frames: int,
    sized: Sizes,
    step: int = 0,
    *,
    planner: Planner = "static",
    placement: Starts = "spread",
    weights: Weights = "pyramid",
    anchor: int = 0,
    retain: tuple[int, ...] = (),
) -> list[Window]:
    """The windows of one step over T latents. No call is longer than U, and shares sum to 1 at every latent.

    Args:
        planner: static · uniform: starts shift at each step · looped: the same on a ring · batched: windows side by
            side without fusion, each latent in the first window that holds it.
        anchor: latents at the head of each later window that only give context. A causal VAE's first latent is an
            image; this keeps a window's first output from being treated as one.
        retain: absolute latents that every window sees.
    """
    length = min(sized.window, frames)
    lead = anchor + len(retain)
    if frames > sized.window and lead > (sized.window - 1 if planner == "batched" else sized.overlap):
        raise BadInput(
            f"anchor and retained latents ({lead}) need an overlap of as many latents between windows, "
            f"not {sized.overlap}: raise the overlap or set anchor=0"
        )
    if planner == "batched":
        sized = Sizes(sized.window, sized.window - lead // sized.unit * sized.unit, sized.unit)
        first = starts(frames, sized, "clamp")
    elif planner == "static":
        first = starts(frames, sized, placement)
    else:
        first = (shifted_starts if planner == "uniform" else looped_starts)(frames, sized, step)
    calls = _calls(first, frames, length, anchor, retain)
    bodies = [tuple(own[n:]) for n, own in calls]
    if planner == "batched":
        taken: set[int] = set()
        raw = []
        for body in bodies:
            raw.append(torch.tensor([float(j not in taken) for j in body], dtype=torch.float64))
            taken.update(body)
    else:
        raw = [window_weights(weights, len(body), max(sized.overlap - lead, 0)) for body in bodies]
    return [Window(tuple(own), n, share) for (n, own), share in zip(calls, shares(bodies, raw, frames), strict=True)]
