"""From a story to a timeline: lengths shared out, characters written out, every value checked where it stands.

Knows the story file and frames per second. Does not know other dialects (`longgen.story.dialects`) or models.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from longgen.errors import BadInput, unknown
from longgen.story.load import Document, Path_
from longgen.story.schema import Defaults, ShotSpec, Story, escape
from longgen.story.timeline import check
from longgen.types import Shot, Timeline, Transition


@dataclass(frozen=True)
class Clock:
    """What turns seconds, fractions and open ends into frames.

    Args:
        fps: frames per second.
        frames: length of the whole video, None when the story decides.
        native: frames of a shot that nobody gives a length, in a video that nobody gives one.
    """

    fps: float
    frames: int | None = None
    native: int = 81


def validate(document: Document, options: Iterable[str] = ()) -> Story:
    """A story out of plain data.

    Args:
        options: names of `longgen generate`'s options that `defaults` may hold.

    Raises:
        BadInput: one line that names file, line and key, and the nearest key where one is unknown.
    """
    if not isinstance(document.data, dict):
        raise BadInput(f"{document.source}: a story file is a mapping with the key shots")
    try:
        story = Story(**document.data)
    except TypeError:
        raise BadInput(f"{document.source}: the keys of a story are words; valid: {', '.join(_keys(()))}") from None
    except ValidationError as error:
        raise _fault(error, document) from None
    ids = [shot.id or f"shot{k + 1}" for k, shot in enumerate(story.shots)]
    for k, name in enumerate(ids):
        if name in ids[:k]:
            raise BadInput(
                f"{document.where(('shots', k, 'id'))}: {name!r} is the id of an earlier shot; ids must differ"
            )
    known = {name.replace("-", "_") for name in options}
    for name in story.defaults.options:
        if known and name not in known:
            where = document.where(("defaults", name))
            raise BadInput(f"{where}: {unknown('key', name, known | set(Defaults.model_fields))}")
    return story


def _fault(error: ValidationError, document: Document) -> BadInput:
    """The first fault, those of unknown keys before the rest: a misspelt key also makes its right form missing."""
    faults = error.errors()
    fault = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])
    place: Path_ = tuple(fault["loc"])
    if fault["type"] == "extra_forbidden":
        return BadInput(f"{document.where(place)}: {unknown('key', str(place[-1]), _keys(place[:-1]))}")
    message = re.sub(r"^Value error, ", "", fault["msg"]).replace("Input should be", "must be")
    given = fault.get("input")
    shown = f" (got {given!r})" if isinstance(given, str | int | float) and len(str(given)) < 60 else ""
    if fault["type"] == "missing":
        message, shown = "is missing", ""
    if fault["type"] == "value_error":
        shown = ""
    return BadInput(f"{document.where(place)}: {message[0].lower() + message[1:]}{shown}")


def _keys(place: Path_) -> list[str]:
    kinds: dict[str, type[BaseModel]] = {"shots": ShotSpec, "defaults": Defaults}
    return list(kinds.get(str(place[0]) if place else "", Story).model_fields)


def to_timeline(story: Story, clock: Clock, document: Document | None = None, folder: Path | None = None) -> Timeline:
    """The story in frames.

    Lengths in frames are kept exactly, seconds are rounded where shots meet, and shots without a length share what is
    left of the video in proportion to their weights.

    Args:
        document: where the story was read from, for errors.
        folder: base of relative image paths.

    Raises:
        BadInput: lengths that do not fit the video, shots under a frame, unknown characters, missing images.
    """
    document = document or Document(None, "")
    edges = _edges(story, clock, document)
    shots = []
    for k in range(len(story.shots)):
        start, stop = edges[k], edges[k + 1]
        if start >= stop:
            raise BadInput(f"{document.where(('shots', k))}: the shot is shorter than one frame at {clock.fps:g} fps")
        shots.append(_shot(story, k, start, stop, clock.fps, _At(document, ("shots", k)), folder))
    _same_loras(shots, document)
    try:
        return check(Timeline(tuple(shots), clock.fps))
    except BadInput as error:
        raise BadInput(f"{_colon(document.source)}{error}") from None


@dataclass(frozen=True)
class _At:
    """A place in a document, to put before an error."""

    document: Document
    place: Path_

    def error(self, key: str, message: object) -> BadInput:
        where = self.document.where((*self.place, key))
        return BadInput(f"{where}: {message}")


def _edges(story: Story, clock: Clock, document: Document) -> list[int]:
    """First frames of the shots, and the end."""
    fps, specs = clock.fps, story.shots
    fixed = [float(s.frames) if s.frames else s.duration * fps if s.duration else None for s in specs]
    taken = sum(f for f in fixed if f is not None)
    weights = [0.0 if f is not None else s.weight or 1.0 for f, s in zip(fixed, specs)]
    if not any(weights):
        total = math.floor(taken + 0.5)
        if clock.frames is not None and total != clock.frames:
            raise BadInput(
                f"{_colon(document.source)}the shots last {total} frames ({total / fps:.2f} s) together, but "
                f"{clock.frames} frames were asked for; leave the length out, or a shot's"
            )
    left = float(clock.frames) - taken if clock.frames is not None else clock.native * sum(weights)
    if any(weights) and left < sum(w > 0 for w in weights):
        raise BadInput(
            f"{_colon(document.source)}{taken:.0f} frames ({taken / fps:.2f} s) of shots with a length leave nothing "
            f"of {clock.frames} frames for the others; make the video longer"
        )
    edges, at = [0], 0.0
    for length, weight in zip(fixed, weights):
        at += length if length is not None else left * weight / sum(weights)
        edges.append(math.floor(at + 0.5))
    return edges


def _shot(story: Story, k: int, start: int, stop: int, fps: float, at: _At, folder: Path | None) -> Shot:
    spec, common = story.shots[k], story.defaults
    try:
        prompt = story.prompt_of(k)
    except BadInput as error:
        raise at.error("prompt", error) from None
    transition, blend = _entry(spec, common, stop - start, fps) if k else ("continue", 0)
    if blend > stop - start:
        raise at.error("blend", f"blends over {blend} frames, longer than the shot ({stop - start} frames)")
    return Shot(
        prompt=prompt,
        start=start,
        stop=stop,
        id=spec.id or f"shot{k + 1}",
        negative=common.negative if spec.negative is None else spec.negative,
        transition=transition,
        blend=blend,
        seed=spec.seed,
        guidance=common.guidance if spec.guidance is None else spec.guidance,
        image=_image(spec.image, k, at, folder),
        loras=spec.loras,
    )


def _entry(spec: ShotSpec, common: Defaults, length: int, fps: float) -> tuple[Transition, int]:
    """How a shot is entered, and the frames of its blend: its own, the defaults', else a quarter of the shot."""
    own = spec.blend_frames if spec.blend is None else round(spec.blend * fps)
    transition = spec.transition or ("blend" if own is not None else common.transition) or "continue"
    if transition != "blend":
        return transition, 0
    if own is not None:
        return "blend", own
    shared = length // 4 if common.blend is None else min(round(common.blend * fps), length)
    return "blend", shared


