"""The queue, chunk, rotary and decay methods on tiny random Wan models of three kinds, through the real adapter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from fakes import Bench, view_of
from models import tiny

from longgen.methods.extend import Extend
from longgen.methods.fifo import Fifo, Miga
from longgen.methods.pi import Pi
from longgen.methods.riflex import Riflex
from longgen.methods.ultravico import UltraViCo
from longgen.models import wan
from longgen.types import LatentGrid, Patch

KINDS = ["2.1", "a14b", "ti2v"]


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> Any:
    return wan.from_pipeline(tiny.wan(request.param))


def on(model: Any, frames: int, steps: int = 4) -> Bench:
    """A loop's bench whose denoiser is the model."""
    info = model.info
    grid = LatentGrid(frames, info.channels, 4, 6, info.stride, info.patch)
    schedule = model.solver("euler", steps, None).schedule
    return Bench(tiny.denoiser(model, frames, steps).denoise, info, grid, schedule)


@pytest.mark.parametrize("mode", ["merge", "exact"])
def test_decay_of_one_is_plain_attention(model: Any, mode: str) -> None:
    frames = 9
    denoiser, call = tiny.denoiser(model, frames), tiny.call(model, frames=range(frames))
    view = replace(view_of(model.info, frames), native=3)
    short = UltraViCo(alpha=1.0, first_frame=False, mode=mode).fit(model.info).patch(view)
    decayed = UltraViCo(alpha=0.5, mode=mode).fit(model.info).patch(view)
    want = denoiser.denoise(call)
    with denoiser.patched(short):
        same = denoiser.denoise(call)
    with denoiser.patched(decayed):
        other = denoiser.denoise(call)
    assert (same - want).abs().max() < 1e-4 < 1e-3 < (other - want).abs().max()
    assert torch.equal(denoiser.denoise(call), want)


def test_frequencies_of_pi_and_riflex(model: Any) -> None:
    frames = 9
    denoiser, call = tiny.denoiser(model, frames), tiny.call(model, frames=range(frames))
    view = replace(view_of(model.info, frames), native=3)
    outcomes = []
    for patch in (Pi().patch(view), Patch(positions=lambda p: p * 3 / frames), Riflex(k=1).patch(view), Patch()):
        with denoiser.patched(patch):
            outcomes.append(denoiser.denoise(call))
    squeezed, reference, slower, plain = outcomes
    assert (squeezed - reference).abs().max() < 1e-5
    assert (slower - plain).abs().max() > 1e-4 and (slower - squeezed).abs().max() > 1e-4


@pytest.mark.parametrize("method", [
    Fifo(window_latents=3, partitions=1), Fifo(window_latents=3, partitions=1, rule="unipc"),
    Miga(window_latents=3, group=1, guides=0, partitions=2, depth=2, reflect=1, drop=0.0),
    Miga(window_latents=3, group=2, partitions=3),
])  # fmt: skip
def test_queues_run_with_levels_of_their_own(model: Any, method: Fifo) -> None:
    case = on(model, 5)
    video, _ = case.run(method)
    assert video.shape == (1, model.info.channels, 5, 4, 6) and video.isfinite().all()
    assert any(not call.level.uniform for call in case.calls)


def test_a_fed_queue_forgets_the_length(model: Any) -> None:
    settings = {"window_latents": 2, "partitions": 1, "flush": False}
    short, long = (on(model, frames).run(Fifo(**settings))[0] for frames in (2, 4))
    assert (short - long[:, :, :2]).abs().max() < 1e-5


def test_chunks_on_wan(model: Any) -> None:
    video, _ = on(model, 7).run(Extend(window_latents=3, overlap_latents=1))
    assert video.shape[2] == 7 and video.isfinite().all()
    if "prefix_condition" in model.info.capabilities:
        case = on(model, 5)
        native, _ = case.run(Extend(window_latents=3, overlap_latents=1, condition="native"))
        assert native.isfinite().all()
        assert torch.equal(case.calls[-1].x[:, :, :1], native[:, :, 2:3])  # the prefix, shown clean


def test_prefix_condition_is_known_of_the_kind_trained_for_it() -> None:
    able = [kind for kind in KINDS if "prefix_condition" in wan.from_pipeline(tiny.wan(kind)).info.capabilities]
    assert able == ["ti2v"]
