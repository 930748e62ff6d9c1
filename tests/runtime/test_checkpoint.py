"""States on disk: exact, whole or absent, never another run's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from longgen.errors import BadInput
from longgen.runtime.checkpoint import Checkpoint
from longgen.types import Final, State

CPU = torch.device("cpu")


def state() -> State:
    memory = {"model_outputs": [torch.randn(2, 3), None], "order": 2, "t": torch.tensor(7), "sigmas": (0.5, 0.25)}
    return State(torch.randn(1, 4, 3, 2, 2), 5, False, memory, {"queue": torch.arange(4), "name": "fifo", "none": None})


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b and type(a) is type(b)


def test_round_trip_is_bitwise(tmp_path: Path) -> None:
    saved, bank = state(), {"0/3/cond": torch.randn(2, 2).to(torch.bfloat16)}
    one = Checkpoint(tmp_path / "c", "id")
    one.add([Final(0, 2, torch.ones(1, 4, 2, 2, 2))])
    one.save(1, saved, bank)
    one.add([Final(2, 3, torch.zeros(1, 4, 1, 2, 2))])
    one.save(1, saved, bank)
    back = Checkpoint(tmp_path / "c", "id").load(CPU)
    assert back is not None and back.round == 1
    for name in ("x", "step", "done", "solver", "extra"):
        assert same(getattr(back.state, name), getattr(saved, name)), name
    assert same(back.bank, bank)
    assert [(f.start, f.stop) for f in back.finals] == [(0, 2), (2, 3)]


def test_another_runs_checkpoint_is_refused(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "c", "one").save(0, state(), {})
    with pytest.raises(BadInput, match="other settings"):
        Checkpoint(tmp_path / "c", "two").load(CPU)


def test_nothing_saved_is_none(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path / "c", "id").load(CPU) is None


def test_a_torn_write_leaves_the_checkpoint_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Checkpoint(tmp_path / "c", "id")
    keeper.save(0, State(torch.ones(1), 1), {})

    def torn(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr("longgen.runtime.checkpoint.os.replace", torn)
        with pytest.raises(OSError, match="disk full"):
            keeper.save(0, State(torch.ones(1), 2), {})
    back = keeper.load(CPU)
    assert back is not None and back.state.step == 1


def test_a_truncated_file_says_what_to_do(tmp_path: Path) -> None:
    keeper = Checkpoint(tmp_path / "c", "id")
    keeper.save(0, state(), {})
    path = tmp_path / "c" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(BadInput, match="remove"):
        keeper.load(CPU)


def test_only_tensors_and_plain_values(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\.extra\.bad"):
        Checkpoint(tmp_path / "c", "id").save(0, State(torch.ones(1), extra={"bad": object()}), {})
