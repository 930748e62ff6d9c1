"""What a player can show beside the video: WebVTT subtitles and chapters. Knows the timeline, not video files."""

from __future__ import annotations

import os
from pathlib import Path

from longgen.types import Shot, Timeline


def stamp(seconds: float) -> str:
    """Hours, minutes, seconds and milliseconds as WebVTT writes them.

    >>> stamp(3661.5)
    '01:01:01.500'
    """
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}.{whole % 1000:03}"


def webvtt(timeline: Timeline) -> str:
    """Each shot's prompt as a subtitle for as long as the shot lasts (WebVTT, W3C)."""
    cues = [
        f"{shot.id}\n{stamp(shot.start / timeline.fps)} --> {stamp(shot.stop / timeline.fps)}\n{_cue(shot)}\n"
        for shot in timeline.shots
    ]
    return "\n".join(["WEBVTT\n", *cues])


def chapters(timeline: Timeline) -> str:
    """FFmpeg's metadata format, which `ffmpeg -i VIDEO -i FILE -map_metadata 1 -codec copy OUT` puts into the file."""
    parts = [
        f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={round(shot.start / timeline.fps * 1000)}\n"
        f"END={round(shot.stop / timeline.fps * 1000)}\ntitle={_meta(f'{shot.id}: {shot.prompt}')}\n"
        for shot in timeline.shots
    ]
    return "\n".join([";FFMETADATA1\n", *parts])


def write_beside(video: Path, timeline: Timeline) -> list[Path]:
    """`OUT.vtt` and `OUT.chapters.txt` beside `OUT.mp4`, whole or not at all."""
    written = []
    for suffix, text in ((".vtt", webvtt(timeline)), (".chapters.txt", chapters(timeline))):
        path = video.with_name(video.stem + suffix)
        part = path.with_name(f".{path.name}.part")
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
        written.append(path)
    return written


def _cue(shot: Shot) -> str:
    """Text on one line, with the marks that WebVTT reads as tags written as entities."""
    text = " ".join(shot.prompt.split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") or "–"


def _meta(text: str) -> str:
    for mark in "\\=;#":
        text = text.replace(mark, "\\" + mark)
    return text.replace("\n", "\\\n")
