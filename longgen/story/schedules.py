"""Prompt schedules: which text each latent sees, for any method and model.

Knows the timeline in pixel frames and the model's temporal stride. Does not know embeddings, attention or models: it
answers with weights over texts (`longgen.types.Mix`), and the model's adapter does the mixing. Indices are always
absolute latents of the whole video, so a window, a chunk or a queue of any shape gets the same text for the same
latent; a queue therefore changes its prompt latent by latent, as each one passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Literal

import torch
import yaml
from torch import Tensor

from longgen.errors import BadInput, unknown
from longgen.protocols import Setting
from longgen.types import Level, Mix, Timeline


def centre(latent: int, stride: int, lead: int = 0) -> float:
    """Middle of the pixel frames of a latent: latent 0 is frame 0, latent i is frames (i − 1)·s + 1 … i·s.

    `lead` latents in front are denoised and never decoded; they go with frame 0.

    >>> [centre(i, 4) for i in range(3)], [centre(i, 4, lead=1) for i in range(3)]
    ([0.0, 2.5, 6.5], [0.0, 0.0, 2.5])
    """
    shown = latent - lead
    return shown * stride - (stride - 1) / 2 if shown > 0 else 0.0


def latents_of(frames: int, stride: int, lead: int = 0) -> int:
    """T, the fewest latents that decode to at least `frames` pixel frames."""
    return -(-(frames - 1) // stride) + 1 + lead


def spans(timeline: Timeline, stride: int, lead: int = 0) -> list[tuple[int, int]]:
    """Latents [a, b) of every shot: those whose centre lies in the shot's frames. They tile [0, T)."""
    total = latents_of(timeline.frames, stride, lead)
    starts = [lead + math.ceil((s.start + (stride - 1) / 2) / stride) if s.start else 0 for s in timeline.shots]
    return list(zip(starts, [*starts[1:], total]))


def cuts(timeline: Timeline, stride: int, lead: int = 0) -> tuple[int, ...]:
    """First latents of the shots that are entered by a hard cut."""
    return tuple(a for s, (a, _) in zip(timeline.shots, spans(timeline, stride, lead)) if s.transition == "cut" and a)


def seeds(
    timeline: Timeline, stride: int, seed: int, start: int, stop: int, lead: int = 0
) -> list[tuple[int, int, int]]:
    """Noise of latents [start, stop) by seed: (seed, a, b), a shot's own seed where it has one.

    >>> from longgen.types import Shot
    >>> shots = (Shot("a", 0, 9, "a"), Shot("b", 9, 17, "b", seed=7))
    >>> seeds(Timeline(shots, 8), 4, 0, 0, 5)
    [(0, 0, 3), (7, 3, 5)]
    """
    parts: list[tuple[int, int, int]] = []
    for shot, (a, b) in zip(timeline.shots, spans(timeline, stride, lead)):
        own = seed if shot.seed is None else shot.seed
        # Indices before the first latent and past the last (queues, whole patches) go with the shot beside them.
        a = start if shot is timeline.shots[0] else max(a, start)
        b = stop if shot is timeline.shots[-1] else min(b, stop)
        if a >= b:
            continue
        if parts and parts[-1][0] == own:
            parts[-1] = (own, parts[-1][1], b)
        else:
            parts.append((own, a, b))
    return parts or [(seed, start, stop)]


