"""Slots, conflicts, capabilities, and one patch out of many."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from longgen import registry
from longgen.errors import BadInput
from longgen.protocols import CAPABILITIES, Method, MethodInfo, Setting
from longgen.runtime.compose import EXCLUSIVE, check, combine, compose, restrict
from longgen.types import ModelInfo, Patch, Rope


def model(**changes: Any) -> ModelInfo:
    """A Wan-like model that can do everything, unless told otherwise."""
    facts: dict[str, Any] = {
        "id": "fake", "family": "wan", "variant": "fake", "channels": 4, "stride": 4, "spatial": 8, "patch": (1, 2, 2),
        "native_frames": 33, "native_size": (64, 64), "fps": 8.0, "steps": 4, "guidance": 4.0, "flow_shift": 3.0,
        "layers": 2, "heads": 2, "head_dim": 12, "ffn_dim": 32, "text_tokens": 12, "rope": Rope("table", 44, 1e4, 1024),
        "capabilities": frozenset(CAPABILITIES),
    }  # fmt: skip
    return ModelInfo(**{**facts, **changes})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("freenose", "did you mean 'freenoise'"),
        ("", "names separated by commas"),
        ("windows,", "names separated by commas"),
        ("freenoise.loop", "unknown part of freenoise 'loop'"),
    ],
)
def test_names_that_do_not_exist(text: str, says: str) -> None:
    with pytest.raises(BadInput) as told:
        compose(text)
    assert says in str(told.value)


def test_every_pair_that_shares_an_exclusive_slot_is_refused_naming_both() -> None:
    infos = {name: registry.method(name).info for name in registry.METHODS}
    refused = 0
    for a, first in infos.items():
        for b, second in infos.items():
            if a < b and set(first.slots) & set(second.slots) & set(EXCLUSIVE):
                with pytest.raises(BadInput) as told:
                    compose(f"{a},{b}")
                assert repr(a) in str(told.value) and repr(b) in str(told.value)
                refused += 1
    assert refused > 0


def test_parts_alone_do_not_conflict() -> None:
    made = compose("freenoise.noise,windows")
    assert made.noise is not None and made.noise.info.name == "freenoise"
    assert made.loop.info.name == "windows"
    assert [str(p) for p in made.parts] == ["freenoise.noise", "windows"]


def test_without_a_loop_direct_walks() -> None:
    assert compose("freenoise").loop.info.name == "direct"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"windows.size": 3}, "unknown setting of windows 'size'"),
        ({"freenoise.window": 3}, "is not among --method windows"),
        ({"windows.weights": "pyramyd"}, "did you mean 'pyramid'"),
        ({"windows.window": -1}, "windows.window"),
        ({"windows.window": float("nan")}, "windows.window"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput) as told:
        compose("windows", settings)
    assert says in str(told.value)


class Needy(Method):
    info = MethodInfo("needy", "Needs a level per latent", ("loop",), needs=frozenset({"per_latent_level"}))

    def view(self, frames: int, info: ModelInfo) -> int:
        return frames


class Scaled(Method):
    info = MethodInfo("scaled", "x", ("rope",), settings={"factor": Setting(1.0, "1", "", 0.0, 8.0)})


def test_a_missing_capability_is_refused_with_the_models_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.METHODS, "needy", f"{__name__}:Needy")
    lacking = model(capabilities=frozenset(), refusals={"per_latent_level": "its norms take one level per call"})
    with pytest.raises(BadInput, match="'needy' cannot run on fake: its norms take one level"):
        check(compose("needy"), 9, lacking)
    check(compose("needy"), 9, model())


def test_more_latents_in_a_call_than_the_model_has_positions() -> None:
    with pytest.raises(BadInput, match=r"1025 latents .* 1024 positions; use .*windows"):
        check(compose("direct"), 1025, model())
    check(compose("windows").fit(model()), 1025, model())


def test_rope_edits_chain_in_the_order_given() -> None:
    double = Patch(freqs=lambda theta: theta * 2)
    add = Patch(freqs=lambda theta: theta + 1)
    theta = torch.tensor([1.0, 2.0])
    both, other = combine([double, add]).freqs, combine([add, double]).freqs
    assert both is not None and other is not None
    assert both(theta).tolist() == [3.0, 5.0] and other(theta).tolist() == [4.0, 6.0]


def test_combining_nothing_is_a_no_op() -> None:
    assert combine([]).empty and combine([Patch(), Patch()]).empty


def test_a_part_brings_only_its_own_slot() -> None:
    whole = Patch(freqs=lambda t: t, attention=lambda *a: a[1])
    assert restrict(whole, ("noise",)).empty
    assert restrict(whole, ("rope",)).attention is None
