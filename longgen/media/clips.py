"""Parts of a written video as files of their own. Knows frame ranges, not what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from longgen.media.read import open_video
from longgen.media.write import VideoWriter


def write_clips(video: Path, spans: Sequence[tuple[str, int, int]], folder: Path, suffix: str = ".mp4") -> list[Path]:
    """One file per (name, first frame, frame after the last), re-encoded; existing ones are replaced.

    Returns:
        The files, in order.
    """
    reader = open_video(video)
    written = []
    for name, start, stop in spans:
        path = folder / f"{name}{suffix}"
        with VideoWriter(path, reader.info.fps, overwrite=True) as writer:
            for frame in reader.frames(start, stop):
                writer.write(frame)
        written.append(path)
    return written
