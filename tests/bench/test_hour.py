"""A long run in minutes: what a stop leaves behind is enough to go on, and memory is measured from the first minute."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from longgen.api import Session
from longgen.bench import hour
from longgen.bench.rows import Rows
from longgen.config import Request
from longgen.errors import BadInput
from longgen.runtime.checkpoint import Checkpoint

TINY = {"frames": 60, "minute": 20, "steps": 2, "settings": "fifo.partitions=1", "chunk": 2}


def film(session: Session, folder: Path) -> hour.Film:
    asked = Request(prompt="a red star rising on a navy background", num_frames=84, num_inference_steps=2)
    plan = session.plan(asked.model_copy(update={"method": "extend", "decode_chunk": 4}))
    return hour.Film(session, plan, Checkpoint(folder, plan.identity), minute=28)


def test_a_film_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder starts anew `HALO` latents before the minute in work, and gives the same frames."""
    monkeypatch.setattr(hour, "HALO", 8)
    session = Session("shapes")
    whole = dict(film(session, tmp_path / "whole").minutes())
    assert [len(frames) for frames in whole.values()] == [28, 28, 28]
    monkeypatch.setattr(hour, "SAVE_EVERY", 0.0)
    parts: dict[int, NDArray[np.uint8]] = {}
    for _ in range(3):
        with closing(film(session, tmp_path / "parts").minutes()) as minutes:
            parts |= [next(minutes)]
            next(minutes, None)  # shown and lost: the next film shows it again
    assert list(parts) == [0, 1, 2]
    for number, frames in parts.items():
        assert np.abs(frames.astype(int) - whole[number]).max() <= 1


def test_rows_grow_by_the_minute_and_survive_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hour.run(Rows("hour", tmp_path / "whole"), work=str(tmp_path), **TINY)  # type: ignore[arg-type]
    monkeypatch.setattr(hour, "SAVE_EVERY", 0.0)
    real, seen = hour.judge, []

    def judge(frames: NDArray[np.uint8], prompt: str) -> object:
        seen.append(len(frames))
        if len(seen) == 2:
            raise RuntimeError("stopped")
        return real(frames, prompt)

    monkeypatch.setattr(hour, "judge", judge)
    with pytest.raises(RuntimeError, match="stopped"):
        hour.run(Rows("hour", tmp_path / "parts"), work=str(tmp_path), **TINY)  # type: ignore[arg-type]
    (row,) = Rows("hour", tmp_path / "parts").rows.values()
    assert list(row["minutes"]) == ["0"]
    hour.run(Rows("hour", tmp_path / "parts"), work=str(tmp_path), **TINY)  # type: ignore[arg-type]
    (want,), (got,) = (Rows("hour", tmp_path / name).rows.values() for name in ("whole", "parts"))
    assert seen == [20, 20, 20, 20] and got["count"] == 3 and got["processes"] == 2
    for number in ("0", "1", "2"):
        for name in ("colour", "shape", "motion", "background", "kept"):
            assert got["minutes"][number][name] == pytest.approx(want["minutes"][number][name], abs=0.05)
    assert not list(tmp_path.glob("longgen-hour-*")), "a finished run leaves no checkpoint"


def test_a_method_that_keeps_all_latents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="streams"):
        hour.run(Rows("hour", tmp_path), method="windows", frames=129)


def test_growth_is_counted_from_the_first_minute_of_each_process() -> None:
    def minute(process: int, rss: float, held: float) -> dict[str, float]:
        return {"process": process, "rss_mib": rss, "held_mib": held, "kept": True, "seconds": 1.0, "cpu_seconds": 1.0}

    read = {"0": minute(0, 100, 10), "1": minute(0, 103, 9), "10": minute(1, 210, 11), "9": minute(1, 200, 11)}
    told = hour.summary(read)
    assert told["rss_growth_percent"] == pytest.approx(5) and told["held_growth_percent"] == 0
    assert told["count"] == told["kept"] == 4 and told["processes"] == 2
