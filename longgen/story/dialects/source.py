"""What every dialect is given, and what it offers. Knows no dialect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from longgen.errors import BadInput
from longgen.story.file import Clock
from longgen.story.load import Document
from longgen.story.schema import MAX_SHOTS, ShotSpec, Story, escape
from longgen.types import Timeline


@dataclass(frozen=True)
class Source:
    """A text, and the same as plain data where it is YAML or JSON."""

    text: str
    name: str
    document: Document | None = None

    @property
    def data(self) -> Any:
        return self.document.data if self.document else None

    def bad(self, message: str, line: int | None = None) -> BadInput:
        """An error that names the file and the line."""
        where = [self.name] if self.name else []
        where += [f"line {line}"] if line else []
        return BadInput(f"{', '.join(where)}: {message}" if where else message)

    def line_of(self, offset: int) -> int:
        """Line, from 1, of a position in the text."""
        return self.text[:offset].count("\n") + 1


@dataclass(frozen=True)
class Dialect:
    """One way of writing prompts in time.

    Args:
        sniff: whether a source is written in it.
        read: the source as a story; the clock resolves what is relative to the whole video.
        write: a timeline in this dialect, or BadInput where it has no words for it; None where nobody would want that.
    """

    title: str
    sniff: Callable[[Source], bool]
    read: Callable[[Source, Clock], Story]
    write: Callable[[Timeline], str] | None = None


def spec(prompt: Any, source: Source, line: int | None = None, **more: Any) -> ShotSpec:
    """A shot of another tool: braces mean nothing in its prompt."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise source.bad(f"a prompt must be a text (got {prompt!r})", line)
    try:
        return ShotSpec(prompt=escape(prompt.strip()), **more)
    except ValidationError as error:
        raise source.bad(_fault(error), line) from None


def story(shots: Sequence[ShotSpec], source: Source, style: str = "", **defaults: Any) -> Story:
    """Shots as a story. Raises BadInput when there are none."""
    if not shots:
        raise source.bad("no prompts found")
    if len(shots) > MAX_SHOTS:
        raise source.bad(f"{len(shots)} shots; at most {MAX_SHOTS}")
    try:
        return Story.model_validate({"shots": tuple(shots), "style": style, "defaults": defaults})
    except ValidationError as error:
        raise source.bad(_fault(error)) from None


def _fault(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def from_starts(
    starts: Sequence[float], shots: Sequence[ShotSpec], end: float | None, source: Source, lines: Sequence[int | None]
) -> list[ShotSpec]:
    """Shots that last until the next one starts, in frames; the last until `end`, or open where that is None."""
    for before, after, line in zip(starts, starts[1:], lines[1:]):
        if after <= before:
            raise source.bad(f"times must rise: frame {after:g} comes after frame {before:g}", line)
    stops = [*starts[1:], end]
    timed = []
    for shot, start, stop, line in zip(shots, starts, stops, lines):
        if stop is None:
            timed.append(shot)
            continue
        length = round(stop) - round(start)
        if length < 1:
            raise source.bad(f"the prompt at frame {start:g} starts at or after the end of the video ({stop:g})", line)
        timed.append(shot.model_copy(update={"frames": length}))
    return timed


def refuse(timeline: Timeline, dialect: str, *allowed: str) -> None:
    """BadInput for what a dialect has no words for; `allowed` names fields of a shot that it has."""
    for k, shot in enumerate(timeline.shots):
        plain: dict[str, Any] = {"negative": None, "seed": None, "guidance": None, "image": None, "loras": ()}
        plain |= {"transition": "continue" if k else shot.transition}
        for name, value in plain.items():
            if name not in allowed and getattr(shot, name) != value:
                raise BadInput(f"{dialect} has no words for {name} {getattr(shot, name)!r} of shot {shot.id!r}")
