"""The exact judge of the shapes world: what a video shows, whether it keeps its prompt, and what drifts.

Knows the truth of `grammar` and `render`, nothing of models; it is never tuned to one. On rendered truth it is right
for every video, also after H.264; `docs/guide/shapes.md` states the measured tolerances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from longgen.shapes.grammar import (
    BACKGROUND_NAMES,
    COLOUR_NAMES,
    MOTIONS,
    SHAPES,
    Spec,
    held_out_specs,
    parse,
    seen_specs,
)
from longgen.shapes.judge_frame import Array, Reading, read
from longgen.shapes.judge_path import (
    CIRCLING,
    Path,
    fit,
    jumps,
    local_motion,
    longest_freeze,
    motion_class,
    repetition,
    wrap,
)
from longgen.shapes.render import DIRECTIONS, Identity

KEPT_SHARE = 0.9
"""Share of frames that must agree with the prompt, in each respect, for a video to keep it."""
SEGMENT = 16
"""Frames per segment over which a property is read before segments are compared."""
TOLERANCE = {"size": 0.012, "colour": 0.06, "shade": 0.03, "gradient": 0.12, "speed": 0.006, "path": 0.025}
"""Largest difference between any two segments that is no drift; no truth exceeds them, before or after H.264."""
FREEZE_STEPS = 3
REPETITION_SHARE = 0.5


@dataclass(frozen=True)
class Agreement:
    """Shares of frames, 0-1, that agree with a spec; `single`: exactly one object is to be seen."""

    colour: float
    shape: float
    background: float
    motion: float
    single: float

    @property
    def worst(self) -> float:
        """The lowest of the shares."""
        return min(asdict(self).values())


@dataclass(frozen=True)
class Verdict:
    """What the judge says about one video.

    Args:
        spec: what the video was judged against.
        shown: the words that most frames show; None where some word is not to be read.
        agreement: shares of frames that agree with `spec`.
        kept: whether every share reaches `KEPT_SHARE` and the motion as a whole is the prompt's.
        identity: the unprompted properties, fitted over the video; None where no motion is to be read.
        drift: per property the largest difference between two segments, in the property's unit.
        jumps: frames at which the velocity breaks.
        freeze: longest run of steps without motion.
        repetition: share of frames that repeat an earlier place against the motion, 0-1.
        faults: what is wrong, in words; empty for a faultless video.
        reading: the per-frame arrays.
        motion: per frame the index of the local motion class, -1 where none fits.
        tracks: per property its value in every segment.
    """

    spec: Spec | None
    shown: Spec | None
    agreement: Agreement
    kept: bool
    identity: Identity | None
    drift: dict[str, float]
    jumps: tuple[int, ...]
    freeze: int
    repetition: float
    faults: tuple[str, ...]
    reading: Reading = field(repr=False)
    motion: Array = field(repr=False)
    tracks: dict[str, Array] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the per-frame arrays."""
        plain = {"kept": self.kept, "faults": list(self.faults), "jumps": list(self.jumps), "freeze": self.freeze}
        return plain | {
            "prompt": self.spec.prompt if self.spec else None,
            "shown": self.shown.prompt if self.shown else None,
            "agreement": asdict(self.agreement),
            "identity": asdict(self.identity) if self.identity else None,
            "drift": self.drift,
            "repetition": self.repetition,
        }


def judge(frames: Tensor | Array, prompt: str | Spec | None = None) -> Verdict:
    """Judge one video.

    Args:
        frames: uint8 [F, side, side, 3], or float in 0-1.
        prompt: what it should show; None judges it against the words that most of its frames show.

    Raises:
        BadInput: the prompt is outside the grammar.
    """
    return judge_reading(read(frames), prompt)


def judge_reading(reading: Reading, prompt: str | Spec | None = None) -> Verdict:
    """Judge a video that has been read already (see `judge`)."""
    points = centres(reading)
    whole, local = motion_class(points), local_motion(points)
    shown = _shown(reading, whole)
    spec = parse(prompt) if isinstance(prompt, str) else prompt or shown
    agreement = agree(reading, spec) if spec else Agreement(0.0, 0.0, 0.0, 0.0, 0.0)
    path = fit(points, whole)
    tracks = _tracks(reading, points, whole)
    drift = {name: float(np.ptp(track, axis=0).max()) for name, track in tracks.items() if len(track)}
    breaks, freeze, repeated = jumps(points), longest_freeze(points), repetition(points, whole)
    kept = spec is not None and agreement.worst >= KEPT_SHARE and whole == MOTIONS.index(spec.motion)
    faults = [name for name, bad in _faults(reading, agreement, spec, whole, breaks, freeze, repeated).items() if bad]
    faults += [f"{name} drifts" for name, value in drift.items() if value > TOLERANCE[name]]
    return Verdict(
        spec=spec,
        shown=shown,
        agreement=agreement,
        kept=kept,
        identity=_identity(reading, path),
        drift=drift,
        jumps=tuple(breaks.tolist()),
        freeze=freeze,
        repetition=repeated,
        faults=tuple(faults),
        reading=reading,
        motion=local,
        tracks=tracks,
    )


def agree(reading: Reading, prompt: str | Spec, first: int = 0, last: int | None = None) -> Agreement:
    """Shares of frames [first, last) that agree with a prompt; motion is read from these frames alone.

    For videos whose prompt changes: judge every shot against its own prompt.
    """
    spec = parse(prompt) if isinstance(prompt, str) else prompt
    part = reading.part(first, len(reading) if last is None else last)
    if not len(part):
        raise ValueError(f"no frames in [{first}, {last}) of {len(reading)}")
    colour, shape, motion, background = spec.indices
    return Agreement(
        colour=float(np.mean(part.colour == colour)),
        shape=float(np.mean(part.shape == shape)),
        background=float(np.mean(part.background == background)),
        motion=float(np.mean(local_motion(centres(part)) == motion)),
        single=float(np.mean(part.objects == 1)),
    )


