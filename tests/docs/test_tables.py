"""Docs agree with the recorded rows, and rows with the commands that make them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from longgen.bench import BENCHES
from longgen.bench.rows import RESULTS, Rows
from longgen.bench.tables import MARK, TABLES, filled

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_tables_come_from_rows(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert filled(text, RESULTS) == text, "run `longgen bench tables`"


def test_every_named_table_exists() -> None:
    named = {found["name"] for page in PAGES for found in MARK.finditer(page.read_text(encoding="utf-8"))}
    assert named <= set(TABLES)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.jsonl")), ids=lambda p: p.stem)
def test_rows_say_how_to_measure_them_again(path: Path) -> None:
    environments = json.loads((RESULTS / "environments.json").read_text())
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert row["commit"] and row["date"] and row["env"] in environments
        assert row["command"].startswith("longgen bench ") and row["command"].split()[2] in BENCHES


def test_a_row_measured_again_replaces_the_old_one(tmp_path: Path) -> None:
    rows = Rows("speed", tmp_path)
    rows.add({"method": "direct", "frames": 33}, {"seconds": 1.23456789})
    rows.add({"method": "windows", "frames": 33}, {"seconds": 2.0})
    rows.add({"method": "direct", "frames": 33}, {"seconds": 3.0})
    again = Rows("speed", tmp_path)
    assert [r["seconds"] for r in again.rows.values()] == [3.0, 2.0]
    assert again.has(method="direct", frames=33) and not again.has(method="direct", frames=65)


def test_two_writers_of_one_file_keep_each_others_rows(tmp_path: Path) -> None:
    one, other = Rows("quality", tmp_path), Rows("quality", tmp_path)
    one.add({"method": "direct", "frames": 33}, {"kept": 1})
    other.add({"method": "direct", "frames": 65}, {"kept": 2})
    one.add({"method": "direct", "frames": 33}, {"kept": 3})
    assert sorted(r["kept"] for r in Rows("quality", tmp_path).rows.values()) == [2, 3]


def test_a_row_grows_by_what_several_writers_find(tmp_path: Path) -> None:
    one, other = Rows("quality", tmp_path), Rows("quality", tmp_path)
    one.add({"method": "direct"}, {"videos": {"0": 1.0}}, grow="videos")
    other.add({"method": "direct"}, {"videos": {"1": 2.0}}, grow="videos")
    assert one.get(method="direct")["videos"] == {"0": 1.0, "1": 2.0}


def video(kept: bool, path: float, jumps: int) -> dict[str, Any]:
    """A reading of `bench quality`."""
    shown = {"shape": 1.0, "motion": 1.0, "freeze": 0, "repetition": 0.0}
    return {"kept": kept, "drift": {"path": path, "colour": 0.0}, "jumps": jumps, **shown}


def test_only_what_is_surely_worse_is_told_apart(tmp_path: Path) -> None:
    """Kept first, then drift among those that keep, then jumps; video by video, so that hard prompts do not blur it."""
    hard = [0.3 * (i % 2) for i in range(10)]
    rows = {
        "best": [video(True, 0.01 + h, 0) for h in hard],
        "same": [video(True, 0.01 + h + 0.01 * (-1) ** i, 0) for i, h in enumerate(hard)],
        "drifts": [video(True, 0.04 + h, 0) for h in hard],
        "jumps": [video(True, 0.01 + h, 3) for h in hard],
        "frozen": [video(False, 0.0, 0) for _ in hard],
    }
    for name, told in rows.items():
        key = {"method": name, "frames": 129, "steps": 16, "dtype": "fp32", "model_hash": "x"}
        Rows("quality", tmp_path).add(key, {"videos": {str(i): v for i, v in enumerate(told)}}, grow="videos")
    few = {"method": "few", "frames": 129, "steps": 16, "dtype": "fp32", "model_hash": "x"}
    Rows("quality", tmp_path).add(few, {"videos": {"0": video(True, 0.0, 0)}}, grow="videos")
    assert TABLES["quality-ties"](tmp_path, [])[2] == "| 129 | 10 | `best` `same` |"
    beside = TABLES["quality-beside"](tmp_path, ["frames=129", "method=jumps", "against=drifts;few;none"])
    assert beside[2:] == [
        "| `drifts` | 10 | 10 | 10 | -0.030 ± 0.000 | 3.000 ± 0.000 |",
        "| `few` | 1 | 1 | 1 | – | – |",
    ]
