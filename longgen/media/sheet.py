"""Contact sheets and comparison grids: videos as one picture, or side by side. Knows layout, nothing of models."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from longgen.errors import BadInput
from longgen.media.read import VideoReader, open_video
from longgen.media.write import VideoWriter

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)
GAP = 8


def sheet_times(frames: int, count: int) -> list[int]:
    """`count` frame indices spread evenly from the first to the last frame, fewer if the video is shorter.

    >>> sheet_times(129, 5)
    [0, 32, 64, 96, 128]
    >>> sheet_times(3, 5)
    [0, 1, 2]
    """
    count = min(count, frames)
    return [round(i * (frames - 1) / max(count - 1, 1)) for i in range(count)]


def contact_sheet(
    video: VideoReader | str | Path,
    out: str | Path,
    count: int = 12,
    columns: int = 4,
    thumb: int = 240,
    prompts: Sequence[tuple[int, str]] = (),
    title: str = "",
) -> Path:
    """Write a PNG of evenly spread frames, each with its time and, where given, the prompt that rules there.

    Args:
        video: reader or path.
        out: the PNG to write (replaced if it exists: it is a by-product of the video).
        count, columns: number of thumbnails and how many stand in a row.
        thumb: width of a thumbnail in pixels.
        prompts: (first frame, prompt) of each shot, in order of time.
        title: one line on top.
    """
    from PIL import Image, ImageDraw

    reader = video if isinstance(video, VideoReader) else open_video(video)
    times = sheet_times(len(reader), count)
    scale = thumb / reader.info.width
    height = max(1, round(reader.info.height * scale))
    font, small = _font(15), _font(12)
    head = 30 if title else GAP
    foot = 22 + (34 if prompts else 0)
    columns = min(columns, len(times))
    rows = math.ceil(len(times) / columns)
    sheet = Image.new("RGB", (GAP + columns * (thumb + GAP), head + rows * (height + foot + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 6), title, INK, font=font)
    for k, (frame, picture) in enumerate(_pick(reader, times)):
        x, y = GAP + (k % columns) * (thumb + GAP), head + (k // columns) * (height + foot + GAP)
        sheet.paste(Image.fromarray(picture).resize((thumb, height), _filter(scale)), (x, y))
        draw.text((x, y + height + 3), f"{frame / reader.info.fps:.2f} s · frame {frame}", INK, font=small)
        said = [text for first, text in prompts if first <= frame]
        if said:
            lines = _wrap(draw, said[-1], small, thumb, 2)
            draw.multiline_text((x, y + height + 19), lines, FAINT, font=small, spacing=2)
    sheet.save(out, format="PNG")
    return Path(out)


def comparison_grid(
    videos: Sequence[str | Path],
    labels: Sequence[str],
    out: str | Path,
    columns: int | None = None,
    tile: int = 320,
    overwrite: bool = False,
) -> Path:
    """Write one video that plays several side by side, each under its label; a video that has ended turns black.

    Args:
        videos, labels: equally many; all videos share one frame rate.
        out: container as for `VideoWriter`.
        columns: tiles in a row; default, the nearest to a square.
        tile: width of a tile in pixels, rounded to even.

    Raises:
        BadInput: no videos, unequal frame rates, labels that do not fit, or a bad output.
    """
    if not videos or len(videos) != len(labels):
        raise BadInput(f"a grid needs one label per video, got {len(videos)} videos and {len(labels)} labels")
    readers = [open_video(v) for v in videos]
    rates = {round(r.info.fps, 3) for r in readers}
    if len(rates) > 1:
        raise BadInput(f"videos of one grid need one frame rate, got {', '.join(f'{r:g}' for r in sorted(rates))}")
    columns = columns or math.ceil(math.sqrt(len(readers)))
    tile -= tile % 2
    height = max(round(r.info.height * tile / r.info.width / 2) * 2 for r in readers)
    bars = [_label_bar(text, tile) for text in labels]
    black = np.zeros((height, tile, 3), np.uint8)
    with VideoWriter(out, readers[0].info.fps, overwrite=overwrite) as writer:
        streams = [iter(r) for r in readers]
        for _ in range(max(len(r) for r in readers)):
            tiles = [np.concatenate([bar, _next_tile(s, black)]) for bar, s in zip(bars, streams)]
            writer.write(_grid(tiles, columns))
    return Path(out)


def _next_tile(stream: Iterator[NDArray[np.uint8]], black: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import Image

    frame = next(stream, None)
    if frame is None:
        return black
    scale = min(black.shape[1] / frame.shape[1], black.shape[0] / frame.shape[0])
    size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    small = np.asarray(Image.fromarray(frame).resize(size, _filter(scale)))
    canvas = black.copy()
    y, x = (canvas.shape[0] - size[1]) // 2, (canvas.shape[1] - size[0]) // 2
    canvas[y : y + size[1], x : x + size[0]] = small
    return canvas


def _grid(tiles: list[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    missing = -len(tiles) % columns
    tiles = tiles + [np.zeros_like(tiles[0])] * missing
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows, axis=0)


def _label_bar(text: str, width: int) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw

    bar = Image.new("RGB", (width, 24), PAPER)
    draw = ImageDraw.Draw(bar)
    draw.text((6, 4), _wrap(draw, text, _font(14), width - 12, 1), INK, font=_font(14))
    return np.asarray(bar)


def _pick(reader: VideoReader, times: list[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    wanted = set(times)
    for index, frame in enumerate(reader.frames(0, times[-1] + 1)):
        if index in wanted:
            yield index, frame


def _filter(scale: float) -> Image.Resampling:
    """Small generated videos keep their pixels when enlarged; shrinking averages."""
    from PIL import Image

    return Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans from matplotlib, which has accents, dashes and most scripts' letters on every machine."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)


def _wrap(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: int, lines: int) -> str:
    """Break text into at most `lines` lines of `width` pixels; what does not fit ends in an ellipsis."""
    words, done = text.split(), [""]
    while words:
        trial = f"{done[-1]} {words[0]}".strip()
        if draw.textlength(trial, font=font) <= width or not done[-1]:
            done[-1] = trial
            words.pop(0)
        elif len(done) < lines:
            done.append("")
        else:
            done[-1] += "…"
            words = []
    return "\n".join(_clip(draw, line, font, width) for line in done)


def _clip(draw: ImageDraw.ImageDraw, line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    while len(line) > 1 and draw.textlength(line, font=font) > width:
        line = line.removesuffix("…")[:-1] + "…"
    return line
