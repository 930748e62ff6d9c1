"""`--method auto` takes what the rows favour, by length, kind of positions and number of shots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import model_info
from models import tiny, tiny_cogvideox

from longgen.api import Session
from longgen.config import Request
from longgen.models import describe
from longgen.runtime.defaults import CLASSES, NATIVE, default_method
from longgen.runtime.matrix import refusal

RED, BLUE = "a red circle", "a blue circle"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny Wan2.1 of 17 native frames."""
    return tiny.save(tiny.wan("2.1"), tmp_path_factory.mktemp("model") / "tiny")


@pytest.mark.parametrize(
    ("asked", "method"),
    [
        ({"num_frames": 17}, "direct"),
        ({"num_frames": 18}, "ultravico,direct"),
        ({"num_frames": 77}, "ultravico,direct"),  # 20 latents, four times 5
        ({"num_frames": 78}, "ultravico,freenoise.noise,windows"),
        ({"num_frames": 33, "prompt": f"{RED} | {BLUE}"}, NATIVE),
        ({"num_frames": 17, "prompt": f"{RED} | {BLUE}"}, "direct"),
        ({"num_frames": 78, "method": "windows"}, "windows"),
    ],
)
def test_by_length(folder: Path, asked: dict[str, Any], method: str) -> None:
    assert str(Session(folder).plan(Request(**{"prompt": RED, **asked})).composition) == method


def test_absolute_positions_keep_windows_native(tmp_path: Path) -> None:
    folder = tiny.save(tiny_cogvideox.cogvideox("2b"), tmp_path / "tiny", **tiny_cogvideox.OVERRIDES)
    session = Session(folder)
    frames = 3 * session.info.native_frames
    assert str(session.plan(Request(prompt=RED, num_frames=frames)).composition) == NATIVE


def test_defaults_run_on_every_known_checkpoint() -> None:
    for info in describe.catalogue():
        for ratio in (1.0, 2.0, 4.0, 16.0):
            for shots in (1, 3):
                assert refusal(default_method(ratio, info, shots), info) is None, info.id
    assert [limit for limit, _ in CLASSES] == sorted(limit for limit, _ in CLASSES)
    assert default_method(16.0, model_info()) == "wide"
