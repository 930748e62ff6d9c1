"""Dialects that are plain text: bars, seconds in brackets, sections, and one line per shot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from longgen.errors import BadInput
from longgen.story.dialects.source import Dialect, Source, from_starts, refuse, spec, story
from longgen.story.file import Clock
from longgen.story.schema import Story
from longgen.story.timeline import join_bars, split_bars
from longgen.types import Timeline

# ------------------------------------------------------------------------------------------------------- a | b | c


def read_bars(source: Source, clock: Clock) -> Story:
    """Prompts that share the video evenly."""
    return story([spec(part, source, 1) for part in split_bars(source.text)], source)


def write_bars(timeline: Timeline) -> str:
    refuse(timeline, "a | b")
    lengths = [s.stop - s.start for s in timeline.shots]
    if max(lengths) - min(lengths) > 1:
        raise BadInput("a | b has no words for shots of unequal length")
    return join_bars([s.prompt for s in timeline.shots])


BARS = Dialect("bars  a | b | c", lambda s: len(split_bars(s.text)) > 1, read_bars, write_bars)

# ------------------------------------------------------------------------------------------- [0s: …] [3s-5s: …]

_STAMP = re.compile(r"\[\s*(\d+(?:\.\d+)?)\s*s(?:\s*-\s*(\d+(?:\.\d+)?)\s*s)?\s*:")


def read_seconds(source: Source, clock: Clock) -> Story:
    """FramePack-Studio's form. A prompt holds until the next one starts, also past the end of its range."""
    text, stamps = source.text.rstrip(), list(_STAMP.finditer(source.text))
    if text[: stamps[0].start()].strip():
        raise source.bad(f"text before the first time stamp {stamps[0][0]!r}", 1)
    starts, shots, lines, until = list[float](), [], list[int | None](), 0.0
    for stamp, after in zip(stamps, [*stamps[1:], None]):
        line, start = source.line_of(stamp.start()), float(stamp[1])
        body = text[stamp.end() : after.start() if after else len(text)].rstrip()
        if not body.endswith("]"):
            raise source.bad(f"the prompt after {stamp[0]!r} needs a closing bracket", line)
        if start < until:
            raise source.bad(f"{start:g} s lies inside the range before it, which ends at {until:g} s", line)
        if stamp[2] and float(stamp[2]) <= start:
            raise source.bad(f"the range {start:g}s-{float(stamp[2]):g}s is empty", line)
        until = float(stamp[2] or start)
        starts.append(start * clock.fps)
        shots.append(spec(body[:-1], source, line))
        lines.append(line)
    end = clock.frames if clock.frames is not None else until * clock.fps if stamps[-1][2] else None
    return story(from_starts([0.0, *starts[1:]], shots, end, source, lines), source)


def write_seconds(timeline: Timeline) -> str:
    refuse(timeline, "[0s: …]")
    last = timeline.shots[-1]
    parts = []
    for s in timeline.shots:
        if _STAMP.search(s.prompt):
            raise BadInput(f"[0s: …] has no words for the prompt of shot {s.id!r}, which holds a time stamp")
        until = f"-{s.stop / timeline.fps:.6f}s" if s is last else ""
        parts.append(f"[{s.start / timeline.fps:.6f}s{until}: {s.prompt}]")
    return " ".join(parts)


SECONDS = Dialect(
    "seconds  [0s: …] [3s-5s: …]", lambda s: bool(_STAMP.match(s.text.lstrip())), read_seconds, write_seconds
)

# ------------------------------------------------------------------------------------------ 0:…;;;1-2:…;;;-1:…

SECTION = 36  # pixel frames of one of FramePack's sections: 9 latents of 4 frames
_SECTION = re.compile(r"\s*(-?\d+)(?:-(\d+))?\s*:(.*)", re.DOTALL)