class Ramps:
    """Texts held per shot, with linear ramps where one shot passes into the next.

    Progress into shot k is p_k = clamp((c − a_k)/(b_k − a_k), 0, 1) at the latent's centre c; shot k weighs
    w_k = p_k · Π_{j>k} (1 − p_j), p_0 = 1, so weights sum to 1 and every transition is monotone.

    Args:
        timeline, stride, lead: shots in pixel frames, pixel frames per latent, latents that are never decoded.
        guidance, negative: used where a shot sets none.
        space: "text" mixes embeddings, "output" mixes clean estimates (one model run per text in use).
        spherical: mix embeddings on the sphere.
        length: frames of the ramp into a shot entered by `continue`; 0 switches at once, None takes a quarter of the
            shot. `cut` always switches at once, `blend` always uses the shot's own length.
        keys: for `continue`, ramp all the way from the start of the shot before, so that each text is pure at the
            start of its shot (what frame maps of other tools mean by travel); `length` is then unused.
    """

    def __init__(
        self,
        timeline: Timeline,
        stride: int,
        guidance: float,
        negative: str,
        *,
        lead: int = 0,
        space: Literal["text", "output"] = "text",
        spherical: bool = False,
        length: float | None = 0,
        keys: bool = False,
    ) -> None:
        self.timeline, self.stride, self.lead, self.scale = timeline, stride, lead, guidance
        self.space, self.spherical, self.length, self.keys = space, spherical, length, keys
        shots = timeline.shots
        self.texts: tuple[str, ...] = tuple(dict.fromkeys(s.prompt for s in shots))
        said = [negative if s.negative is None else s.negative for s in shots]
        self.negatives: tuple[str, ...] = tuple(dict.fromkeys(said))
        self._negative_of = [self.negatives.index(n) for n in said]
        self._text_of = torch.zeros(len(shots), len(self.texts), dtype=torch.float64)
        for k, shot in enumerate(shots):
            self._text_of[k, self.texts.index(shot.prompt)] = 1

    def ramp(self, k: int) -> tuple[float, float]:
        """Pixel frames (a, b) over which shot k ≥ 1 comes in; a = b for a switch."""
        shot = self.timeline.shots[k]
        if shot.transition == "cut":
            return shot.start, shot.start
        if shot.transition == "blend":
            return shot.start, shot.start + shot.blend
        if self.keys:
            done = self.ramp(k - 1)[1] if k > 1 else 0
            return min(max(self.timeline.shots[k - 1].start, done), shot.start), shot.start
        length = (shot.stop - shot.start) / 4 if self.length is None else self.length
        return shot.start, shot.start + min(length, shot.stop - shot.start)

    def centre(self, latent: int) -> float:
        """Middle of a latent's pixel frames."""
        return centre(latent, self.stride, self.lead)

    def middle(self, frames: tuple[int, ...]) -> float:
        """The median, which latents that a window only keeps for context (anchors, retained ones) hardly move."""
        return median(self.centre(i) for i in frames)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Latents [a, b) of every shot."""
        return spans(self.timeline, self.stride, self.lead)

    def shot_weights(self, frames: tuple[int, ...]) -> Tensor:
        """[T, shots] in fp64; rows sum to 1."""
        return self.weights_at([self.centre(i) for i in frames])

    def weights_at(self, times: Sequence[float]) -> Tensor:
        """[len(times), shots] in fp64 at these pixel frames."""
        centres = torch.tensor(times, dtype=torch.float64)
        weights = torch.zeros(len(times), len(self.timeline.shots), dtype=torch.float64)
        weights[:, 0] = 1
        for k in range(1, len(self.timeline.shots)):
            p = _progress(centres, *self.ramp(k))
            weights[:, :k] *= (1 - p)[:, None]
            weights[:, k] = p
        return weights

    def mix(self, frames: tuple[int, ...], level: Level) -> Mix:
        return Mix((self.shot_weights(frames) @ self._text_of).float(), self.space, spherical=self.spherical)

    def negative(self, frames: tuple[int, ...]) -> int:
        """That of the shot in the middle of the call."""
        return self._negative_of[self._shot_in_the_middle(frames)]

    def guidance(self, frames: tuple[int, ...]) -> Tensor | float:
        """Mixed like the prompts; a plain float where all shots agree."""
        scales = [self.scale if s.guidance is None else s.guidance for s in self.timeline.shots]
        if len(set(scales)) == 1:
            return scales[0]
        return (self.shot_weights(frames) @ torch.tensor(scales, dtype=torch.float64)).float()

    def _shot_in_the_middle(self, frames: tuple[int, ...]) -> int:
        return self.timeline.shots.index(self.timeline.at(int(self.middle(frames))))


class PerWindow(Ramps):
    """One text for the whole of a call: that of its middle. What tools with a prompt per window do."""

    def shot_weights(self, frames: tuple[int, ...]) -> Tensor:
        return self.weights_at([self.middle(frames)]).expand(len(frames), -1)


class Inject(Ramps):
    """FreeNoise's motion injection (2310.15169 §3.3): texts travel, but some layers and levels see one fixed text.

    Between two shots of n latents together, 3n//8 hold, n − 2·(3n//8) ramp with end points included, the rest hold.
    Where σ is inside `interval`, all layers see that sequence; elsewhere the first `split` of the layers see one text
    for all latents: the first shot's in the paper (eq. 11), the last shot's in the public code. A hard cut begins anew.

    Args:
        variant: "paper" or "code", which differ in the fixed text.
        low, high: σ of the interval, low ≤ σ ≤ high. DDIM steps 5 … 15 of 50 are timesteps 900 … 700 of 1,000.
        split: share of the layers that count as encoder and middle.
    """

    def __init__(
        self,
        *common: Any,
        lead: int = 0,
        variant: Literal["paper", "code"] = "paper",
        low: float = 0.7,
        high: float = 0.9,
        split: float = 0.5,
    ) -> None:
        super().__init__(*common, lead=lead)
        self.low, self.high, self.split = low, high, split
        self._spans = self.spans
        shots = self.timeline.shots
        since = [k for k, shot in enumerate(shots) if not k or shot.transition == "cut"]  # where a cut begins anew
        firsts = [max(k for k in since if k <= j) for j in range(len(shots))]
        lasts = [min((k for k in since if k > j), default=len(shots)) - 1 for j in range(len(shots))]
        self._fixed = firsts if variant == "paper" else lasts

    def ramp(self, k: int) -> tuple[float, float]:
        shot = self.timeline.shots[k]
        both = self._spans[k][1] - self._spans[k - 1][0]  # latents of shots k − 1 and k
        length = both - 2 * (3 * both // 8)
        if shot.transition != "continue" or length < 2:
            return super().ramp(k)
        first = self._spans[k][0] - (length + 1) // 2
        return self.centre(first), self.centre(first + length - 1)

    def mix(self, frames: tuple[int, ...], level: Level) -> Mix:
        mixed = super().mix(frames, level)
        sigma = level.spread(len(frames)).sigma.cpu()
        inside = (sigma >= self.low) & (sigma <= self.high)
        if bool(inside.all()) or len(self.texts) == 1:
            return mixed
        shots = [sum(a <= i for a, _ in self._spans[1:]) for i in frames]
        early = torch.where(inside[:, None], mixed.weights, self._text_of[[self._fixed[k] for k in shots]].float())
        return replace(mixed, early=early, split=self.split)


class Relay(Ramps):
    """Prompt Relay (2604.10030): all texts in one sequence, each pulled away from latents outside its segment.

    C = relu(|f − m_s| − w)² / (2σ_r²) is taken from the logits of latent f on the tokens of segment s, with m_s the
    middle of the segment's L latents and w = max(⌊L/2⌋ − 2, 0); C = 0 on the tokens of `shared`. σ_r is 1/ln(1/ε), an
    almost hard edge, or tail/√(2·ln(1/ε)), so that e^(−C) = ε at distance w + tail. A text of several shots takes the
    least of their penalties. With one shot the policy is off: it would only damp the ends of the clip.

    Args:
        shared: a text for the whole video, whose tokens every latent sees; "" for none.
        epsilon: ε in (0, 1).
        tail: latents over which the soft edge falls; 0 for the hard edge.
    """

    def __init__(self, *common: Any, lead: int = 0, shared: str = "", epsilon: float = 1e-3, tail: float = 0.0) -> None:
        super().__init__(*common, lead=lead)
        self._locals, self._off = len(self.texts), len(self.texts) == 1
        if shared and not self._off:
            self.texts = (shared, *self.texts)
        decay = math.log(1 / epsilon)
        self.sigma = tail / math.sqrt(2 * decay) if tail else 1 / decay

    def penalty(self, frames: tuple[int, ...]) -> Tensor:
        """C [T, shots] ≥ 0 in fp64."""
        at = torch.tensor(frames, dtype=torch.float64)
        columns = []
        for start, stop in self.spans:
            middle, half = (start + stop - 1) / 2, max((stop - start) // 2 - 2, 0)
            columns.append(((at - middle).abs() - half).relu() ** 2 / (2 * self.sigma**2))
        return torch.stack(columns, 1)

    def mix(self, frames: tuple[int, ...], level: Level) -> Mix:
        if self._off:
            return super().mix(frames, level)
        penalty, ours = self.penalty(frames), self._text_of.bool()
        local = torch.stack([penalty[:, ours[:, j]].amin(1) for j in range(self._locals)], 1)
        free = local.new_zeros(len(frames), len(self.texts) - self._locals)
        return Mix(torch.cat([free, local], 1).float(), "bias")


def _progress(centres: Tensor, start: float, stop: float) -> Tensor:
    """0 before `start`, 1 from `stop` on, linear between."""
    if stop <= start:
        return (centres >= start).to(torch.float64)
    return ((centres - start) / (stop - start)).clamp(0, 1)


_LENGTH = Setting(None, "frames", "ramp into a shot that continues; default a quarter of the shot", low=0)
_KEYS = Setting(False, "1", "ramp from the start of the shot before, so that each text is pure where its shot starts")


@dataclass(frozen=True)
class Kind:
    """One kind of schedule: what it is, how it is made, and its options with units and ranges."""

    title: str
    make: Callable[..., Ramps]
    options: Mapping[str, Setting]
    fixed: Mapping[str, Any] = field(default_factory=dict)


SCHEDULES: dict[str, Kind] = {
    "hold": Kind("each latent sees the text of its own shot", Ramps, {}),
    "window": Kind("each call sees the text of its middle latent", PerWindow, {}),
    "travel": Kind(
        "embeddings ramp from shot to shot, latent by latent",
        Ramps,
        {"length": _LENGTH, "keys": _KEYS, "spherical": Setting(False, "1", "slerp instead of lerp")},
    ),
    "blend": Kind(
        "clean estimates under both texts ramp from shot to shot; twice the cost inside a ramp",
        Ramps,
        {"length": _LENGTH, "keys": _KEYS},
        {"space": "output"},
    ),
    "inject": Kind(
        "FreeNoise's motion injection (2310.15169)",
        Inject,
        {
            "variant": Setting(
                "paper", "1", "fixed text outside the interval: first shot's or last shot's", choices=("paper", "code")
            ),
            "low": Setting(0.7, "σ", "lowest level at which all layers see the travelling text", 0, 1),
            "high": Setting(0.9, "σ", "highest level at which all layers see the travelling text", 0, 1),
            "split": Setting(0.5, "layers", "share of the layers that see the fixed text", 0, 1),
        },
    ),
    "relay": Kind(
        "Prompt Relay (2604.10030): penalties route every latent to its shot's tokens",
        Relay,
        {
            "shared": Setting("", "text", "a text that the whole video sees"),
            "epsilon": Setting(1e-3, "1", "what is left of a token at the edge", 1e-12, 0.999),
            "tail": Setting(0.0, "latents", "width of the soft edge; 0 is the hard edge", 0),
        },
    ),
}


def check_heard(timeline: Timeline, stride: int, places: Sequence[str] = ()) -> None:
    """Raise BadInput for a shot that no latent falls into; `places` says where each shot was written."""
    for k, (shot, (start, stop)) in enumerate(zip(timeline.shots, spans(timeline, stride))):
        if start == stop:
            place = f"{places[k]}: " if places else ""
            raise BadInput(
                f"{place}shot {shot.id!r} lasts {shot.stop - shot.start} frames, which no latent of {stride} frames "
                f"falls into; make it at least {stride} frames long"
            )


def build(
    timeline: Timeline, name: str, stride: int, guidance: float, negative: str = "", lead: int = 0, **options: Any
) -> Ramps:
    """The prompt schedule called `name`, which may carry options: `travel:keys=true`, `relay:tail=2,epsilon=0.01`.

    Args:
        timeline: shots in pixel frames.
        stride: pixel frames per latent (4 Wan, 8 LTX).
        guidance: scale of classifier-free guidance where a shot sets none.
        negative: negative prompt where a shot sets none.
        lead: first latents that are never decoded.
        options: of the schedule, see `SCHEDULES`.

    Raises:
        BadInput: unknown schedule or option, an option out of range, or a shot that no latent falls into.
    """
    name, options = parse_name(name, options)
    kind = SCHEDULES[name]
    for option, value in options.items():
        if option not in kind.options:
            raise unknown(f"option of the prompt schedule {name!r}", option, kind.options)
        _check_option(f"{name}.{option}", kind.options[option], value)
    check_heard(timeline, stride)
    settings = {option: setting.default for option, setting in kind.options.items()}
    return kind.make(timeline, stride, guidance, negative, lead=lead, **{**settings, **kind.fixed, **options})


def parse_name(text: str, options: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    """`travel:length=8,spherical=true` as ("travel", {"length": 8, "spherical": True})."""
    name, _, told = text.partition(":")
    if name not in SCHEDULES:
        raise unknown("prompt schedule", name, SCHEDULES)
    found = dict(options or {})
    for pair in filter(None, told.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise BadInput(f"options of a prompt schedule are {name}:key=value,key=value (got {pair!r})")
        found[key.strip()] = yaml.safe_load(value)
    return name, found


def _check_option(name: str, setting: Setting, value: Any) -> None:
    if setting.choices and value not in setting.choices:
        raise unknown(f"value of {name}", str(value), setting.choices)
    if value is not None and setting.default is not None and isinstance(value, str) != isinstance(setting.default, str):
        raise BadInput(f"{name} is {value!r}; write a value such as {setting.default!r}")
    low = -math.inf if setting.low is None else setting.low
    high = math.inf if setting.high is None else setting.high
    if isinstance(value, int | float) and not low <= value <= high:
        raise BadInput(f"{name} is {value}; legal: {low:g} to {high:g} {setting.unit}")
