"""Stories on the embedded model, against the exact judge: does every prompt hold in its place, and only there?

A story changes one word from shot to shot. Rows tell, per attribute, the share of frames kept inside the shots beside
the base model's own share for the same prompts at native length; where transitions fall; and how often the next
shot's word shows before its time, beside the base model's own confusion. Stories are dealt to two halves: `choose`
for picking defaults, `report` for figures.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from longgen.api import Session
from longgen.bench.rows import Rows
from longgen.cli.progress import say
from longgen.config import Request
from longgen.runtime.run import Job
from longgen.shapes.grammar import BACKGROUND_NAMES, COLOUR_NAMES, MOTIONS, SHAPES, Spec
from longgen.shapes.judge import Reading, centres, read, wilson
from longgen.shapes.judge_path import local_motion
from longgen.story.timeline import check, from_prompts, join_bars
from longgen.types import LoadOptions, Timeline

Attribute = Literal["colour", "shape", "background", "motion"]
ATTRIBUTES: tuple[Attribute, ...] = ("colour", "shape", "background", "motion")
WORDS = {"colour": COLOUR_NAMES, "shape": SHAPES, "background": BACKGROUND_NAMES, "motion": MOTIONS}
Labels = dict[Attribute, np.ndarray]  # per attribute the word's index in each frame, −1 where none fits


def run(
    rows: Rows,
    model: str = "shapes",
    counts: str = "2;3;6",
    stories: int = 20,
    schedules: str = "hold;window;travel;blend;inject;relay",
    methods: str = "freenoise.noise,windows;windows,ditctrl",
    transition: Literal["continue", "cut", "blend"] = "continue",
    shot_frames: int = 32,
    steps: int = 25,
) -> None:
    """Tell `stories` stories of each count under each schedule and method; recorded rows are skipped."""
    session = Session(model, LoadOptions())
    base = Base(session, steps)
    for count in (int(c) for c in str(counts).split(";")):
        told = [tell(count, index, shot_frames, session.info.fps, transition) for index in range(stories)]
        for schedule in schedules.split(";"):
            for method in methods.split(";"):
                key = {"model": model, "shots": count, "schedule": schedule, "method": method, "transition": transition}
                key |= {"steps": steps, "shot_frames": shot_frames}
                halves = {"choose": told[0::2], "report": told[1::2]}
                for half, part in halves.items():
                    if part and not rows.has(**key, half=half):
                        scores = [score(_labels(session, s, schedule, method, steps), s, base) for s in part]
                        values = {**summarise(scores), "model_hash": session.model_hash}
                        rows.add({**key, "half": half}, values)
                        say(f"{count} shots, {schedule}, {method}, {half}: {len(part)} stories")


# ---------------------------------------------------------------------------------------------------------- stories


@dataclass(frozen=True)
class Tale:
    """A story whose shots differ from their neighbours in one word."""

    index: int
    specs: tuple[Spec, ...]
    timeline: Timeline

    def changed(self, k: int) -> Attribute:
        """The attribute in which shot k differs from shot k − 1."""
        return next(a for a in ATTRIBUTES if getattr(self.specs[k], a) != getattr(self.specs[k - 1], a))


def tell(
    count: int, index: int, shot_frames: int, fps: float, transition: Literal["continue", "cut", "blend"] = "continue"
) -> Tale:
    """Story `index`, a function of its arguments. Attributes change in turn, beginning elsewhere every second story."""
    draw = np.random.default_rng([count, index])
    specs = [Spec(*(str(draw.choice(words)) for words in (COLOUR_NAMES, SHAPES, MOTIONS, BACKGROUND_NAMES)))]
    for k in range(1, count):
        attribute = ATTRIBUTES[(index // 2 + k) % len(ATTRIBUTES)]  # balanced in both halves
        others = [word for word in WORDS[attribute] if word != getattr(specs[-1], attribute)]
        specs.append(replace(specs[-1], **{attribute: str(draw.choice(others))}))
    plain = from_prompts([s.prompt for s in specs], count * shot_frames, fps)
    blend = shot_frames // 4 if transition == "blend" else 0
    shots = [replace(s, transition=transition, blend=blend) if k else s for k, s in enumerate(plain.shots)]
    return Tale(index, tuple(specs), check(Timeline(tuple(shots), fps)))


def labels(reading: Reading) -> Labels:
    """What each frame shows."""
    motion = local_motion(centres(reading))
    return {"colour": reading.colour, "shape": reading.shape, "background": reading.background, "motion": motion}


def _labels(session: Session, tale: Tale, schedule: str, method: str, steps: int) -> Labels:
    asked = Request(
        prompt=join_bars([s.prompt for s in tale.specs]),
        method=method,
        schedule=schedule,
        num_inference_steps=steps,
        seed=tale.index,
    )
    frames = session.run(session.plan(asked, tale.timeline), Job(keep=True)).frames
    assert frames is not None
    return labels(read(frames))


class Base:
    """The base model's own clips of native length, one per prompt and seed, made when asked for."""

    def __init__(self, session: Session, steps: int) -> None:
        self.session, self.steps = session, steps
        self.known: dict[tuple[str, int], Labels] = {}

    def of(self, spec: Spec, seed: int) -> Labels:
        """What the frames of the clip show."""
        key = (spec.prompt, seed)
        if key not in self.known:
            asked = Request(prompt=spec.prompt, method="direct", num_inference_steps=self.steps, seed=seed)
            frames = self.session.run(self.session.plan(asked), Job(keep=True)).frames
            assert frames is not None
            self.known[key] = labels(read(frames))
        return self.known[key]