def centres(reading: Reading) -> Array:
    """[F, 2] centres of the main object, NaN where there is none."""
    return np.where(reading.present[:, None], np.stack([reading.x, reading.y], 1), np.nan).astype(np.float64)


def _shown(reading: Reading, motion: int) -> Spec | None:
    words = [_most(reading.colour), _most(reading.shape), motion, _most(reading.background)]
    if min(words) < 0:
        return None
    return Spec(COLOUR_NAMES[words[0]], SHAPES[words[1]], MOTIONS[words[2]], BACKGROUND_NAMES[words[3]])


def _most(indices: Array) -> int:
    values, counts = np.unique(indices, return_counts=True)
    return int(values[counts.argmax()])


def _faults(
    reading: Reading,
    agreement: Agreement,
    spec: Spec | None,
    motion: int,
    breaks: Array,
    freeze: int,
    repeated: float,
) -> dict[str, bool]:
    """Named faults that are not drifts."""
    return {
        "wrong colour": agreement.colour < 1,
        "wrong shape": agreement.shape < 1,
        "wrong background": agreement.background < 1,
        "wrong motion": spec is None or motion != MOTIONS.index(spec.motion) or agreement.motion < 1,
        "object vanishes": bool((reading.objects == 0).any()),
        "several objects": bool((reading.objects > 1).any()),
        "velocity jumps": bool(len(breaks)),
        "freezes": freeze >= FREEZE_STEPS,
        "repeats": repeated >= REPETITION_SHARE,
    }


def _segments(frames: int) -> list[slice]:
    """Segments of `SEGMENT` frames; the last one takes the remainder."""
    starts = list(range(0, max(frames - SEGMENT + 1, 1), SEGMENT))
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], frames])]


def _tracks(reading: Reading, points: Array, motion: int) -> dict[str, Array]:
    """Every property in every segment, [N, channels]; segments without an object are left out."""
    parts = [s for s in _segments(len(reading)) if reading.present[s].sum() >= 3]
    columns = {"size": reading.size, "colour": reading.rgb, "shade": reading.shade, "gradient": reading.gradient}
    tracks = {}
    for name, values in columns.items():
        kept = [np.median(values[s][reading.present[s]], axis=0).reshape(-1) for s in parts]
        tracks[name] = np.array(kept)
    paths = [p for s in parts if (p := fit(points[s], motion))]
    tracks["speed"] = np.array([[p.speed] for p in paths])
    lanes = np.array([_lane(p, motion) for p in paths])
    tracks["path"] = lanes[:1] + wrap(lanes - lanes[:1]) if len(lanes) else lanes
    return tracks


def _lane(path: Path, motion: int) -> list[float]:
    """What stays constant along a path: centre and radius of a circle, the height of a drift about the first half."""
    if motion == CIRCLING:
        return [path.x, path.y, path.orbit]
    return [path.y if DIRECTIONS[MOTIONS[motion]][0] else path.x]


def _identity(reading: Reading, path: Path | None) -> Identity | None:
    if path is None:
        return None
    there = reading.present
    rgb, shade = np.median(reading.rgb[there], axis=0), np.median(reading.shade, axis=0)
    return Identity(
        size=float(np.median(reading.size[there])),
        colour=(float(rgb[0]), float(rgb[1]), float(rgb[2])),
        shade=(float(shade[0]), float(shade[1]), float(shade[2])),
        gradient=float(np.median(reading.gradient)),
        **asdict(path),
    )


def wilson(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a share, 95 % by default.

    >>> low, high = wilson(90, 100)
    >>> round(low, 3), round(high, 3)
    (0.826, 0.945)
    """
    share, spread = hits / count, z * z / count
    middle, reach = share + spread / 2, z * (share * (1 - share) / count + spread / 4 / count) ** 0.5
    return max(0.0, (middle - reach) / (1 + spread)), min(1.0, (middle + reach) / (1 + spread))


Sampler = Callable[[Sequence[str]], Sequence[Array]]
"""Prompts to videos, uint8 [F, side, side, 3] each; how they are sampled is the caller's business."""


def score(sample: Sampler, count: int, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Judge a model on `count` prompts seen in training and as many held out.

    Returns:
        For "seen" and "held_out": per respect (background, colour, motion, shape, kept) the number of videos in which
        most frames (the whole path, for motion) agree, its percentage and 95 % Wilson interval.
    """
    generator = np.random.default_rng(seed)
    table = {}
    for name, specs in (("seen", seen_specs()), ("held_out", held_out_specs())):
        chosen = [specs[i] for i in generator.choice(len(specs), count, replace=count > len(specs))]
        verdicts = [judge(video, spec) for video, spec in zip(sample([s.prompt for s in chosen]), chosen)]
        table[name] = {"count": count} | {respect: _tally(verdicts, respect) for respect in RESPECTS}
    return table


RESPECTS = ("background", "colour", "motion", "shape", "kept")


def _tally(verdicts: list[Verdict], respect: str) -> dict[str, Any]:
    hits = sum(_holds(verdict, respect) for verdict in verdicts)
    low, high = wilson(hits, len(verdicts))
    return {"hits": hits, "percent": 100 * hits / len(verdicts), "interval": [100 * low, 100 * high]}


def _holds(verdict: Verdict, respect: str) -> bool:
    if respect == "kept":
        return verdict.kept
    if respect == "motion":
        whole = motion_class(centres(verdict.reading))
        return verdict.spec is not None and whole == MOTIONS.index(verdict.spec.motion)
    return bool(getattr(verdict.agreement, respect) > 0.5)
