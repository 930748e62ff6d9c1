"""A story of three shots through joint text: one text stream per call, so windows carry the shots."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from models import tiny_cogvideox, tiny_hunyuan
from torch import Tensor

from longgen.errors import BadInput
from longgen.models import cogvideox, hunyuan
from longgen.protocols import Conditions
from longgen.story.schedules import build, spans
from longgen.story.timeline import from_prompts
from longgen.types import Call, Patch, Site

TEXTS = ("a red circle moving left", "a blue square moving right", "a green star on black")
LATENTS = 6


def tiny_cog() -> Any:
    return cogvideox.from_pipeline(tiny_cogvideox.cogvideox("5b"))


def tiny_hunyuan_video() -> Any:
    return hunyuan.from_pipeline(tiny_hunyuan.hunyuan())


@pytest.fixture(params=[tiny_cog, tiny_hunyuan_video], ids=["cogvideox", "hunyuan"], scope="module")
def model(request: pytest.FixtureRequest) -> Any:
    made = request.param()
    made.info = replace(made.info, native_frames=21, native_size=(32, 48))
    return made


def shots(model: Any) -> list[range]:
    """The latents of each shot."""
    timeline = from_prompts(TEXTS, (LATENTS - 1) * model.info.stride + 1, 8)
    return [range(*span) for span in spans(timeline, model.info.stride)]


def clean(
    model: Any, schedule: str, texts: tuple[str, ...], frames: range, seen: Counter[int] | None = None, row: int = 1
) -> Tensor:
    """One estimate of some latents of the video; `seen` counts runs by layer."""
    total = (LATENTS - 1) * model.info.stride + 1
    prompts = build(from_prompts(texts, total, 8), schedule, model.info.stride, 1.0, "blurry gray")
    grid = model.info.grid(total, 32, 48)
    x = torch.randn(grid.shape, generator=torch.Generator().manual_seed(0))[:, :, frames.start : frames.stop]
    denoiser = model.denoiser(Conditions(prompts), grid, 4)

    def count(site: Site, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if seen is not None:
            seen[site.layer] += 1
        return k, v

    with denoiser.patched(Patch(kv=count)):
        return denoiser.denoise(Call(x, model.solver(None, 4, None).schedule[row], tuple(frames)))


@pytest.mark.parametrize("schedule", ["hold", "window", "blend:length=0"])
def test_each_window_sees_the_text_of_its_shot(model: Any, schedule: str) -> None:
    """Windows inside the three shots: each equals a run on that shot's text alone, and no other."""
    for k, frames in enumerate(shots(model)):
        seen: Counter[int] = Counter()
        told = clean(model, schedule, TEXTS, frames, seen)
        assert seen == dict.fromkeys(range(model.info.layers), 1)
        alone = [clean(model, "hold", (text,), frames) for text in TEXTS]
        assert [torch.equal(told, other) for other in alone] == [j == k for j in range(3)]
        assert told.isfinite().all()


def test_output_blending_mixes_inside_a_call(model: Any) -> None:
    """One run per text in use; each latent takes the estimate under its own shot's text."""
    whole = clean(model, "blend:length=0", TEXTS, range(LATENTS))
    for text, frames in zip(TEXTS, shots(model)):
        alone, part = clean(model, "hold", (text,), range(LATENTS)), slice(frames.start, frames.stop)
        assert torch.allclose(whole[:, :, part], alone[:, :, part], atol=1e-6)


@pytest.mark.parametrize("schedule", ["relay", "inject"])
def test_schedules_that_need_several_streams_are_refused(model: Any, schedule: str) -> None:
    with pytest.raises(BadInput, match="use the prompt schedule hold, travel or blend"):
        clean(model, schedule, TEXTS, range(LATENTS), row=0)
