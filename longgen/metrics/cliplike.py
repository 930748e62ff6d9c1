"""A stretch of a video that looks like a video of its own. Knows readers only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from longgen.media import VideoReader
from longgen.media.read import Frame


class ClipReader(VideoReader):
    """Frames [start, stop) of another reader."""

    def __init__(self, whole: VideoReader, start: int, stop: int) -> None:
        self.path, self._whole, self._start = whole.path, whole, start
        self.info = replace(whole.info, frames=stop - start)

    def _decode(self, start: int, stop: int) -> Iterator[Frame]:
        return self._whole.frames(self._start + start, self._start + stop)
