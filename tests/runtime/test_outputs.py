"""Names of many videos, and the journal of a batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from longgen.errors import BadInput
from longgen.runtime.journal import Journal
from longgen.runtime.outputs import NAME_BYTES, expand, read_prompts


def names(*args: object) -> list[str]:
    return [i.path.name for i in expand(*args) if i.path]  # type: ignore[arg-type]


def test_index_names() -> None:
    assert names(["a", "b"], 1, "out/", "index", None, True) == ["0000.mp4", "0001.mp4"]
    assert names(["a", "b"], 2, "out/", "index", None, True) == ["0000-0.mp4", "0000-1.mp4", "0001-0.mp4", "0001-1.mp4"]
    assert names(["a"], 1, "out/", "index", "ffv1", False) == ["0000.mkv"]


def test_vbench_names() -> None:
    assert names(["a cat", "a/b"], 2, "o/", "vbench", None, True) == [
        "a cat-0.mp4", "a cat-1.mp4", "a_b-0.mp4", "a_b-1.mp4",
    ]  # fmt: skip
    assert names(["x", "x"], 1, "o/", "vbench", None, True) == ["x-0.mp4", "x-1.mp4"]
    long = names(["é" * 300, "é" * 299 + "a"], 1, "o/", "vbench", None, True)
    assert all(len(n.encode()) <= NAME_BYTES for n in long) and len(set(long)) == 2


def test_many_videos_need_a_folder() -> None:
    with pytest.raises(BadInput, match=r"2 videos need a folder: -o out\.mp4/"):
        expand(["a"], 2, "out.mp4", "index", None, False)
    with pytest.raises(BadInput, match="folder"):
        expand(["a"], 1, "out.mp4", "index", None, True)
    with pytest.raises(BadInput, match="--samples"):
        expand(["a"], 0, "out/", "index", None, False)


def test_prompt_files(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("# list\na cat\n\n  a dog  \n", encoding="utf-8")
    assert read_prompts(file) == ["a cat", "a dog"]
    file.write_text("\n# nothing\n")
    with pytest.raises(BadInput, match="holds no prompt"):
        read_prompts(file)


def test_the_last_line_counts_and_a_torn_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.write("0.mp4", "id", "running")
    journal.write("0.mp4", "id", "failed", "no memory")
    with path.open("a") as out:
        out.write('{"file": "0.mp4", "ident')
    again = Journal(path)
    assert again.status("0.mp4", "id") == "failed"
    assert again.status("0.mp4", "another run") is None
    assert again.status("1.mp4", "id") is None
