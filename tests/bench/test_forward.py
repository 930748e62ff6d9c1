"""The bench of whole forwards: every side runs on both families, few layers tell of many, nothing is timed twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from longgen.attention import choose
from longgen.bench import forward
from longgen.bench.rows import Rows
from longgen.errors import BadInput
from longgen.models.bare import bare
from longgen.types import Patch

TOYS: dict[str, tuple[str, dict[str, Any], tuple[int, int]]] = {
    "toy-wan": (
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        {"heads": 2, "head_dim": 12, "layers": 3, "ffn_dim": 32, "footprint": None, "native_frames": 17},
        (4, 6),
    ),
    "toy-ltx": (
        "Lightricks/LTX-Video",
        {"heads": 2, "head_dim": 16, "layers": 3, "ffn_dim": 32, "footprint": None, "native_frames": 33},
        (2, 3),
    ),
}


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "MODELS", TOYS)


@pytest.mark.parametrize("model", TOYS)
def test_every_side_is_timed_once_or_refused(model: str, tmp_path: Path) -> None:
    forward.run(Rows("forward", tmp_path), model, multiples="2", layers=2, rounds=1)
    rows = {row["side"]: row for row in Rows("forward", tmp_path).rows.values()}
    assert set(rows) == {*forward.FULL, *forward.METHODS}
    assert {name for name, row in rows.items() if "unavailable" in row} == {"full-cudnn", "full-flash3"}
    assert rows["window"]["flops"] < rows["full"]["flops"] < rows["freelong"]["flops"]
    forward.run(Rows("forward", tmp_path), model, multiples="2", layers=2, rounds=9)
    assert {row["side"]: row for row in Rows("forward", tmp_path).rows.values()} == rows, "nothing is timed twice"


def test_all_layers_are_told_from_one_and_two() -> None:
    info, size = forward.facts("toy-wan")
    way = forward.Side("auto", Patch(), 9.0)
    told = forward.summary(replace(info, layers=30), size, way, 9, [([1.0, 2.0], None), ([1.5, 2.25], None)], [1, 2])
    assert told["seconds"] == [1.0 + 29 * 0.5, 2.0 + 29 * 0.25]


@pytest.mark.parametrize("model", TOYS)
def test_a_window_that_covers_all_is_full_attention(model: str) -> None:
    """Sides are the methods' own patches on the real classes: they change what lies beyond the window alone."""
    info, size = forward.facts(model)
    level = forward.expected_schedule(info, 50, info.flow_shift)[0]
    attend = choose("auto", "cpu", torch.float32, info.head_dim).attend
    made = bare(info, size, 2, attend, "cpu", torch.float32, False)
    apart = []
    for frames in (info.native_latents, 2 * info.native_latents):
        outputs = []
        for name in ("full-sdpa", "full", "window"):
            with made.wearing(forward.side(name, info, frames).patch, frames) as run:
                outputs.append(run(level, 0))
        torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-4)
        apart.append(float((outputs[1] - outputs[2]).abs().max()))
    assert apart[0] < 1e-4 < apart[1]


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(BadInput, match="toy-wan"):
        forward.facts("wan-14b")
