"""Frame maps: `"0": "…", "48": "…"` (FizzNodes, AnimateDiff-Evolved, animatediff-cli, FreeNoise in diffusers).

A key is a frame; with a point, a fraction of the video; negative, counted from its end. `a:b` holds until b and then
passes to the next prompt, which is pure at its own key: the next shot starts at b with a blend that long. `a:` holds
until the next key, which comes at once.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from longgen.errors import BadInput
from longgen.story.dialects.source import Dialect, Source, from_starts, refuse, spec, story
from longgen.story.file import Clock
from longgen.story.load import parse
from longgen.story.schema import Story, escape
from longgen.types import Timeline

_NUMBER = r"-?(?:\d+\.?\d*|\.\d+)"
_KEY = re.compile(rf"\s*({_NUMBER})\s*(:\s*({_NUMBER})?\s*)?")
_ENTRY = re.compile(rf'^\s*(["\']?)({_KEY.pattern})\1\s*[:=]\s*(["\'])(.*?)\6\s*,?\s*$', re.MULTILINE)


@dataclass(frozen=True)
class _Cue:
    start: float
    stop: float | None
    hold: bool
    prompt: str
    line: int | None


def sniff(source: Source) -> bool:
    data = source.data
    if isinstance(data, dict):
        return "prompt_map" in data or (bool(data) and all(_KEY.fullmatch(str(key)) for key in data))
    return bool(_ENTRY.match(source.text.strip()))


def read(source: Source, clock: Clock) -> Story:
    """A map alone, in braces or without, or a document with `prompt_map`, `head_prompt`, `tail_prompt`, `n_prompt`."""
    whole = source.data if isinstance(source.data, dict) else _entries(source)
    told = whole.get("prompt_map", whole)
    if not isinstance(told, dict) or not told:
        raise source.bad('prompt_map must be a map of frames to prompts, such as {"0": "…", "48": "…"}')
    inside = ("prompt_map",) if told is not whole else ()
    cues = sorted((_cue(key, text, inside, source, clock) for key, text in told.items()), key=lambda cue: cue.start)
    around = (whole.get("head_prompt"), whole.get("tail_prompt")) if inside else ()
    parts = [escape(str(text)) if text else "" for text in around]
    style = ", ".join(filter(None, (parts[0], "{prompt}", parts[1]))) if any(parts) else ""
    negative = whole.get("n_prompt") if inside else None
    if isinstance(negative, list):
        negative = negative[0] if negative else None
    return _shots(cues, source, clock, style, {"negative": negative} if negative else {})


def _entries(source: Source) -> dict[str, Any]:
    """`0 = "…"` lines, or `"0": "…",` without braces."""
    text = source.text.strip().rstrip(",")
    found = {m[2]: m[7] for m in _ENTRY.finditer(text)}
    if len(found) == len([line for line in text.splitlines() if line.strip()]):
        return found
    data = parse(f"{{{text}}}", source.name).data
    if not isinstance(data, dict):
        raise source.bad('not a map of frames to prompts, such as "0": "…", "48": "…"')
    return data


def _cue(key: Any, text: Any, inside: tuple[str, ...], source: Source, clock: Clock) -> _Cue:
    line = source.document.lines.get((*inside, key if isinstance(key, int) else str(key))) if source.document else None
    match = _KEY.fullmatch(str(key))
    if not match:
        raise source.bad(f'a key is a frame such as "48", "0.5", "-1", "0:12" or "16:" (got {key!r})', line)
    start = _frame(match[1], source, clock, line)
    stop = _frame(match[3], source, clock, line) if match[3] else None
    if stop is not None and stop <= start:
        raise source.bad(f"the range {key!r} ends before it starts", line)
    return _Cue(start, stop, bool(match[2]) and stop is None, text, line)


def _frame(text: str, source: Source, clock: Clock, line: int | None) -> float:
    value = float(text)
    if "." in text or text.startswith("-"):
        if clock.frames is None:
            raise source.bad(f"{text!r} depends on the length of the video; give --num-frames or --duration", line)
        value = value * clock.frames if "." in text else value
        value = round(value + clock.frames if value < 0 else value)
    if value < 0 or (clock.frames is not None and value > clock.frames):
        raise source.bad(f"frame {text} lies outside the video of {clock.frames} frames", line)
    return value


def _shots(cues: list[_Cue], source: Source, clock: Clock, style: str, defaults: dict[str, Any]) -> Story:
    """The first prompt also holds before its key."""
    starts, shots = [0.0], [spec(cues[0].prompt, source, cues[0].line)]
    for before, cue in pairwise(cues):
        more: dict[str, Any] = {"transition": "blend", "blend_frames": 0} if before.hold else {}
        start = cue.start
        if before.stop is not None and before.stop > cue.start:
            raise source.bad(f"the range that ends at frame {before.stop:g} overlaps frame {cue.start:g}", cue.line)
        if before.stop is not None and before.stop < cue.start:
            start = before.stop
            more = {"transition": "blend", "blend_frames": round(cue.start - start)}
        starts.append(start)
        shots.append(spec(cue.prompt, source, cue.line, **more))
    end = cues[-1].stop if clock.frames is None else clock.frames
    return story(from_starts(starts, shots, end, source, [c.line for c in cues]), source, style, **defaults)


def write(timeline: Timeline) -> str:
    """A JSON map; blends are ranges, and a blend of no frames is a hold."""
    refuse(timeline, "a frame map", "transition")
    shots, entries = timeline.shots, dict[str, str]()
    for k, shot in enumerate(shots):
        if k and shot.transition == "cut":
            raise BadInput(f"a frame map has no words for the cut into shot {shot.id!r}")
        key = str(shot.start + shot.blend if k else 0)
        after = shots[k + 1] if k + 1 < len(shots) else None
        if after is not None and after.transition == "blend":
            key += f":{after.start}" if after.blend else ":"
        if shot.start + shot.blend >= (after.start if after else shot.stop):
            raise BadInput(f"a frame map has no words for shot {shot.id!r}, which blends until it ends")
        entries[key] = shot.prompt
    return json.dumps(entries, ensure_ascii=False, indent=1)


MAPS = Dialect('frame map  {"0": "…", "48": "…"}', sniff, read, write)