def read_sections(source: Source, clock: Clock) -> Story:
    """musubi-tuner's form: prompts by section of 36 frames; −1 is the last; a gap keeps the prompt before it."""
    found = [_SECTION.fullmatch(part) for part in source.text.strip().split(";;;")]
    if None in found:
        raise source.bad("each part is SECTION:prompt or FIRST-LAST:prompt, separated by ;;;", 1)
    parts = [m for m in found if m is not None]
    highest = max((int(m[2] or m[1]) for m in parts), default=0)
    least = highest + 1 + any(int(m[1]) < 0 for m in parts)
    count = max(1, -(-(clock.frames - 1) // SECTION)) if clock.frames is not None else least
    if highest >= count:
        raise source.bad(f"section {highest} lies past the last, {count - 1} ({SECTION} frames each)", 1)
    cues, until = [], 0
    for m in sorted(parts, key=lambda m: int(m[1]) % count):
        first = int(m[1]) % count if int(m[1]) >= -count else -1
        if first < until:
            raise source.bad(f"section {m[1]} is named twice, or lies before the first", 1)
        until = max(first, int(m[2] or first)) + 1
        cues.append((first * SECTION, m[3]))
    starts = [0.0, *(float(start) for start, _ in cues[1:])]
    end = clock.frames if clock.frames is not None else count * SECTION
    shots = [spec(text, source, 1) for _, text in cues]
    return story(from_starts(starts, shots, end, source, [1] * len(shots)), source)


def write_sections(timeline: Timeline) -> str:
    refuse(timeline, "0:…;;;1-2:…")
    parts = []
    for s in timeline.shots:
        if s.start % SECTION or ";;;" in s.prompt or s.prompt.endswith(";"):
            raise BadInput(f"0:…;;;1-2:… has no words for shot {s.id!r}; shots start at multiples of {SECTION} frames")
        first, last = s.start // SECTION, -(-s.stop // SECTION) - 1
        parts.append(f"{first}-{last}:{s.prompt}" if last > first else f"{first}:{s.prompt}")
    return ";;;".join(parts)


SECTIONS = Dialect(
    "sections  0:…;;;1-2:…;;;-1:…",
    lambda s: bool(_SECTION.match(s.text)) and (";;;" in s.text or s.data is None),
    read_sections,
    write_sections,
)

# ------------------------------------------------------------------- one line per shot, [/duration=5s,/new_shot]

_COMMAND = re.compile(r"\[\s*(/[^\]]*)\]")


def read_lines(source: Source, clock: Clock) -> Story:
    """WanGP's form: a shot per line, or per paragraph where blank lines stand; lines that begin with # are remarks."""
    return story([_line(text, line, source) for text, line in _shots(source.text)], source)


def _shots(text: str) -> Iterator[tuple[str, int]]:
    """(shot, its line). Blank lines between some lines, not between all, make paragraphs."""
    rows = [(row.strip(), n) for n, row in enumerate(text.splitlines(), 1) if not row.lstrip().startswith("#")]
    told = [n for n, (row, _) in enumerate(rows) if row]
    gaps = {i for i in range(1, len(told)) if told[i] - told[i - 1] > 1}
    if not gaps or len(gaps) == len(told) - 1:
        yield from (rows[n] for n in told)
        return
    starts = [0, *sorted(gaps)]
    for a, b in zip(starts, [*starts[1:], len(told)]):
        yield " ".join(rows[n][0] for n in told[a:b]), rows[told[a]][1]


def _line(text: str, line: int, source: Source) -> Any:
    more: dict[str, Any] = {}
    for command in (c.strip() for block in _COMMAND.findall(text) for c in block.split(",")):
        name, _, value = command.lstrip("/").partition("=")
        if name == "new_shot":
            more["transition"] = "cut"
        elif name == "duration" and re.fullmatch(r"\d+(\.\d+)?s", value) and float(value[:-1]) > 0:
            more["duration"] = value
        elif name == "overlap" and value.isdecimal():
            more["blend_frames"] = int(value)
        else:
            raise source.bad(f"[/{name}={value}] is not one of [/duration=5s], [/overlap=9], [/new_shot]", line)
    if more.get("transition") == "cut":
        more.pop("blend_frames", None)  # a new shot has no overlap
    elif "blend_frames" in more:
        more["transition"] = "blend"
    return spec(_COMMAND.sub("", text), source, line, **more)


def write_lines(timeline: Timeline) -> str:
    refuse(timeline, "[/duration=5s]", "transition")
    rows = []
    for k, s in enumerate(timeline.shots):
        if len(s.prompt.splitlines()) > 1 or _COMMAND.search(s.prompt) or s.prompt.startswith("#"):
            raise BadInput(f"one line per shot has no words for the prompt of shot {s.id!r}")
        commands = [f"/duration={(s.stop - s.start) / timeline.fps:.6f}s"]
        commands += ["/new_shot"] if k and s.transition == "cut" else []
        commands += [f"/overlap={s.blend}"] if k and s.transition == "blend" else []
        rows.append(f"{s.prompt} [{','.join(commands)}]")
    return "\n".join(rows)


LINES = Dialect(
    "lines  … [/duration=5s,/new_shot]",
    lambda s: bool(_COMMAND.search(s.text)) or len(s.text.strip().splitlines()) > 1,
    read_lines,
    write_lines,
)
PLAIN = Dialect("one prompt", lambda s: bool(s.text.strip()), lambda s, clock: story([spec(s.text, s, 1)], s))
