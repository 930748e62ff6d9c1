"""Streaming video writer. Knows containers, codecs and atomic files, nothing of where frames come from.

The same frames give the same bytes: encoder threads are fixed and muxers write no random identifiers.
Lossy codecs are written and tagged as BT.601, the only matrix that tagged and untagged readers (players, OpenCV,
decord) agree on at every size.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from longgen.errors import BadInput, RunFailed, unknown

THREADS = "4"  # fixed: the encoders' output depends on their thread count, and must not depend on the machine
NAME_BYTES = 255  # longest file name of the usual file systems
BT601 = 6  # AVCOL_SPC_SMPTE170M, the same number as primaries and transfer


@dataclass(frozen=True)
class Codec:
    """How one codec is driven: encoder name, pixel formats for even and odd sizes, CRF range and default."""

    encoder: str
    even: str
    odd: str
    crf: int | None = None
    crf_max: int = 0
    options: dict[str, str] = field(default_factory=dict)
    lossless: bool = False


CODECS = {
    # 4:2:0 needs even sides in H.264 and H.265; odd sizes keep their size in 4:4:4, which some players refuse.
    # x264's macroblock tree is switched off: with AVX-512 it gives other bytes from run to run.
    "h264": Codec("libx264", "yuv420p", "yuv444p", 18, 51, {"threads": THREADS, "x264-params": "mbtree=0"}),
    "h265": Codec(
        "libx265", "yuv420p", "yuv444p", 22, 51, {"x265-params": "log-level=error:pools=none:frame-threads=1"}
    ),
    "vp9": Codec(
        "libvpx-vp9", "yuv420p", "yuv420p", 24, 63, {"b": "0", "cpu-used": "4", "row-mt": "0", "threads": THREADS}
    ),
    "ffv1": Codec("ffv1", "bgr0", "bgr0", options={"threads": THREADS, "slices": "4"}, lossless=True),
    "h264rgb": Codec("libx264rgb", "rgb24", "rgb24", options={"qp": "0", "threads": THREADS}, lossless=True),
    "gif": Codec("gif", "pal8", "pal8"),
    "png": Codec("png", "rgb24", "rgb24", lossless=True),
}
CONTAINERS = {
    ".mp4": ("mp4", ("h264", "h265")),
    ".webm": ("webm", ("vp9",)),
    ".gif": ("gif", ("gif",)),
    ".mkv": ("matroska", ("ffv1", "h264rgb", "h264")),
}


@dataclass(frozen=True)
class Target:
    """A checked output: where it goes, container format (None for a folder of PNG), codec name and CRF."""

    path: Path
    container: str | None
    codec: str
    crf: int | None


def check_target(path: str | Path, overwrite: bool = False, codec: str | None = None, crf: int | None = None) -> Target:
    """Everything about an output that can be refused before work begins. Leaves nothing behind, imports no torch.

    Args:
        path: a file (.mp4, .webm, .gif, .mkv) or, with codec `png`, a folder.
        overwrite: allow replacing what is there.
        codec: h264 (default of .mp4), h265, vp9, gif, ffv1 (default of .mkv), h264rgb, png.
        crf: constant rate factor; lower is better. h264 and h265 0-51, vp9 0-63, none for the others.

    Raises:
        BadInput: unknown container or codec, a codec the container cannot hold, a CRF outside its range,
            an existing output, a place that cannot be written.
    """
    text, path = str(path), Path(path)
    if len(os.fsencode(path.name)) > NAME_BYTES:
        raise BadInput(f"{path.name[:40]}…: the file name is longer than {NAME_BYTES} bytes")
    if codec is not None and codec not in CODECS:
        raise unknown("codec", codec, CODECS)
    if codec == "png":
        container = None
    else:
        if text.endswith(("/", os.sep)) or path.is_dir():
            raise BadInput(f"{text}: is a folder; give a file name (.mp4, .webm, .gif, .mkv) or --codec png")
        suffix = path.suffix.lower()
        if suffix not in CONTAINERS:
            raise unknown("container", suffix or path.name, CONTAINERS)
        container, legal = CONTAINERS[suffix]
        codec = codec or legal[0]
        if codec not in legal:
            raise BadInput(f"{suffix} cannot hold codec {codec}; it holds {', '.join(legal)}")
    if crf is not None:
        _check_crf(codec, crf)
    _check_place(path, overwrite, folder=container is None)
    return Target(path, container, codec, CODECS[codec].crf if crf is None else crf)


def _check_crf(codec: str, crf: int) -> None:
    spec = CODECS[codec]
    if spec.crf is None:
        raise BadInput(f"--crf does not apply to codec {codec}")
    if not 0 <= crf <= spec.crf_max:
        raise BadInput(f"--crf {crf} is outside 0-{spec.crf_max} for codec {codec}")


def _check_place(path: Path, overwrite: bool, folder: bool) -> None:
    taken = any(path.iterdir()) if folder and path.is_dir() else path.exists()
    if taken and not overwrite:
        raise BadInput(f"{path}: exists already; give another name or --overwrite")
    if folder and path.is_file():
        raise BadInput(f"{path}: is a file; a folder of PNG frames needs a folder name")
    place = path.absolute().parent
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise BadInput(f"{path}: cannot be written, {place} is not a folder")
    try:  # asking the file system beats reading permission bits: read-only mounts and root make those lie
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise BadInput(f"{path}: cannot be written, {place}: {error.strerror}") from error


class Sink(Protocol):
    """Takes frames one at a time and is closed once."""

    def put(self, frame: NDArray[np.uint8]) -> None: ...

    def close(self) -> None: ...


class VideoWriter:
    """Writes frames as they come; the final name appears only when the file is whole.

    Use as a context manager. A failure inside the block, or no frame at all, leaves nothing behind and an
    earlier file untouched. Memory does not grow with the number of frames.

    Args:
        path, codec, crf, overwrite: see `check_target`.
        fps: frames per second, 0.001 to 1000 (GIF players round to hundredths of a second).

    Raises:
        BadInput: as `check_target`; an fps outside its range.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        codec: str | None = None,
        crf: int | None = None,
        overwrite: bool = False,
    ) -> None:
        if not (math.isfinite(fps) and 0.001 <= fps <= 1000):
            raise BadInput(f"fps must be a positive number from 0.001 to 1000, not {fps}")
        self.target = check_target(path, overwrite, codec, crf)
        self.fps = Fraction(fps).limit_denominator(1001)  # 24000/1001 stays itself
        self.frames = 0
        self._size: tuple[int, int] | None = None
        self._sink: Sink | None = None
        self._part: Path | None = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        finished = False
        try:
            if self._sink is not None:
                self._sink.close()
            if kind is None:
                if self._part is None:
                    raise RunFailed(f"{self.target.path}: no frame was written")
                _move(self._part, self.target.path)
                finished = True
        finally:
            if self._part is not None and not finished:
                _remove(self._part)

    def write(self, frames: NDArray[np.uint8]) -> None:
        """Append one frame [H, W, 3] or a chunk [N, H, W, 3], uint8 RGB; all frames have the first one's size."""
        if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or frames.shape[-1] != 3:
            raise ValueError(f"frames must be uint8 [H, W, 3] or [N, H, W, 3], not {frames.dtype} {frames.shape}")
        for frame in frames[None] if frames.ndim == 3 else frames:
            size = (frame.shape[1], frame.shape[0])
            if self._sink is None:
                self._open(size)
            if size != self._size:
                raise ValueError(f"frame {self.frames} is {size}, the first was {self._size}")
            assert self._sink is not None
            self._sink.put(np.ascontiguousarray(frame))
            self.frames += 1

    def _open(self, size: tuple[int, int]) -> None:
        self._size = size
        path = self.target.path
        folder = path.absolute().parent
        folder.mkdir(parents=True, exist_ok=True)
        prefix, suffix = ".longgen-", ".part"
        if self.target.container is None:
            self._part = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=folder))
            self._sink = _PngSink(self._part, self.fps)
            return
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=folder)
        os.close(handle)
        self._part = Path(name)
        kind = _GifSink if self.target.codec == "gif" else _CodecSink
        self._sink = kind(self._part, self.target, self.fps, size)


