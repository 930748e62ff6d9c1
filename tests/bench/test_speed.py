"""The speed bench covers every method, resumes by rounds, and says why a baseline cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from longgen import registry
from longgen.api import Session
from longgen.bench import speed
from longgen.bench.rows import Rows
from longgen.bench.speed_tables import TABLES


def test_every_method_is_timed() -> None:
    timed = {part.partition(".")[0] for name in speed.METHODS for part in name.split(",")}
    assert timed == {*registry.METHODS, *registry.COMPOSITIONS}


@pytest.mark.parametrize("method", speed.METHODS)
def test_every_method_can_be_planned_at_both_lengths(method: str) -> None:
    session = Session("shapes")
    for frames in (129, 513):
        assert speed._plan(session, method, frames, 16).cost.flops > 0


def test_rounds_are_resumed_and_absent_baselines_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "compiler", lambda: None)
    clock = iter([4.0, 1.0, 2.0, 8.0, 1.0, 2.0])  # plain, decode, windows; and again
    monkeypatch.setattr(speed, "timed", lambda work, cuda=False: next(clock))
    asked = {"frames": 65, "steps": 1, "methods": "windows"}
    speed.run(Rows("speed", tmp_path), rounds=1, **asked)  # type: ignore[arg-type]
    speed.run(Rows("speed", tmp_path), rounds=2, **asked)  # type: ignore[arg-type]
    rows = {row["method"]: row for row in Rows("speed", tmp_path).rows.values()}
    assert rows["plain"]["seconds"] == [4.0, 8.0] and rows["windows"]["seconds"] == [2.0, 2.0]
    assert rows["windows"]["ratio_to_plain"] == pytest.approx((2 / 4 + 2 / 8) / 2), "rounds are paired"
    want = 100 * rows["windows"]["flops"] / rows["plain"]["flops"] / rows["windows"]["ratio_to_plain"]
    assert rows["windows"]["percent_of_ideal"] == pytest.approx(want, rel=1e-3)
    for name in ("plain-cudnn", "plain-flash3", "plain-compiled"):
        assert rows[name]["unavailable"]
    lines = TABLES["speed"](tmp_path, ["frames=65"])
    assert len(lines) == 2 + len(rows) and sum("not available" in line for line in lines) == 3


def test_rounds_of_other_weights_are_not_added_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "compiler", lambda: None)
    monkeypatch.setattr(speed, "timed", lambda work, cuda=False: 1.0)
    rows = Rows("speed", tmp_path)
    key = {"model": "shapes", "frames": 65, "steps": 1, "device": "cpu", "dtype": "fp32", "method": "plain"}
    rows.add(key, {"seconds": [9.0], "model_hash": "others"})
    speed.run(rows, rounds=1, frames=65, steps=1, methods="windows")
    assert rows.get(**key)["seconds"] == [1.0] and rows.get(**key)["model_hash"] == Session("shapes").model_hash
