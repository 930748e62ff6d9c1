"""What the user may get wrong about methods: one line that names it, before any weight loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import model_info
from models.tiny import save, wan

from longgen import registry
from longgen.api import Session
from longgen.config import Request
from longgen.errors import BadInput
from longgen.protocols import Setting
from longgen.runtime.compose import check, compose
from longgen.types import Rope

NUMBERS = [
    (name, key, setting)
    for name in registry.METHODS
    for key, setting in registry.method(name).info.settings.items()
    if setting.low is not None or setting.high is not None
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny Wan2.1, native length 17 frames, 5 latents; its positions end at 1,024."""
    return save(wan("2.1"), tmp_path_factory.mktemp("model") / "tiny")


def refused(folder: Path, method: str, frames: int = 65, **settings: Any) -> str:
    session = Session(folder)
    asked = Request(prompt="a red circle", method=method, num_frames=frames, set=settings)
    with pytest.raises(BadInput) as caught:
        session.plan(asked)
    assert session._model is None, "weights were loaded first"
    told = str(caught.value)
    assert "\n" not in told and len(told) < 400
    return told


@pytest.mark.parametrize(("method", "settings", "says"), [
    ("windows,fifo", {}, "'windows' and 'fifo' both own the slot 'loop'"),
    ("freenoise,specmix", {}, "both own the slot 'noise'"),
    ("freelong,ultravico", {}, "'freelong' and 'ultravico' both own the slot 'logits'"),
    ("freeloc,lvsa", {}, "both own the slot 'route'"),
    ("riflex,ntk", {}, "cannot run together: both stretch the same temporal frequencies"),
    ("freeloc,riflex", {}, "cannot run together"),
    ("freeinit,fifo", {}, "cannot run together: freeinit restarts the whole video at one noise level"),
    ("windows", {"windows.stride_latents": 6}, "stride_latents 6 leaves a step of 6 latents between windows of 5"),
    ("windows", {"windows.stride": 4, "windows.overlap": 4}, "stride and overlap exclude each other"),
    ("flowlong", {"flowlong.stride": 4, "flowlong.overlap": 4}, "stride and overlap exclude each other"),
    ("freenoise", {"freenoise.stride": 4, "freenoise.overlap": 4}, "stride and overlap exclude each other"),
    ("windows", {"windows.overlap": -4}, "windows.overlap must be from 0"),
    ("windows", {"windows.window": float("inf")}, "windows.window must be a finite number"),
    ("windows", {"windows.window_latents": 2.5}, "whole number of latents"),
    ("extend", {"extend.overlap_latents": 0}, "overlap of at least one latent"),
    ("extend", {"extend.condition": "native"}, "native cannot run on"),
    ("windows", {"windows.plan": "unifrom"}, "did you mean 'uniform'"),
    ("freelong", {"freelong.cutoff": 0.3, "freelong.cutoff_seconds": 2.0}, "exclude each other"),
    ("fifo", {"fifo.lookahead": 1}, "must be true or false"),
])  # fmt: skip
def test_methods_and_settings(folder: Path, method: str, settings: dict[str, Any], says: str) -> None:
    assert says in refused(folder, method, **settings)


@pytest.mark.parametrize("method", ["windows", "fifo", "extend", "flowlong"])
def test_a_video_shorter_than_the_window_that_was_asked_for(folder: Path, method: str) -> None:
    told = refused(folder, method, 33, **{f"{method}.window_latents": 10})
    assert f"{method}.window_latents 10 is longer than the video of 9 latents (33 frames)" in told
    assert "is longer than" in refused(folder, method, 33, **{f"{method}.window": 41})
    plan = Session(folder).plan(Request(prompt="a red circle", method=method, num_frames=9))
    assert plan.grid.frames == 3, "the default window covers a short video"


@pytest.mark.parametrize("method", ["direct", "freenoise", "freelong", "freelongpp", "freepca", "lvsa"])
def test_positions_beyond_the_models_table(folder: Path, method: str) -> None:
    told = refused(folder, method, 4 * 1024 + 1)
    assert "1025 latents in one call are beyond the model's table of 1024 positions" in told and "windows" in told


@pytest.mark.parametrize("method", ["windows", "extend"])
def test_windows_go_beyond_the_table(folder: Path, method: str) -> None:
    assert Session(folder).plan(Request(prompt="a red circle", method=method, num_frames=4 * 1024 + 1))


@pytest.mark.parametrize("name", registry.METHODS)
def test_a_missing_capability_is_named(name: str) -> None:
    for need in sorted(registry.method(name).info.needs):
        rest = model_info().capabilities - {need}
        with pytest.raises(BadInput, match=f"method '{name}' cannot run on fake: ") as caught:
            check(compose(name), 9, model_info(capabilities=rest))
        assert "\n" not in str(caught.value)
        with pytest.raises(BadInput, match="because of its norms"):
            check(compose(name), 9, model_info(capabilities=rest, refusals={need: "because of its norms"}))


def test_calls_longer_than_native_are_warned_of_unless_something_is_made_for_them(folder: Path) -> None:
    def notes(method: str, **settings: Any) -> str:
        asked = Request(prompt="a red circle", method=method, num_frames=65, set=settings)
        return " ".join(Session(folder).plan(asked).notes)

    warning = "longer than the native 5, and no method"
    assert warning in notes("windows", **{"windows.window_latents": 10}) and warning in notes("direct")
    assert warning not in notes("windows")
    for policy in ("ultravico", "riflex", "ntk"):
        assert warning not in notes(f"windows,{policy}", **{"windows.window_latents": 10})


@pytest.mark.parametrize(("name", "key", "setting"), NUMBERS, ids=[f"{n}.{k}" for n, k, _ in NUMBERS])
def test_numbers_out_of_range(name: str, key: str, setting: Setting) -> None:
    """Each declared range is kept, and nothing that is no finite number passes."""
    wrong: list[Any] = [float("nan"), float("inf"), float("-inf"), True, "many"]
    wrong += [setting.low - 1] if setting.low is not None else []
    wrong += [setting.high + 1] if setting.high is not None else []
    for value in wrong:
        with pytest.raises(BadInput) as caught:
            compose(name, {f"{name}.{key}": value})
        assert f"{name}.{key}" in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_declared_without_a_range_is_checked_by_the_method() -> None:
    info = model_info(3, rope=Rope("table", 4))
    for name, key, wrong in (
        ("riflex", "k", 1.5), ("freelongpp", "scales", "2,1"), ("windows", "retain", "x"), ("freeloc", "sparse", "x"),
        ("ultravico", "first_frame", "maybe"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=rf"{name}\.{key}"):
            check(compose(name, {f"{name}.{key}": wrong}).fit(info), 9, info)
