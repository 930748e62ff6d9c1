"""A story of three shots through the text path of each family: every latent's text is attended, and it matters."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from models import tiny, tiny_ltx
from torch import Tensor

from longgen.models import ltx, wan
from longgen.protocols import Conditions
from longgen.story.schedules import SCHEDULES, build
from longgen.story.timeline import from_prompts
from longgen.types import Attend, Call, Dense, Patch, Site

TEXTS = ("a red circle moving left", "a blue square moving right", "a green star on black")
LATENTS = 6


def tiny_wan() -> Any:
    return wan.from_pipeline(tiny.wan("2.1"))


def tiny_ltx_video() -> Any:
    made = ltx.from_pipeline(tiny_ltx.ltx())
    made.info = replace(made.info, native_frames=41, native_size=(32, 48))
    return made


@pytest.fixture(params=[tiny_wan, tiny_ltx_video], ids=["wan", "ltx"], scope="module")
def model(request: pytest.FixtureRequest) -> Any:
    return request.param()


def clean(model: Any, schedule: str, texts: tuple[str, ...] = TEXTS, seen: Counter[str] | None = None) -> Tensor:
    """One estimate of a whole video under a schedule; `seen` counts calls of the text hook by branch."""
    stride = model.info.stride
    timeline = from_prompts(texts, (LATENTS - 1) * stride + 1, 8)
    prompts = build(timeline, schedule, stride, 4.0, "blurry gray")
    grid = model.info.grid((LATENTS - 1) * stride + 1, 32, 48)
    denoiser = model.denoiser(Conditions(prompts), grid, 4)
    x = torch.randn(grid.shape, generator=torch.Generator().manual_seed(0))
    level = model.solver(None, 4, None).schedule[1]

    def count(site: Site, q: Tensor, k: Tensor, v: Tensor, attend: Attend) -> tuple[Tensor, Tensor]:
        if seen is not None:
            seen[site.branch] += 1
        return attend(q, k, v, Dense())

    with denoiser.patched(Patch(cross=count)):
        return denoiser.denoise(Call(x, level, tuple(range(LATENTS))))


def test_every_shot_goes_through_the_text_path(model: Any) -> None:
    """Three texts per layer on the conditional side, one on the other; output blending runs the model per text."""
    layers = model.info.layers
    for schedule, calls in (("hold", 3), ("relay:tail=2", 3), ("blend:length=1", 3), ("window", 1)):
        seen: Counter[str] = Counter()
        clean(model, schedule, seen=seen)
        assert seen == {"cond": calls * layers, "uncond": layers}, schedule


@pytest.mark.parametrize("schedule", [*SCHEDULES, "travel:spherical=true", "relay:tail=2"])
def test_the_output_depends_on_every_prompt(model: Any, schedule: str) -> None:
    """Replacing a shot's text changes the estimate, but for schedules that show one text per call."""
    first = clean(model, schedule)
    assert first.isfinite().all()
    for k in range(3):
        other = clean(model, schedule, (*TEXTS[:k], "a gray background", *TEXTS[k + 1 :]))
        assert torch.equal(other, first) == (schedule == "window" and k != 1)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_one_text_three_times_is_one_text(model: Any, schedule: str) -> None:
    assert torch.equal(clean(model, schedule, (TEXTS[0],) * 3), clean(model, "hold", (TEXTS[0],)))
