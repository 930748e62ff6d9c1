"""Two processes on one video: dealt calls and sides of guidance give the bits of one, passes run together 1e-5."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import model_info, random_qkv, run_attention, site_of, view_of
from models.tiny import save, wan
from models.tiny_ltx import ltx
from runtime import together
from safetensors.torch import load_file
from torch import Tensor

from longgen import registry
from longgen.api import Session
from longgen.config import Request
from longgen.errors import BadInput
from longgen.models import options
from longgen.protocols import Method
from longgen.runtime import distribute
from longgen.types import LoadOptions

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save(ltx(), folder / "ltx", native_frames=33, native_size=[32, 64])
    return save(wan("2.1"), folder / "tiny")


@pytest.fixture(scope="module")
def both(model: Path) -> list[dict[str, Tensor]]:
    """What each of two processes made."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    words = ["--rdzv_endpoint", "127.0.0.1:0", str(HERE / "together.py"), str(model), str(model.parent)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *words], capture_output=True, text=True, env=environment, timeout=800)
    assert done.returncode == 0, done.stderr[-4000:]
    return [load_file(model.parent / f"{rank}.safetensors") for rank in range(2)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [*together.CALLS, *together.ULYSSES, *together.LTX, "resumed"])
def test_two_processes_equal_one(model: Path, both: list[dict[str, Tensor]], name: str) -> None:
    asked = {**together.CALLS, **together.ULYSSES, **together.LTX, "resumed": together.CALLS["fifo"]}[name]
    want = together.latents(Session(model.parent / "ltx" if name in together.LTX else model), asked)
    for made in both:
        if name in together.ULYSSES or name in together.LTX:
            torch.testing.assert_close(made[name], want, rtol=0, atol=1e-5)
        else:
            assert torch.equal(made[name], want)


def test_a_single_calls_forwards_are_dealt_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 1 of 2 runs the second forward alone, and takes the first from process 0."""
    sent: list[tuple[int, float]] = []

    def broadcast(x: Tensor, src: int) -> None:
        if src == 0:
            x.fill_(7.0)
        sent.append((src, float(x.flatten()[0])))

    monkeypatch.setattr(distribute, "world", lambda: 2)
    monkeypatch.setattr(distribute, "rank", lambda: 1)
    monkeypatch.setattr(distribute.dist, "broadcast", broadcast)
    run: list[int] = []

    def forward(i: int) -> Callable[[], list[Tensor]]:
        return lambda: [run.append(i) or torch.full((2,), float(i))]  # type: ignore[func-returns-value]

    results = distribute.deal([forward(0), forward(1)], [[torch.zeros(2)], [torch.zeros(2)]])
    assert run == [1] and [float(r[0][0]) for r in results] == [7.0, 1.0] and sent == [(0, 7.0), (1, 1.0)]


@pytest.mark.parametrize(
    ("processes", "asked", "line"),
    [
        (1, {}, "start several"),
        (3, {}, "heads, which must divide evenly"),
        (2, {"method": "freepca"}, "needs all"),
        (2, {"method": "windows,ditctrl"}, "needs all"),
    ],
)
def test_what_cannot_be_split_is_refused_before_weights_load(
    model: Path, monkeypatch: pytest.MonkeyPatch, processes: int, asked: dict[str, Any], line: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    with pytest.raises(BadInput, match=line):
        Session(model).plan(Request(**{**together.COMMON, **asked, "parallel": "ulysses"}))


def test_models_without_a_plan_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("hunyuanvideo-community/HunyuanVideo", "zai-org/CogVideoX-2b"):
        with pytest.raises(BadInput, match="no plan that splits"):
            Session(name).plan(Request(**{**together.COMMON, "model": name, "parallel": "ulysses"}))


@pytest.mark.parametrize(
    ("chosen", "line"), [({"parallel": "ring"}, "use ulysses"), ({"cache": "first_block"}, "cache")]
)
def test_ring_and_step_caches_are_refused(chosen: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInput, match=line):
        options.check(LoadOptions(**{"parallel": "ulysses", **chosen}), torch.device("cpu"))


def routes() -> list[str]:
    return [name for name in registry.METHODS if {"route", "logits"} & set(registry.method(name)().info.slots)]


@pytest.mark.parametrize("name", routes())
def test_a_method_may_be_given_some_of_the_heads(name: str) -> None:
    """Half the heads at a time give what all give together, unless the method says that it mixes heads."""
    info = model_info(native=3)
    method: Method = registry.method(name)().fit(info)
    patch, (q, k, v) = method.patch(view_of(info, 9)), random_qkv(18, heads=2)
    site = site_of(info, 9)
    whole = run_attention(patch, q, k, v, site)
    halves = torch.cat([run_attention(patch, *(x[:, :, i : i + 1] for x in (q, k, v)), site) for i in (0, 1)], dim=2)
    assert torch.allclose(whole, halves, atol=1e-5) is not method.info.mixes_heads
