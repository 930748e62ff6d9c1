"""Compiled blocks under patches: no graph breaks, no graph per layer, step or phase, and the eager numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from fakes import view_of
from models import tiny, tiny_cogvideox, tiny_hunyuan, tiny_ltx
from torch import Tensor
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend

from longgen.methods.ditctrl import DiTCtrl
from longgen.methods.freelong import FreeLong
from longgen.methods.freenoise import FreeNoise
from longgen.methods.lvsa import Lvsa
from longgen.methods.riflex import Riflex
from longgen.methods.ultravico import UltraViCo
from longgen.models import cogvideox, hunyuan, ltx, options, wan
from longgen.protocols import Conditions, Method
from longgen.types import Call, Dense, Patch, View

FRAMES, STEPS = 9, 6
METHODS: dict[str, Method] = {
    "freenoise": FreeNoise(window_latents=3, stride_latents=1),
    "freelong": FreeLong(window_latents=3, until=0.5),  # one phase before τ, another after it
    "riflex": Riflex(k=1),
    "lvsa": Lvsa(scale=0.8),  # other key frames at every step
    "ultravico": UltraViCo(alpha=0.5),
    "ditctrl": DiTCtrl(layers=0.5),  # writes to a bank and reads from it, in some layers
}


def walk(model: Any, patch: Patch, *, own_levels: bool = False, keyed: bool = False) -> Tensor:
    """Clean estimates of all steps, on windows with keys if asked for."""
    schedule = model.solver("euler", STEPS, None).schedule
    denoiser, x, out = tiny.denoiser(model, FRAMES, STEPS), tiny.latents(FRAMES), []
    with denoiser.patched(patch):
        for step in range(STEPS):
            level = schedule[torch.arange(FRAMES) % STEPS] if own_levels else schedule[step]
            for key in (0, 1) if keyed else (None,):
                first = 6 * (key or 0)
                out.append(denoiser.denoise(Call(x, level, tuple(range(first, first + FRAMES)), key)))
    return torch.cat(out)


def view(model: Any) -> View:
    schedule = model.solver("euler", STEPS, None).schedule
    return replace(view_of(model.info, FRAMES, schedule, total=15, tokens=6), native=3)


def graphs(layers: int, name: str, backend: Any) -> int:
    """Runs compiled and eager, compares, and tells how many graphs there were."""
    made = [wan.from_pipeline(tiny.wan("2.1", num_layers=layers)) for _ in range(2)]
    made[1].pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=backend)
    method = METHODS[name].fit(made[0].info) if hasattr(METHODS[name], "fit") else METHODS[name]
    want, got = (walk(model, method.patch(view(model)), keyed=name == "ditctrl") for model in made)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    return int(backend.frame_count)


@pytest.mark.parametrize("name", METHODS)
def test_a_patch_adds_no_graphs(name: str) -> None:
    torch._dynamo.reset()
    assert graphs(3, name, CompileCounter()) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["freenoise", "freelong", "riflex"])
def test_thirty_layers_six_steps_two_graphs(name: str) -> None:
    torch._dynamo.reset()
    assert graphs(30, name, CompileCounterWithBackend("aot_eager")) <= 2


def test_text_hooks_and_levels_per_latent() -> None:
    """A hook on text attention is as opaque; levels per latent may have a second graph."""
    torch._dynamo.reset()
    counter = CompileCounter()
    made = [wan.from_pipeline(tiny.wan("2.1", num_layers=3)) for _ in range(2)]
    made[1].pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=counter)

    def louder(site: Any, q: Tensor, k: Tensor, v: Tensor, attend: Any) -> Any:
        return attend(q, k, v, Dense(), 1.0 + site.layer + 0.1 * site.step)

    for own_levels in (False, True):
        want, got = (walk(model, Patch(cross=louder), own_levels=own_levels) for model in made)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert counter.frame_count <= 2


FAMILIES = {
    "ltx": (ltx, tiny_ltx.ltx, tiny_ltx.latents, (33, 32, 64)),
    "hunyuan": (hunyuan, tiny_hunyuan.hunyuan, tiny_hunyuan.latents, (17, 32, 48)),
    "cogvideox": (cogvideox, tiny_cogvideox.cogvideox, tiny_cogvideox.latents, (17, 32, 48)),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_compile_whole_blocks_too(family: str) -> None:
    """Graphs per kind of block, not per layer, step or side of guidance, under a hook that looks at everything."""
    torch._dynamo.reset()
    adapter, make, latents, size = FAMILIES[family]
    counter, results = CompileCounter(), []

    def hook(site: Any, q: Tensor, k: Tensor, v: Tensor, rotate: Any, attend: Any) -> Tensor:
        out: Tensor = attend(rotate(q), rotate(k), v, Dense(), 1.0 + 0.1 * site.layer + 0.01 * site.step)[0]
        return out

    for compiled in (False, True):
        model: Any = adapter.from_pipeline(make(num_layers=4))  # type: ignore[attr-defined]
        model.info = replace(model.info, native_frames=size[0], native_size=size[1:])
        if compiled:
            options.compile_blocks(model.pipe.transformer, backend=counter)
        schedule = model.solver(None, 4, None).schedule
        denoiser = model.denoiser(Conditions(tiny.Prompts()), model.info.grid(*size), 4)
        with denoiser.patched(Patch(attention=hook)):
            calls = [Call(latents(), schedule[row], tuple(range(5))) for row in (1, 2, 3)]
            results.append(torch.cat([denoiser.denoise(call) for call in calls]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)
    kinds = {type(m) for m in model.pipe.transformer.modules() if m._compiled_call_impl is not None}
    assert len(kinds) <= counter.frame_count <= 2 * len(kinds)  # the first block's input may lie otherwise in memory
