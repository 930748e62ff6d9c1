"""Contact sheets show the right frames and legible text; grids keep every video's own frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longgen.errors import BadInput
from longgen.media import VideoWriter, open_video
from longgen.media.sheet import GAP, _font, comparison_grid, contact_sheet, sheet_times


def grey_ramp(path: Path, frames: int, size: tuple[int, int] = (32, 48), fps: float = 8) -> Path:
    """Frame t is the flat grey 4·t."""
    with VideoWriter(path, fps) as writer:
        for t in range(frames):
            writer.write(np.full((*size, 3), 4 * t, np.uint8))
    return path


def test_sheet_shows_the_frames_it_names(tmp_path: Path) -> None:
    video = grey_ramp(tmp_path / "a.mkv", 33)
    contact_sheet(video, tmp_path / "a.png", count=6, columns=3, thumb=96, prompts=[(0, "café — naïve"), (16, "fin")])
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    height, foot = 64, 56
    for k, frame in enumerate(sheet_times(33, 6)):
        y, x = GAP + (k // 3) * (height + foot + GAP), GAP + (k % 3) * (96 + GAP)
        assert np.array_equal(sheet[y : y + height, x : x + 96], np.full((height, 96, 3), 4 * frame))
    assert (sheet[GAP + height + 2 : GAP + height + foot, GAP : GAP + 96] < 128).any(), "time and prompt are drawn"


def test_font_has_accents_and_dashes() -> None:
    font = _font(16)
    missing = font.getmask("\U0010fffe").getbbox()
    for letter in "éèüßñçøłαЖ—–«»·…":
        assert font.getmask(letter).getbbox() not in (None, missing), letter


@pytest.mark.parametrize("frames", [1, 2, 3, 11, 12, 13, 500])
def test_sheet_times(frames: int) -> None:
    times = sheet_times(frames, 12)
    assert len(times) == len(set(times)) == min(12, frames)
    assert times[0] == 0
    assert times[-1] == (frames - 1 if frames > 1 else 0)


def test_grid_plays_all_to_the_longest(tmp_path: Path) -> None:
    a = grey_ramp(tmp_path / "a.mkv", 20)
    b = grey_ramp(tmp_path / "b.mkv", 10, size=(48, 48))
    comparison_grid([a, b, a], ["one", "two", "three"], tmp_path / "g.mkv", tile=64)
    grid = open_video(tmp_path / "g.mkv")
    assert len(grid) == 20
    assert (grid.info.width, grid.info.height) == (128, 2 * (24 + 64))
    for t, frame in enumerate(grid):
        assert frame[24 + 32, 32, 0] == 4 * t
        assert frame[24 + 32, 96, 0] == (4 * t if t < 10 else 0)
    with pytest.raises(BadInput, match="frame rate"):
        comparison_grid([a, grey_ramp(tmp_path / "c.mkv", 5, fps=24)], ["a", "c"], tmp_path / "x.mkv")
    with pytest.raises(BadInput, match="label"):
        comparison_grid([a], [], tmp_path / "x.mkv")