# ----------------------------------------------------------------------------------------------------------- scores


@dataclass(frozen=True)
class Score:
    """One story's figures. Shares lie in 0 … 1; errors count frames, None where the next word never shows."""

    kept: dict[Attribute, float]
    base: dict[Attribute, float]
    errors: tuple[float | None, ...]
    reach: tuple[tuple[float, float], ...]
    leaked: float
    confused: float


def score(shown: Labels, tale: Tale, base: Base, stride: int = 4) -> Score:
    """Frames within a latent of a transition, or inside a blend, belong to no shot."""
    shots = tale.timeline.shots
    kept: dict[Attribute, list[float]] = {a: [] for a in ATTRIBUTES}
    own: dict[Attribute, list[float]] = {a: [] for a in ATTRIBUTES}
    leaked, confused, errors, reach = [], [], list[float | None](), []
    for k, (spec, shot) in enumerate(zip(tale.specs, shots)):
        alone = base.of(spec, tale.index)
        inside = slice(shot.start + shot.blend + stride * (k > 0), shot.stop - stride * (k + 1 < len(shots)))
        for attribute in ATTRIBUTES:
            word = WORDS[attribute].index(getattr(spec, attribute))
            kept[attribute].append(float(np.mean(shown[attribute][inside] == word)))
            own[attribute].append(float(np.mean(alone[attribute] == word)))
        if k + 1 == len(shots):
            continue
        attribute = tale.changed(k + 1)
        now, after = (WORDS[attribute].index(getattr(s, attribute)) for s in (spec, tale.specs[k + 1]))
        leaked.append(float(np.mean(shown[attribute][inside] == after)))
        confused.append(float(np.mean(alone[attribute] == after)))
        first, last = (shot.start + shot.stop) // 2, (shots[k + 1].start + shots[k + 1].stop) // 2
        found = change(shown[attribute][first:last], now, after)
        errors.append(None if found is None else first + found - shots[k + 1].start)
        reach.append((-float(stride), float(shots[k + 1].blend + stride)))
    means = [{a: statistics.mean(values[a]) for a in ATTRIBUTES} for values in (kept, own)]
    return Score(means[0], means[1], tuple(errors), tuple(reach), _mean(leaked), _mean(confused))


def change(shown: np.ndarray, now: int, after: int) -> int | None:
    """The frame from which `after` explains the labels best and `now` does before; None where `after` never does.

    >>> change(np.array([0, 0, 0, 1, 0, 1, 1]), 0, 1)
    3
    >>> change(np.array([0, 0, 0, 0]), 0, 1) is None
    True
    """
    wrong_before = np.concatenate([[0], np.cumsum(shown != now)])
    wrong_after = np.concatenate([np.cumsum((shown != after)[::-1])[::-1], [0]])
    at = int(np.argmin(wrong_before + wrong_after))
    return at if at < len(shown) and float(np.mean(shown[at:] == after)) > 0.5 else None


def summarise(scores: Sequence[Score]) -> dict[str, Any]:
    """Means over stories with 95 % intervals: Student-normal for shares, Wilson for counts."""
    values: dict[str, Any] = {"stories": len(scores)}
    for attribute in ATTRIBUTES:
        kept, base = [s.kept[attribute] for s in scores], [s.base[attribute] for s in scores]
        values[attribute] = {"kept": _mean(kept), "interval": _interval(kept), "base": _mean(base)}
        values[attribute]["of_base"] = _mean(kept) / _mean(base) if _mean(base) else None
    pairs = [(error, reach) for s in scores for error, reach in zip(s.errors, s.reach)]
    found = [error for error, _ in pairs if error is not None]
    hits = sum(error is not None and low <= error <= high for error, (low, high) in pairs)
    values["transitions"] = {
        "count": len(pairs),
        "in_place": hits / len(pairs),
        "interval": list(wilson(hits, len(pairs))),
        "missing": len(pairs) - len(found),
        "median_error_frames": statistics.median(found) if found else None,
    }
    extra = [100 * (s.leaked - s.confused) for s in scores]
    values["leakage_points"] = {"mean": _mean(extra), "interval": _interval(extra)}
    return values


def _mean(values: Sequence[float]) -> float:
    return statistics.mean(values) if values else 0.0


def _interval(values: Sequence[float]) -> list[float]:
    reach = 1.96 * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return [_mean(values) - reach, _mean(values) + reach]
