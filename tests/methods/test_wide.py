"""`wide` is nothing but the methods and the setting that it stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import model_info
from models.tiny import save, wan

from longgen import registry
from longgen.api import Session
from longgen.config import Request, validated
from longgen.errors import BadInput
from longgen.runtime.compose import compose, spelled_out
from longgen.runtime.run import Job

ASKED: dict[str, Any] = {"prompt": "a red circle", "num_frames": 65, "num_inference_steps": 2, "seed": 3}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Tiny Wan2.1 of 17 native frames, 5 latents."""
    return Session(save(wan("2.1"), tmp_path_factory.mktemp("model") / "tiny"))


def latents(session: Session, **more: Any) -> torch.Tensor:
    made = session.run(session.plan(Request(**{**ASKED, **more})), Job(keep=True)).latents
    assert made is not None
    return made


def test_it_is_its_parts(session: Session) -> None:
    parts, settings = registry.COMPOSITIONS["wide"]
    made = latents(session, method="wide")
    assert torch.equal(made, latents(session, method=parts, set=settings))
    assert not torch.equal(made, latents(session, method=parts))
    assert session.plan(Request(**ASKED, method="wide")).windows == ((0, 15), (3, 17)), "latent 2 is the anchor"


@pytest.mark.parametrize(
    ("given", "window"),
    [({}, 15), ({"windows.window_scale": 2}, 10), ({"windows.window_latents": 7}, 7), ({"windows.window": 33}, 9)],
)
def test_given_sizes_win(session: Session, given: dict[str, Any], window: int) -> None:
    assert session.plan(Request(**ASKED, method="wide", set=given)).windows[0] == (0, window)


def test_short_videos(session: Session) -> None:
    """Up to three native lengths one window holds all; up to the native length it is the plain model."""
    short = {"num_frames": 33}
    one = latents(session, method="ultravico,freenoise.noise", **short)
    assert torch.equal(latents(session, method="wide", **short), one)
    assert torch.equal(latents(session, method="wide", num_frames=17), latents(session, method="direct", num_frames=17))


def test_what_is_recorded_makes_it_again(session: Session) -> None:
    """The sidecar names the parts and their settings, so that it holds when the name means something else one day."""
    plan = session.plan(Request(**ASKED, method="wide", set={"ultravico.alpha": 0.8}))
    told = plan.resolved()
    assert told["method"] == "ultravico,freenoise.noise,windows"
    assert told["set"] == {"windows.window_scale": 3.0, "ultravico.alpha": 0.8}
    assert session.plan(validated(told)).identity == plan.identity


def test_with_other_methods() -> None:
    assert spelled_out("riflex, wide ,adain")[0] == "riflex,ultravico,freenoise.noise,windows,adain"
    assert "riflex" in str(compose("riflex,wide").fit(model_info()))
    with pytest.raises(BadInput, match="both own the slot 'loop'"):
        compose("wide,fifo")
    with pytest.raises(BadInput, match="did you mean 'wide'"):
        compose("wyde")
    with pytest.raises(BadInput, match="'freelong' is not among --method"):
        compose("wide", {"freelong.until": 0.5})


def test_every_composition_has_a_page_and_a_recipe() -> None:
    root = Path(__file__).resolve().parents[2]
    for name, (parts, settings) in registry.COMPOSITIONS.items():
        assert not {name} & set(registry.METHODS)
        page = (root / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")
        assert parts in page and all(f"{key}={value:g}" in page for key, value in settings.items())
        assert f"method: {name}\n" in (root / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