def _image(image: str | None, k: int, at: _At, folder: Path | None) -> str | None:
    if image is None:
        return None
    if k:
        raise at.error("image", "an image can start the first shot only; models take a first frame")
    path = Path(image) if folder is None else folder / image
    if not path.is_file():
        raise at.error("image", f"{path} does not exist")
    return str(path)


def _same_loras(shots: list[Shot], document: Document) -> None:
    for k, shot in enumerate(shots):
        if shot.loras != shots[0].loras:
            raise _At(document, ("shots", k)).error("loras", "the same in all shots; a model is loaded with them once")


def _colon(source: str) -> str:
    return f"{source}: " if source else ""


def to_story(timeline: Timeline) -> dict[str, Any]:
    """A timeline as the data of a story file, with all lengths in frames; the inverse of `to_timeline`."""
    shots = []
    for k, s in enumerate(timeline.shots):
        shot: dict[str, Any] = {"id": s.id, "prompt": escape(s.prompt), "frames": s.stop - s.start}
        if k:
            shot["transition"] = s.transition
        if k and s.transition == "blend":
            shot["blend_frames"] = s.blend
        said = {"negative": s.negative, "seed": s.seed, "guidance": s.guidance, "image": s.image}
        shot.update({name: value for name, value in said.items() if value is not None})
        shots.append(shot | ({"loras": list(s.loras)} if s.loras else {}))
    return {"version": 1, "shots": shots}
