"""LongLive 2's prompt folders: `0.json`, `1.json` … with a `caption` each, and `shot_durations.txt`.

Knows files and one layout. Every shot is cut, as that pipeline marks every shot but the first with a text of its own
("The scene transitions."), which means nothing to other models and is left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from longgen.errors import BadInput
from longgen.story.dialects.source import Dialect, Source, spec, story
from longgen.story.file import Clock
from longgen.story.load import Document, parse, read_text
from longgen.story.schema import MAX_SHOTS, ShotSpec, Story

DURATIONS = "shot_durations.txt"
CHUNK = 32  # pixel frames: 8 latents of 4; the first latent of a video is one frame
CUT_MARK = "The scene transitions."


def open_folder(folder: Path) -> Source:
    """The captions of one story and its shots' lengths in chunks.

    Raises:
        BadInput: no captions, a number missing, files that are no captions, or as many durations as there are no shots.
    """
    numbers = sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal())
    if not numbers:
        stories = sorted(path.parent.relative_to(folder) for path in folder.glob("**/0.json"))
        near = f"; stories lie in {', '.join(map(str, stories[:5]))}" if stories else ""
        raise BadInput(f"{folder} holds no captions 0.json, 1.json …{near}")
    if len(numbers) > MAX_SHOTS:
        raise BadInput(f"{folder}: {len(numbers)} shots; at most {MAX_SHOTS}")
    if numbers != list(range(len(numbers))):
        missing = next(n for n in range(len(numbers)) if n not in numbers)
        raise BadInput(f"{folder}: {missing}.json is missing; captions are numbered from 0 without a gap")
    captions = [_caption(folder / f"{n}.json") for n in numbers]
    data: dict[str, Any] = {"captions": captions}
    if (folder / DURATIONS).exists():
        data["shot_durations"] = _durations(folder / DURATIONS, len(captions))
    return Source(json.dumps(data), str(folder), Document(data, str(folder)))


def _caption(path: Path) -> str:
    data = parse(read_text(path), str(path)).data
    if not isinstance(data, dict) or not isinstance(data.get("caption"), str):
        raise BadInput(f"{path} must hold a mapping with the key caption, a text")
    return str(data["caption"]).removeprefix(CUT_MARK).strip()


def _durations(path: Path, shots: int) -> list[int]:
    words = read_text(path).replace(",", " ").split()
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise BadInput(f"{path}: durations are whole numbers of chunks from 1 on, such as 2 2 4")
    if len(words) != shots:
        raise BadInput(f"{path}: {shots} captions need {shots} durations (got {len(words)})")
    return [int(word) for word in words]


def read(source: Source, clock: Clock) -> Story:
    """Shots of whole chunks, or equal shares where no durations are given."""
    lengths = source.data.get("shot_durations")
    shots: list[ShotSpec] = []
    for k, text in enumerate(source.data["captions"]):
        more: dict[str, Any] = {"transition": "cut"} if k else {}
        if lengths:
            more["frames"] = lengths[k] * CHUNK - (0 if k else 3)
        shots.append(spec(text, source, **more))
    return story(shots, source)


LONGLIVE = Dialect(
    "LongLive  folder of 0.json, 1.json …, shot_durations.txt",
    lambda s: isinstance(s.data, dict) and isinstance(s.data.get("captions"), list),
    read,
)