def _move(part: Path, path: Path) -> None:
    """Give the finished part its final name; mkstemp's private mode becomes the usual one."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(part, (0o777 if part.is_dir() else 0o666) & ~mask)
    if part.is_dir() and path.is_dir():
        aside = Path(tempfile.mkdtemp(prefix=".longgen-", suffix=".part", dir=path.absolute().parent))
        os.rename(path, aside / "old")
        os.rename(part, path)
        shutil.rmtree(aside)
    else:
        os.replace(part, path)


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part)
    else:
        part.unlink(missing_ok=True)


class _PngSink:
    """A folder of 00000.png, 00001.png …; the first one's text says the frame rate."""

    def __init__(self, folder: Path, fps: Fraction) -> None:
        self.folder, self.fps, self.count = folder, fps, 0

    def put(self, frame: NDArray[np.uint8]) -> None:
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        text.add_text("fps", f"{float(self.fps):g}")
        Image.fromarray(frame).save(self.folder / f"{self.count:05d}.png", pnginfo=text if self.count == 0 else None)
        self.count += 1

    def close(self) -> None:
        pass


class _CodecSink:
    """One container through PyAV."""

    def __init__(self, part: Path, target: Target, fps: Fraction, size: tuple[int, int]) -> None:
        import av

        spec = CODECS[target.codec]
        options = dict(spec.options) | ({} if target.crf is None else {"crf": str(target.crf)})
        flags = {"movflags": "+faststart"} if target.container == "mp4" else {}
        self.container = av.open(
            str(part), "w", format=target.container, container_options={"fflags": "+bitexact", **flags}
        )
        self.stream = cast(Any, self.container.add_stream(spec.encoder, rate=fps, options=options))
        self.stream.width, self.stream.height = size
        self.stream.pix_fmt = spec.even if size[0] % 2 == 0 and size[1] % 2 == 0 else spec.odd
        self.fps = fps
        self.rgb = spec.lossless
        context = self.stream.codec_context
        context.bit_rate = 0
        if target.codec == "h265":
            context.codec_tag = "hvc1"
        if not self.rgb and target.codec != "gif":
            context.colorspace = context.color_primaries = context.color_trc = BT601
            context.color_range = 1  # limited
        self.count = 0

    def put(self, frame: NDArray[np.uint8]) -> None:
        import av

        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        if not self.rgb:
            picture = picture.reformat(format=self.stream.pix_fmt, dst_colorspace="ITU601", interpolation="BICUBIC")
            picture.colorspace = picture.color_primaries = picture.color_trc = BT601
        elif picture.format.name != self.stream.pix_fmt:
            picture = picture.reformat(format=self.stream.pix_fmt)
        self._encode(picture)

    def _encode(self, picture: Any) -> None:
        picture.pts = self.count
        picture.time_base = 1 / self.fps
        self.count += 1
        self.container.mux(self.stream.encode(picture))

    def close(self) -> None:
        try:
            if self.count:
                self.container.mux(self.stream.encode(None))
        finally:
            self.container.close()


class _GifSink(_CodecSink):
    """GIF with a palette per frame, so that nothing is held back for a global one."""

    def __init__(self, part: Path, target: Target, fps: Fraction, size: tuple[int, int]) -> None:
        import av

        super().__init__(part, target, fps, size)
        graph = av.filter.Graph()
        source = graph.add_buffer(width=size[0], height=size[1], format=cast(Any, "rgb24"), time_base=1 / fps)
        split = graph.add("split")
        palette = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
        use = graph.add("paletteuse", "new=1:dither=bayer")
        sink = graph.add("buffersink")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(palette, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        self.graph = graph

    def put(self, frame: NDArray[np.uint8]) -> None:
        import av

        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture.pts = self.count
        picture.time_base = 1 / self.fps
        self.graph.push(picture)
        while True:
            try:
                self._encode(self.graph.pull())
            except (av.error.BlockingIOError, av.error.EOFError):
                return

    def close(self) -> None:
        import av

        try:
            self.graph.push(None)
            while True:
                self._encode(self.graph.pull())
        except av.error.EOFError:
            pass
        finally:
            super().close()
