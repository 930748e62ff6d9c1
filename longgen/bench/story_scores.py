"""What one told story is worth: does every prompt hold in its shot, come when it is due, and only then?

Knows timelines, the judge's readings and a prompt schedule's ramps. Knows nothing of how the video was made.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from longgen.shapes.grammar import BACKGROUND_NAMES, COLOUR_NAMES, MOTIONS, SHAPES, Spec
from longgen.shapes.judge import Reading, centres
from longgen.shapes.judge_path import local_motion
from longgen.story.schedules import Ramps

Attribute = Literal["colour", "shape", "background", "motion"]
ATTRIBUTES: tuple[Attribute, ...] = ("colour", "shape", "background", "motion")
WORDS = {"colour": COLOUR_NAMES, "shape": SHAPES, "background": BACKGROUND_NAMES, "motion": MOTIONS}
Labels = dict[Attribute, np.ndarray]  # per attribute the word's index in each frame, −1 where none fits
Shares = dict[Attribute, dict[str, float]]  # per attribute the share of frames that show each word
TURN = 9
"""Frames from which motion is read. On true paths a change is then found within ±4 frames; the judge's own window of 17
straddles both motions, names neither, and finds no change in half of the paths. Base clips are read in the same way."""


@dataclass(frozen=True)
class Score:
    """One story's figures. Shares lie in 0 … 1; lists of four follow `ATTRIBUTES`.

    Args:
        kept, base: share of frames inside shots that show the word, and the base model's own, means over shots.
        told, base_told: share of frames that show all four words.
        errors: frames from each shot's start to the measured change; None where the next word never shows.
        in_place: how many of these changes lie where the schedule puts them.
        leaked, confused: share of frames that show the next shot's word before its time, and the base model's own.
    """

    kept: list[float]
    base: list[float]
    told: float
    base_told: float
    errors: list[float | None]
    in_place: int
    leaked: float
    confused: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def labels(reading: Reading) -> Labels:
    """What each frame shows, motion being read from `TURN` frames about it."""
    motion = local_motion(centres(reading), TURN)
    return {"colour": reading.colour, "shape": reading.shape, "background": reading.background, "motion": motion}


def shares(reading: Reading) -> dict[str, Any]:
    """What a clip of one prompt shows: the share of its frames for each word, and for each set of four words."""
    shown = labels(reading)
    told: dict[str, Any] = {a: _counted([_word(a, i) for i in shown[a]]) for a in ATTRIBUTES}
    return told | {"all": _counted([" ".join(_word(a, shown[a][i]) for a in ATTRIBUTES) for i in range(len(reading))])}


def _word(attribute: Attribute, index: int) -> str:
    return WORDS[attribute][index] if index >= 0 else "-"


def _counted(words: list[str]) -> dict[str, float]:
    return {word: words.count(word) / len(words) for word in dict.fromkeys(words)}


def score(
    reading: Reading,
    specs: Sequence[Spec],
    schedule: Ramps,
    base: Callable[[Spec], dict[str, Any]],
) -> Score:
    """A story's figures.

    Frames within a latent of a transition, or inside its ramp, belong to no shot. Motion is read from a shot's own
    frames. A change without a ramp is in place within ±1 latent; one with a ramp inside it, on the grid of latents.

    Args:
        specs: what each shot shows.
        schedule: the prompt schedule that the video was made with; it tells where its ramps lie.
        base: what the base model's own clip of a prompt shows, as `shares`.
    """
    shots, stride = schedule.timeline.shots, schedule.stride
    ramps = [schedule.ramp(k) for k in range(1, len(shots))]
    whole = labels(reading)
    kept, own, errors, in_place, leaked, confused, told, base_told = [], [], list[float | None](), 0, [], [], [], []
    for k, (spec, shot) in enumerate(zip(specs, shots)):
        first = round(ramps[k - 1][1]) + stride if k else 0
        last = round(ramps[k][0]) - stride if k < len(ramps) else shot.stop
        inside, alone = labels(reading.part(first, last)), base(spec)
        right = {a: inside[a] == _index(spec, a) for a in ATTRIBUTES}
        kept.append([float(np.mean(right[a])) for a in ATTRIBUTES])
        own.append([alone[a].get(getattr(spec, a), 0.0) for a in ATTRIBUTES])
        told.append(float(np.mean(np.all(list(right.values()), axis=0))))
        base_told.append(alone["all"].get(" ".join(getattr(spec, a) for a in ATTRIBUTES), 0.0))
        if k == len(ramps):
            break
        after = specs[k + 1]
        changing = changed(spec, after)
        leaked.append(float(np.mean(inside[changing] == _index(after, changing))))
        confused.append(alone[changing].get(getattr(after, changing), 0.0))
        begin, end = shot.start, shots[k + 1].stop
        found = change(whole[changing][begin:end], _index(spec, changing), _index(after, changing))
        low, high = ramps[k]
        room = stride if low == high else stride / 2
        errors.append(None if found is None else begin + found - shots[k + 1].start)
        in_place += found is not None and low - room <= begin + found <= high + room
    kept_mean, own_mean = ([statistics.fmean(column) for column in zip(*rows)] for rows in (kept, own))
    means = [statistics.fmean(v) if v else 0.0 for v in (told, base_told, leaked, confused)]
    return Score(kept_mean, own_mean, means[0], means[1], errors, in_place, means[2], means[3])


def changed(before: Spec, after: Spec) -> Attribute:
    """The attribute in which two neighbouring shots differ."""
    return next(a for a in ATTRIBUTES if getattr(after, a) != getattr(before, a))


def _index(spec: Spec, attribute: Attribute) -> int:
    return WORDS[attribute].index(getattr(spec, attribute))


def change(shown: np.ndarray, now: int, after: int) -> float | None:
    """The frame from which `after` explains the labels best and `now` does before; None where `after` never does.

    Frames that show neither word leave the place open; the middle of what is possible is taken.

    >>> change(np.array([0, 0, 0, 1, 1, 1, 1]), 0, 1)
    3.0
    >>> change(np.array([0, 0, -1, -1, 1, 1]), 0, 1)
    3.0
    >>> change(np.array([0, 0, 0, 0]), 0, 1) is None
    True
    """
    wrong_before = np.concatenate([[0], np.cumsum(shown != now)])
    wrong_after = np.concatenate([np.cumsum((shown != after)[::-1])[::-1], [0]])
    cost = wrong_before + wrong_after
    possible = np.flatnonzero(cost == cost.min())
    last = int(possible[-1])
    if last >= len(shown) or float(np.mean(shown[last:] == after)) <= 0.5:
        return None
    return float(possible[0] + last) / 2
