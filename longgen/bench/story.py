"""Stories on the embedded model, against the exact judge: does every prompt hold in its place, and only there?

A story changes one word from shot to shot. Each is made under every schedule and method with the same seed, so that
differences are taken story by story; what the base model makes of each prompt alone, at native length with as many
steps and the same seed, is measured beside. Stories with an even index are for choosing defaults, the others for
reporting them (`longgen.bench.story_tables`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from longgen.api import Session
from longgen.bench.rows import Rows, listed
from longgen.bench.story_scores import ATTRIBUTES, WORDS, score, shares
from longgen.cli.progress import say
from longgen.config import Request
from longgen.runtime.run import Job
from longgen.shapes.grammar import BACKGROUND_NAMES, COLOUR_NAMES, MOTIONS, SHAPES, Spec
from longgen.shapes.judge import Reading, read
from longgen.story.schedules import build
from longgen.story.timeline import check, from_prompts, join_bars
from longgen.types import LoadOptions, Timeline, Transition

COUNTS = (2, 3, 6)
DEFAULT = "freenoise.noise,windows"
# (transition, schedule, method). A cut makes a video of each shot, under every schedule the same, and `hold` ramps into
# a blend as `travel` does; where one shot passes into the next without either, everything differs.
CELLS: tuple[tuple[Transition, str, str], ...] = (
    ("cut", "hold", DEFAULT),
    ("blend", "hold", DEFAULT),
    ("blend", "blend", DEFAULT),
    ("blend", "blend", "freenoise"),
    *(("continue", name, DEFAULT) for name in ("hold", "window", "travel", "inject", "relay:tail=2")),
    *(("continue", name, DEFAULT) for name in ("blend", "blend:length=0")),
    *(
        ("continue", name, method)
        for method in ("windows", "freenoise", "extend", "direct")
        for name in ("hold", "blend")
    ),
    *(("continue", "hold", method) for method in ("ultravico", "wide", "windows,ditctrl")),
    ("continue", "hold", "fifo"),
    ("cut", "hold", "fifo"),
)


def run(
    rows: Rows,
    stories: int = 20,
    first: int = 0,
    counts: str = "",
    transitions: str = "",
    schedules: str = "",
    methods: str = "",
    steps: int = 12,
    shot_frames: int = 24,
) -> None:
    """Tell every story that is not recorded yet, story by story so that all schedules and methods stay paired.

    Args:
        stories: how many of each count; half of them choose, half report.
        first: index of the story to begin with, so that processes can share the work.
        counts, transitions, schedules, methods: lists with `;` between, of what to make of `CELLS`; empty for all.
        shot_frames: pixel frames of each shot.
    """
    teller = Teller(rows, Session("shapes", LoadOptions(dtype="fp32")), steps, shot_frames)
    wanted = [listed(text) for text in (transitions, schedules, methods)]
    made = [cell for cell in CELLS if all(not names or part in names for part, names in zip(cell, wanted))]
    for index in range(first, stories):
        for count in [int(c) for c in listed(counts)] or COUNTS:
            for transition, schedule, method in made:
                teller.tell(tell(count, index, shot_frames, transition), schedule, method)
        say(f"story {index + 1} of {stories}")


@dataclass(frozen=True)
class Tale:
    """A story whose shots differ from their neighbours in one word."""

    index: int
    specs: tuple[Spec, ...]
    timeline: Timeline


def tell(count: int, index: int, shot_frames: int, transition: Transition = "continue", fps: float = 8) -> Tale:
    """Story `index`: the first `count` shots of one long story, a function of the index alone.

    Attributes change in turn, beginning elsewhere every second story, so both halves hold all of them equally.
    """
    timeline = from_prompts([s.prompt for s in _specs(index, count)], count * shot_frames, fps)
    blend = shot_frames // 4 if transition == "blend" else 0
    shots = [replace(s, transition=transition, blend=blend) if k else s for k, s in enumerate(timeline.shots)]
    return Tale(index, tuple(_specs(index, count)), check(Timeline(tuple(shots), fps)))


def _specs(index: int, count: int) -> list[Spec]:
    draw = np.random.default_rng([6, index])
    specs = [Spec(*(str(draw.choice(words)) for words in (COLOUR_NAMES, SHAPES, MOTIONS, BACKGROUND_NAMES)))]
    for k in range(1, count):
        attribute = ATTRIBUTES[(index // 2 + k) % len(ATTRIBUTES)]
        others = [word for word in WORDS[attribute] if word != getattr(specs[-1], attribute)]
        specs.append(replace(specs[-1], **{attribute: str(draw.choice(others))}))
    return specs


@dataclass
class Teller:
    """Makes and reads videos on one model, and records them."""

    rows: Rows
    session: Session
    steps: int
    shot_frames: int

    @cached_property
    def common(self) -> dict[str, Any]:
        """What every row of this bench is made with."""
        return {"steps": self.steps, "model_hash": self.session.model_hash}

    def tell(self, tale: Tale, schedule: str, method: str) -> None:
        """Record one story, unless it is."""
        entry = tale.timeline.shots[-1].transition
        key = {"shots": len(tale.specs), "transition": entry, "schedule": schedule, "method": method}
        key |= {"shot_frames": self.shot_frames, **self.common}
        if str(tale.index) in self.rows.get(**key).get("stories", {}):
            return
        prompt = join_bars([s.prompt for s in tale.specs])
        reading = self._read(Request(prompt=prompt, schedule=schedule, method=method), tale.index, tale.timeline)
        prompts = build(tale.timeline, schedule, self.session.info.stride, self.session.info.guidance)
        found = score(reading, tale.specs, prompts, lambda spec: self.base(spec, tale.index))
        self.rows.add(key, {"stories": {str(tale.index): _rounded(found.to_dict())}}, grow="stories")

    def base(self, spec: Spec, seed: int) -> dict[str, Any]:
        """What the base model's own clip of native length shows; made once, and kept among the rows."""
        key, name = {"clips": "base", **self.common}, f"{seed}: {spec.prompt}"
        known = self.rows.get(**key).get("prompts", {})
        if name not in known:
            known = {name: _rounded(shares(self._read(Request(prompt=spec.prompt, method="direct"), seed)))}
            self.rows.add(key, {"prompts": known}, grow="prompts")
        return dict(known[name])

    def _read(self, asked: Request, seed: int, timeline: Timeline | None = None) -> Reading:
        """A video as the judge reads it. Decoding by sixteen gives the same frames, on a CPU in less time."""
        changes = {"num_inference_steps": self.steps, "seed": seed, "decode_chunk": 16}
        frames = self.session.run(self.session.plan(asked.model_copy(update=changes), timeline), Job(keep=True)).frames
        assert frames is not None
        return read(frames)


def _rounded(value: Any) -> Any:
    """Four digits, which keeps rows small."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return round(value, 4) if isinstance(value, float) else value
