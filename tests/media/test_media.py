"""Writing and reading video: bit-exact lossless, exact counts and windows, atomic files, refusals."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from longgen.errors import BadInput, RunFailed
from longgen.media import VideoWriter, check_target, open_video

TARGETS = [
    ("a.mp4", "h264"), ("a.mp4", "h265"), ("a.webm", "vp9"), ("a.gif", "gif"),
    ("a.mkv", "ffv1"), ("a.mkv", "h264rgb"), ("a.mkv", "h264"), ("a", "png"),
]  # fmt: skip
LOSSLESS = {"ffv1", "h264rgb", "png"}


def moving_disc(frames: int, height: int, width: int) -> np.ndarray:
    """A smooth gradient with a moving disc: compressible, every frame different."""
    y, x = np.mgrid[:height, :width]
    out = np.zeros((frames, height, width, 3), np.uint8)
    for t in range(frames):
        out[t] = np.stack([x * 90 // width + 20, y * 90 // height + 60, np.full_like(x, 90)], -1)
        out[t][(x - 1.7 * t) ** 2 + (y - height / 2) ** 2 < (height / 5) ** 2] = (230, 40, 40)
    return out


def digest(path: Path) -> str:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()


@pytest.mark.parametrize("size", [(48, 64), (49, 63)], ids=["even", "odd"])
@pytest.mark.parametrize(("name", "codec"), TARGETS)
def test_round_trip(tmp_path: Path, name: str, codec: str, size: tuple[int, int]) -> None:
    clip = moving_disc(33, *size)
    with VideoWriter(tmp_path / name, 8, codec=codec) as writer:
        writer.write(clip[:5])
        writer.write(clip[5])
        writer.write(clip[6:])
    reader = open_video(tmp_path / name)
    assert (reader.info.height, reader.info.width, len(reader)) == (*size, 33)
    assert reader.info.fps == pytest.approx(8, abs=1e-9)
    back = np.stack(list(reader))
    if codec in LOSSLESS:
        assert np.array_equal(back, clip)
    else:  # right frame at the right place: every other frame is further away
        distance = np.abs(back[:, None].astype(float) - clip[None]).mean((2, 3, 4))
        assert np.array_equal(distance.argmin(1), np.arange(33))
        assert distance.diagonal().max() < 8
    for start, stop in ((0, 1), (7, 20), (32, 33)):
        assert np.array_equal(reader.window(start, stop), back[start:stop])


@pytest.mark.parametrize(("name", "codec"), TARGETS)
def test_same_frames_same_bytes(tmp_path: Path, name: str, codec: str) -> None:
    clip = moving_disc(40, 96, 128)
    for chunk, folder in ((40, "one"), (3, "two"), (1, "three")):
        with VideoWriter(tmp_path / folder / name, 24, codec=codec) as writer:
            for start in range(0, 40, chunk):
                writer.write(clip[start : start + chunk])
    assert len({digest(tmp_path / f / name) for f in ("one", "two", "three")}) == 1


def test_opencv_reads_the_same_pixels(tmp_path: Path) -> None:
    """Independent decoder and colour path: what OpenCV shows is what our reader shows."""
    with VideoWriter(tmp_path / "a.mp4", 8) as writer:
        writer.write(moving_disc(9, 48, 64))
    capture = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    for frame in open_video(tmp_path / "a.mp4"):
        ok, other = capture.read()
        assert ok
        assert np.abs(frame.astype(int) - other[..., ::-1]).max() <= 2
    assert not capture.read()[0]


def test_tagged_colours_follow_their_tags(tmp_path: Path) -> None:
    colour = np.full((64, 64, 3), (200, 30, 60), np.uint8)
    with av.open(str(tmp_path / "709.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"qp": "1"})
        stream.width = stream.height = 64
        stream.pix_fmt, stream.codec_context.colorspace = "yuv420p", 1
        frame = av.VideoFrame.from_ndarray(colour, format="rgb24").reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.colorspace, frame.pts = 1, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    seen = open_video(tmp_path / "709.mp4").window(0, 1)[0, 32, 32]
    assert np.abs(seen.astype(int) - (200, 30, 60)).max() <= 3


def test_crf_and_fractional_rates(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 255, (12, 48, 64, 3)).astype(np.uint8)
    for crf in (10, 40):
        with VideoWriter(tmp_path / f"{crf}.mp4", 24000 / 1001, crf=crf) as writer:
            writer.write(clip)
    assert (tmp_path / "10.mp4").stat().st_size > 2 * (tmp_path / "40.mp4").stat().st_size
    assert open_video(tmp_path / "10.mp4").info.fps == pytest.approx(float(Fraction(24000, 1001)))


def test_long_names(tmp_path: Path) -> None:
    """Names up to 255 bytes work, also of many-byte letters; longer ones are refused before work."""
    name = "é" * 125 + "a.mp4"
    with VideoWriter(tmp_path / name, 0.5) as writer:
        writer.write(moving_disc(2, 32, 32))
    assert open_video(tmp_path / name).info.fps == pytest.approx(0.5)
    with pytest.raises(BadInput, match="255 bytes"):
        check_target(tmp_path / ("é" * 126 + ".mp4"))


def test_failure_leaves_nothing_and_keeps_the_old(tmp_path: Path) -> None:
    clip = moving_disc(4, 32, 32)
    for name, codec in (("a.mp4", None), ("frames", "png"), ("a.gif", None)):
        with pytest.raises(ZeroDivisionError), VideoWriter(tmp_path / name, 8, codec=codec) as writer:
            writer.write(clip)
            raise ZeroDivisionError
    with pytest.raises(RunFailed, match="no frame"), VideoWriter(tmp_path / "a.mp4", 8):
        pass
    assert list(tmp_path.iterdir()) == []
    for name, codec in (("a.mp4", None), ("frames", "png")):
        with VideoWriter(tmp_path / name, 8, codec=codec) as writer:
            writer.write(clip)
        before = digest(tmp_path / name)
        with pytest.raises(ZeroDivisionError), VideoWriter(tmp_path / name, 8, codec=codec, overwrite=True) as writer:
            writer.write(clip[:2])
            raise ZeroDivisionError
        assert digest(tmp_path / name) == before
        with VideoWriter(tmp_path / name, 8, codec=codec, overwrite=True) as writer:
            writer.write(clip[:2])
        assert len(open_video(tmp_path / name)) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "frames"]


def test_mixed_sizes_and_dtypes_are_refused(tmp_path: Path) -> None:
    clip = moving_disc(2, 32, 32)
    for bad in (clip.astype(np.float32), clip[..., :1], moving_disc(1, 32, 48)):
        with pytest.raises(ValueError), VideoWriter(tmp_path / "a.mp4", 8) as writer:
            writer.write(clip)
            writer.write(bad)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("a.mp5", {}, "did you mean '.mp4'"),
        ("a", {}, "unknown container"),
        ("folder/", {}, "is a folder"),
        ("a.mp4", {"codec": "vp9"}, "cannot hold codec vp9"),
        ("a.mp4", {"codec": "h26"}, "did you mean .h26"),
        ("a.mp4", {"crf": 52}, "outside 0-51"),
        ("a.mkv", {"crf": 3}, "does not apply"),
        ("there.mp4", {}, "--overwrite"),
        ("there.mp4/a.mp4", {}, "not a folder"),
        ("there.mp4", {"codec": "png", "overwrite": True}, "is a file"),
        ("full", {"codec": "png"}, "--overwrite"),
        ("/proc/a.mp4", {}, "cannot be written"),
    ],
)
def test_refused_before_work(tmp_path: Path, name: str, options: dict, says: str) -> None:
    (tmp_path / "there.mp4").write_bytes(b"old")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "00000.png").write_bytes(b"old")
    before = sorted(tmp_path.rglob("*"))
    target = name if name.startswith("/") else f"{tmp_path}/{name}"
    with pytest.raises(BadInput, match=says):
        check_target(target, **options)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("fps", [0, -1, 1e-9, 1e6, float("nan"), float("inf")])
def test_bad_fps(tmp_path: Path, fps: float) -> None:
    with pytest.raises(BadInput, match="positive"):
        VideoWriter(tmp_path / "a.mp4", fps)


def test_unreadable_videos_say_why(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "good.mp4", 8) as writer:
        writer.write(np.random.default_rng(0).integers(0, 255, (60, 64, 64, 3)).astype(np.uint8))
    whole = (tmp_path / "good.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_text("not a video at all\n" * 50)
    (tmp_path / "zero.mp4").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for name, says in (
        ("cut.mp4", "truncated"),
        ("text.mp4", "not a readable video"),
        ("zero.mp4", "not a readable video"),
        ("empty", "no PNG"),
        ("missing.mp4", "no such file"),
    ):
        with pytest.raises(BadInput, match=says):
            list(open_video(tmp_path / name))
    with pytest.raises(BadInput, match="outside"):
        open_video(tmp_path / "good.mp4").window(50, 61)


def test_damaged_middle_is_noticed(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "good.mp4", 8) as writer:
        writer.write(np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3)).astype(np.uint8))
    data = bytearray((tmp_path / "good.mp4").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20000] = bytes(20000)
    (tmp_path / "bad.mp4").write_bytes(data)
    with pytest.raises(BadInput):
        list(open_video(tmp_path / "bad.mp4"))


def test_importing_media_needs_no_torch() -> None:
    code = "import sys, longgen.media, longgen.media.sheet; assert not {'torch', 'av', 'cv2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
