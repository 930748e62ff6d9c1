"""The chooser: what was asked for or a reason, never something else; auto only what passes its self-test."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from longgen import registry
from longgen.attention import choose, sdpa, table
from longgen.attention.engine import EVERY_PLAN, Engine
from longgen.attention.sdpa import Sdpa
from longgen.errors import BadInput
from longgen.types import Dense, FrameWindow, TokenDecay, Union

CPU = torch.device("cpu")
chooser = sys.modules["longgen.attention.choose"]  # the package shows the function of this name


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(chooser.ENV, raising=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("head_dim", [16, 64, 80, 128])
def test_auto_serves_every_plan_on_a_cpu(dtype: torch.dtype, head_dim: int) -> None:
    windows = FrameWindow(4, ((0, 1),))
    assert choose("auto", CPU, dtype, head_dim, [Union((windows, Dense()), (1.0, 1.0))]).name == "sdpa"


def test_an_engine_that_cannot_serve_is_an_error_with_the_reason() -> None:
    with pytest.raises(BadInput, match="sdpa-flash cannot be used: runs on cuda, not cpu"):
        choose("sdpa-flash", CPU, torch.float32, 64)


def test_a_misspelt_engine_names_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean 'xformers'"):
        choose("xformer", CPU, torch.float32, 64)


def test_the_variable_decides_where_the_command_line_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(chooser.ENV, "sdpa-math")
    assert choose("auto", CPU, torch.float32, 64).name == "sdpa-math"
    assert choose(None, CPU, torch.float32, 64).name == "sdpa-math"
    assert choose("sdpa", CPU, torch.float32, 64).name == "sdpa"


def off(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    out, lse = sdpa.cpu(q, k, v, scale)
    return out, lse + 0.01


def nan(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    out, lse = sdpa.cpu(q, k, v, scale)
    return out * float("nan"), lse


def broken(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    raise RuntimeError("no kernel image is available\nfor this device")


class Wrong(Sdpa):
    name = "wrong"
    kernel = staticmethod(off)


class NotANumber(Sdpa):
    name = "nan"
    kernel = staticmethod(nan)


class Broken(Sdpa):
    name = "broken"
    kernel = staticmethod(broken)


@pytest.mark.parametrize(
    ("engine", "word"),
    [(Wrong, "off by 1.0e-02"), (NotANumber, "off by nan"), (Broken, "RuntimeError: no kernel image is available")],
)
def test_the_self_test_finds_a_wrong_kernel(engine: type[Engine], word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = engine().probe(CPU, torch.float32, 32)
    assert reason is not None and word in reason
    monkeypatch.setitem(registry.ENGINES, engine.name, f"{__name__}:{engine.__name__}")
    monkeypatch.setattr(chooser, "candidates", lambda device: (engine.name, "sdpa"))
    assert choose("auto", CPU, torch.float32, 32).name == "sdpa"
    with pytest.raises(BadInput, match="cannot be used: self-test failed"):
        choose(engine.name, CPU, torch.float32, 32)


def test_preferences_by_gpu_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    for capability, first in [((12, 0), "sdpa-cudnn"), ((9, 0), "flash3"), ((8, 6), "sdpa-flash"), ((7, 5), None)]:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert chooser.candidates(torch.device("cuda"))[0] == (first or "sdpa-efficient")
        assert "sage" not in chooser.candidates(torch.device("cuda"))


def test_every_registered_engine_has_a_row_and_a_reason() -> None:
    rows = table(CPU)
    assert [row["engine"] for row in rows] == list(registry.ENGINES)
    for row in rows:
        assert row["ok"] == (row["reason"] == "")
        made = chooser.engine(row["engine"])
        assert made.name == row["engine"] and made.supports <= EVERY_PLAN | {TokenDecay}
    working = {row["engine"] for row in rows if row["ok"]}
    assert {"sdpa", "sdpa-math"} <= working
