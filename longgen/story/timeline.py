"""Prompts placed in time: splitting, sharing frames out, checking and printing.

Knows text, frames and seconds. Does not know files, latents or models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from longgen.errors import BadInput, unknown
from longgen.types import Shot, Timeline

MAX_SHOTS = 1_000
MAX_FRAMES = 1_000_000


def split_bars(text: str) -> list[str]:
    r"""Parts between bars; ``\|`` is a literal bar.

    >>> split_bars(r"a cat | a dog \| a fox")
    ['a cat', 'a dog | a fox']
    """
    return [part.replace(r"\|", "|").strip() for part in re.split(r"(?<!\\)\|", text)]


def join_bars(prompts: Sequence[str]) -> str:
    r"""The inverse of `split_bars` for stripped prompts.

    >>> join_bars(["a", "b | c"])
    'a | b \\| c'
    """
    return " | ".join(p.replace("|", r"\|") for p in prompts)


def share(weights: Sequence[float], frames: int) -> list[tuple[int, int]]:
    """Spans [a, b) that tile [0, frames) in proportion to `weights`, each at least one frame long.

    Raises:
        BadInput: more weights than frames.

    >>> share([1, 1, 2], 9)
    [(0, 2), (2, 4), (4, 9)]
    """
    count, total = len(weights), sum(weights)
    if count > frames:
        raise BadInput(f"{count} shots do not fit in {frames} frames; use at most {frames} shots or a longer video")
    edges, done = [0], 0.0
    for k, weight in enumerate(weights):
        done += weight
        edge = round(frames * done / total)
        edges.append(min(max(edge, edges[-1] + 1), frames - (count - 1 - k)))
    return list(pairwise(edges))


def parse_prompt(text: str, frames: int, fps: float, negative: str | None = None) -> Timeline:
    r"""``"a | b"`` as a timeline whose shots share `frames` evenly; no bar gives one shot, ``\|`` is a literal bar.

    Raises:
        BadInput: an empty part, or more parts than frames.

    >>> [(s.prompt, s.start, s.stop) for s in parse_prompt("a | b", 33, 8).shots]
    [('a', 0, 16), ('b', 16, 33)]
    """
    return from_prompts(split_bars(text), frames, fps, negative)


def from_prompts(
    prompts: Sequence[str],
    frames: int,
    fps: float,
    negative: str | None = None,
    weights: Sequence[float] | None = None,
) -> Timeline:
    """Shots `shot1`, `shot2` … that share `frames` evenly or in proportion to `weights`."""
    if len(prompts) > 1 and "" in prompts:
        raise BadInput(f"shot {prompts.index('') + 1} of {len(prompts)} has an empty prompt; write a text between bars")
    spans = share(weights or [1.0] * len(prompts), frames)
    shots = [
        Shot(prompt, start, stop, id=f"shot{k + 1}", negative=negative)
        for k, (prompt, (start, stop)) in enumerate(zip(prompts, spans))
    ]
    return check(Timeline(tuple(shots), fps))


def check(timeline: Timeline) -> Timeline:
    """The same timeline, if its shots tile [0, frames) in order and their blends fit inside them.

    Raises:
        BadInput: gaps, overlaps, empty shots, twice the same id, blends longer than their shot, or too much of it.
    """
    shots = timeline.shots
    if not 0 < len(shots) <= MAX_SHOTS:
        raise BadInput(f"a story has 1 to {MAX_SHOTS} shots, got {len(shots)}")
    expected, seen = 0, set[str]()
    for shot in shots:
        name = f"shot {shot.id!r}"
        if shot.stop <= shot.start:
            raise BadInput(f"{name} is empty: it starts at frame {shot.start} and stops at {shot.stop}")
        if shot.start != expected:
            raise BadInput(f"{name} starts at frame {shot.start}, but the shot before it ends at frame {expected}")
        if not 0 <= shot.blend <= shot.stop - shot.start:
            raise BadInput(f"{name} blends over {shot.blend} frames; legal: 0 to {shot.stop - shot.start}, its length")
        if shot.id in seen:
            raise BadInput(f"two shots have the id {shot.id!r}; ids must differ")
        expected = shot.stop
        seen.add(shot.id)
    if expected > MAX_FRAMES:
        raise BadInput(f"the story is {expected} frames long; at most {MAX_FRAMES}")
    return timeline


def find(timeline: Timeline, name: str) -> int:
    """Index of the shot called `name`; BadInput names the nearest one."""
    ids = [s.id for s in timeline.shots]
    if name not in ids:
        raise unknown("shot", name, ids)
    return ids.index(name)


def boundaries(timeline: Timeline) -> list[int]:
    """First pixel frame of every shot after the first, for metrics and the sidecar.

    >>> boundaries(parse_prompt("a | b | c", 30, 8))
    [10, 20]
    """
    return [s.start for s in timeline.shots[1:]]


def show(timeline: Timeline) -> str:
    """A table for people: id, seconds, frames, how the shot is entered, and what it says.

    >>> print(show(parse_prompt("a cat | a dog", 16, 8)))
    2 shots, 16 frames, 2.00 s at 8 fps
    shot1     0.00–1.00 s  frames 0–7             a cat
    shot2     1.00–2.00 s  frames 8–15  continue  a dog
    """
    fps, shots = timeline.fps, timeline.shots
    noun = "shot" if len(shots) == 1 else "shots"
    lines = [f"{len(shots)} {noun}, {timeline.frames} frames, {timeline.frames / fps:.2f} s at {fps:g} fps"]
    rows = [
        (
            s.id,
            f"{s.start / fps:.2f}–{s.stop / fps:.2f} s",
            f"frames {s.start}–{s.stop - 1}",
            _entry(s) if s.start else "",
            s.prompt + _extras(s),
        )
        for s in shots
    ]
    widths = [max(len(row[c]) for row in rows) for c in range(4)]
    for row in rows:
        cells = (row[0].ljust(max(widths[0], 8)), *(row[c].ljust(widths[c]) for c in (1, 2, 3)), row[4])
        lines.append("  ".join(cells))
    return "\n".join(lines)


def _entry(shot: Shot) -> str:
    return f"blend {shot.blend} frames" if shot.transition == "blend" else shot.transition


def _extras(shot: Shot) -> str:
    named = (("negative", shot.negative), ("seed", shot.seed), ("guidance", shot.guidance), ("image", shot.image))
    said = [f"{name} {value!r}" for name, value in named if value is not None]
    said += [f"lora {lora!r}" for lora in shot.loras]
    return f"  ({', '.join(said)})" if said else ""
