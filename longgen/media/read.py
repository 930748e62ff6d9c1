"""Lazy reading of videos. Knows containers and frame order, nothing of what the pixels mean.

Frames come as uint8 arrays [H, W, 3], RGB. A file is indexed once by its packets (no decoding), so the length is exact
and any window can be reached by a seek. Colours follow the stream's own tags; untagged streams are BT.601, as in
OpenCV and decord. Rotation tags of phone cameras are not applied.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from longgen.errors import BadInput

if TYPE_CHECKING:
    import av

Frame = NDArray[np.uint8]

VIDEO_SUFFIXES = frozenset({".mp4", ".webm", ".mkv", ".gif", ".mov", ".avi", ".m4v"})
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
DEFAULT_FPS = 24.0
"""Frame rate of an image folder that does not say its own."""


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before any frame is decoded: size in pixels, frames per second, number of frames."""

    width: int
    height: int
    fps: float
    frames: int

    @property
    def seconds(self) -> float:
        """Duration, frames / fps."""
        return self.frames / self.fps


class VideoReader(ABC):
    """A video whose frames are decoded when asked for. Memory does not grow with its length."""

    path: Path
    info: VideoInfo

    def __len__(self) -> int:
        return self.info.frames

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Frames [start, stop) in order, decoded one at a time. Raises BadInput where the file is broken."""
        stop = len(self) if stop is None else stop
        if not 0 <= start <= stop <= len(self):
            raise BadInput(f"{self.path}: frames [{start}, {stop}) lie outside [0, {len(self)})")
        return self._decode(start, stop)

    def window(self, start: int, stop: int) -> Frame:
        """Frames [start, stop) as one array [N, H, W, 3]."""
        if start >= stop:
            raise BadInput(f"{self.path}: the window [{start}, {stop}) is empty")
        return np.stack(list(self.frames(start, stop)))

    @abstractmethod
    def _decode(self, start: int, stop: int) -> Iterator[Frame]: ...


def open_video(path: str | Path, fps: float | None = None) -> VideoReader:
    """Open a video file, a GIF or a folder of images.

    Args:
        path: the file or folder.
        fps: frame rate of an image folder; files know their own.

    Raises:
        BadInput: no such path, not a video, no frames, truncated.
    """
    path = Path(path)
    if path.is_dir():
        return ImageFolder(path, fps)
    if not path.is_file():
        raise BadInput(f"{path}: no such file or folder")
    return FileReader(path)


class FileReader(VideoReader):
    """A container read through PyAV."""

    def __init__(self, path: Path) -> None:
        import av

        self.path = path
        try:
            with av.open(str(path)) as container:
                stream = _video_stream(container, path)
                self._pts, readable = _index(container, stream)
                self.info = _info(stream, readable, path, self._pts)
        except (av.error.FFmpegError, ValueError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"{path}: not a readable video ({_reason(error)})") from error

    def _decode(self, start: int, stop: int) -> Iterator[Frame]:
        import av

        if start == stop:
            return
        done = 0
        try:
            with av.open(str(self.path)) as container:
                stream = _video_stream(container, self.path)
                stream.thread_type = "AUTO"
                skip = self._seek(container, stream, start)
                for frame in container.decode(stream):
                    if self._pts is not None and frame.pts is not None and frame.pts < self._pts[start]:
                        continue
                    if skip > 0:
                        skip -= 1
                        continue
                    if frame.is_corrupt:
                        raise BadInput(f"{self.path}: frame {start + done} is corrupt")
                    yield np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
                    done += 1
                    if done == stop - start:
                        return
        except av.error.FFmpegError as error:
            raise BadInput(f"{self.path}: decoding failed at frame {start + done} ({_reason(error)})") from error
        raise BadInput(f"{self.path}: truncated, frame {start + done} of {len(self)} cannot be decoded")

    def _seek(self, container: av.container.InputContainer, stream: av.VideoStream, start: int) -> int:
        """Move to the key frame at or before `start`; the number of decoded frames still to drop by counting."""
        if start == 0 or self._pts is None:
            return start
        container.seek(self._pts[start], stream=stream, backward=True, any_frame=False)
        return 0


class ImageFolder(VideoReader):
    """A folder of PNG or JPEG frames in the order of their names; the rate is in the PNG's `fps` text, if anywhere."""

    def __init__(self, path: Path, fps: float | None = None) -> None:
        from PIL import Image

        self.path = path
        self._files = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not self._files:
            raise BadInput(f"{path}: the folder holds no PNG or JPEG frames")
        try:
            with Image.open(self._files[0]) as first:
                said = first.info.get("fps")
                width, height = first.size
        except OSError as error:
            raise BadInput(f"{self._files[0]}: not a readable image ({error})") from error
        self.info = VideoInfo(width, height, fps or float(said or DEFAULT_FPS), len(self._files))

    def _decode(self, start: int, stop: int) -> Iterator[Frame]:
        from PIL import Image

        for file in self._files[start:stop]:
            try:
                with Image.open(file) as image:
                    frame = np.asarray(image.convert("RGB"))
            except OSError as error:
                raise BadInput(f"{file}: not a readable image ({error})") from error
            if frame.shape[:2] != (self.info.height, self.info.width):
                raise BadInput(f"{file}: is {frame.shape[1]}x{frame.shape[0]}, frame 0 is {self._size()}")
            yield frame

    def _size(self) -> str:
        return f"{self.info.width}x{self.info.height}"


def _video_stream(container: Any, path: Path) -> av.VideoStream:
    if not container.streams.video:
        raise BadInput(f"{path}: holds no video stream")
    stream: av.VideoStream = container.streams.video[0]
    return stream


def _index(container: av.container.InputContainer, stream: av.VideoStream) -> tuple[list[int] | None, int]:
    """Presentation times of all frames in order (None if the container has none), and their number."""
    times: list[int | None] = [p.pts for p in container.demux(stream) if p.size and not p.is_discard]
    known = [t for t in times if t is not None]
    return (sorted(known) if len(known) == len(times) else None), len(times)


def _info(stream: av.VideoStream, readable: int, path: Path, pts: list[int] | None) -> VideoInfo:
    if readable == 0 or not stream.width or not stream.height:
        raise BadInput(f"{path}: holds no video frames")
    if stream.frames and readable < stream.frames and path.suffix.lower() in {".mp4", ".mov", ".m4v"}:
        raise BadInput(f"{path}: truncated, {readable} of {stream.frames} frames are there")
    rate = stream.average_rate or stream.guessed_rate
    if path.suffix.lower() == ".gif" and pts and pts[-1] > pts[0] and stream.time_base:
        # GIF delays are whole hundredths of a second and alternate; only their mean is the rate.
        rate = (readable - 1) / ((pts[-1] - pts[0]) * stream.time_base)
    if not rate:
        raise BadInput(f"{path}: the stream states no frame rate")
    return VideoInfo(stream.width, stream.height, float(rate), readable)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
