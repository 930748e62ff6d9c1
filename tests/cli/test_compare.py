"""`longgen compare`: what is refused before anything runs, and one small comparison end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longgen.__main__ import canonical
from longgen.cli.app import run
from longgen.errors import BadInput
from longgen.media.read import open_video

PROMPT = "a red circle drifting right on a black background"


def compare(folder: Path, methods: str, *more: str) -> int:
    words = ["compare", "--methods", methods, "--prompt", PROMPT, "--steps", "2", "--num-frames", "41"]
    return run(canonical([*words, *more, "-o", str(folder)]))


def test_methods_make_their_videos_a_grid_and_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--metrics", "freeze,loop", "--set", "windows.overlap=17", "--json")
    assert compare(tmp_path, "direct; riflex,windows", *more) == 0
    told = json.loads(capsys.readouterr().out)
    names = {"direct.mp4", "riflex+windows.mp4"}
    assert {Path(p).name for p in tmp_path.glob("*.mp4")} == names | {"grid.mp4"}
    assert names == {Path(v["path"]).name for v in told["videos"]}
    grid, one = open_video(tmp_path / "grid.mp4"), open_video(tmp_path / "direct.mp4")
    assert len(grid) == len(one) == 41 and grid.info.width >= 2 * one.info.width
    seeds = {json.loads(p.read_text())["request"]["seed"] for p in tmp_path.glob("*s.json")}
    assert len(seeds) == 1 and (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("methods", "more", "words"),
    [
        ("direct", (), "two methods"),
        ("direct,windwos", (), "windows"),
        ("direct,windows", ("--set", "fifo.window=9"), "none of the methods"),
        ("direct,windows", ("--metrics", "freze"), "freeze"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_a_run(
    tmp_path: Path, methods: str, more: tuple[str, ...], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        compare(tmp_path / "out", methods, *more)
    assert not (tmp_path / "out").exists()
