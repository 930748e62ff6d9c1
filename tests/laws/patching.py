"""Patches on a real, tiny, two-expert Wan: do they come off bitwise, and is a zeroed projection the identity?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from models.tiny import wan
from torch import Tensor

from longgen.core.noise import latent_noise
from longgen.models.wan.model import WanModel
from longgen.protocols import Conditions, Method
from longgen.story.schedules import build as schedule
from longgen.types import Call, ModelInfo, Patch, Timeline, View

LATENTS = 20  # 4x the native length that the tests give to the tiny model


class Wan:
    """The model, a denoiser on it, and one call for each expert."""

    def __init__(self) -> None:
        self.model = WanModel.from_pipeline(wan("a14b"))
        self.info: ModelInfo = replace(self.model.info, native_frames=17)
        self.grid = self.info.grid((LATENTS - 1) * self.info.stride + 1, 32, 48)
        self.solver = self.model.solver("euler", 10, None)
        prompts = schedule(Timeline.single("a red circle", self.grid.pixel_frames, 8.0), "hold", 4, 3.0)
        self.denoiser: Any = self.model.denoiser(Conditions(prompts), self.grid, 10)
        x = latent_noise(self.grid, 0, 0, LATENTS)
        self.calls = [Call(x, self.solver.schedule[row], tuple(range(LATENTS)), 0) for row in (0, 8)]

    def view(self) -> View:
        info = self.info
        return View(
            frames=LATENTS,
            native=info.native_latents,
            total=LATENTS,
            tokens=self.grid.tokens,
            layers=info.layers,
            rope=info.rope,
            schedule=self.solver.schedule,
            seconds_per_latent=0.5,
        )

    def outputs(self) -> list[Tensor]:
        return [self.denoiser.denoise(call) for call in self.calls]

    def parts(self) -> list[Any]:
        """What a patch may exchange, by identity."""
        return [
            part
            for expert in self.model.experts
            for part in (
                *(block.attn1.processor for block in expert.blocks),
                *(block.attn2.processor for block in expert.blocks),
                *expert.modules(),
                expert.rope.freqs_cos,
                expert.rope.freqs_sin,
            )
        ]

    def numbers(self) -> list[Tensor]:
        experts = self.model.experts
        state = [t.clone() for expert in experts for t in expert.state_dict().values()]
        return state + [t.clone() for expert in experts for t in (expert.rope.freqs_cos, expert.rope.freqs_sin)]


@cache
def tiny() -> Wan:
    return Wan()


def _unchanged(made: Wan, parts: list[Any], numbers: list[Tensor], outputs: list[Tensor]) -> None:
    assert [id(a) for a in made.parts()] == [id(b) for b in parts]
    assert all(torch.equal(a, b) for a, b in zip(made.numbers(), numbers, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(made.outputs(), outputs, strict=True))


def _raising(patch: Patch) -> Patch:
    """The patch with a hook that fails in the middle of a forward."""

    def fail(*args: Any) -> Any:
        raise RuntimeError("planted")

    return replace(patch, attention=fail)


def comes_off_bitwise(method: Method) -> None:
    """Outputs, weights, buffers and processors are the very same after the patch, also after exceptions inside."""
    made = tiny()
    patch = method.fit(made.info).patch(made.view())
    assert not patch.empty, "the patch does nothing at 4x, so its removal shows nothing"
    before = made.parts(), made.numbers(), made.outputs()
    with made.denoiser.patched(patch):
        assert all(y.isfinite().all() for y in made.outputs())
    _unchanged(made, *before)
    for broken in (patch, _raising(patch)):
        with pytest.raises(RuntimeError, match="planted"), made.denoiser.patched(broken):
            made.outputs()
            raise RuntimeError("planted")
        _unchanged(made, *before)


def zeroed_is_identity(method: Method) -> None:
    """With the output projections of self-attention zeroed, a patched model equals the plain one bit for bit."""
    made = tiny()
    patch = method.fit(made.info).patch(made.view())
    with _zeroed(made) as plain, made.denoiser.patched(patch):
        assert all(torch.equal(a, b) for a, b in zip(made.outputs(), plain, strict=True))


class _zeroed:
    """Context: all `to_out` of self-attention at zero; gives the plain outputs in that state."""

    def __init__(self, made: Wan) -> None:
        self.made = made
        self.weights = [p for e in made.model.experts for b in e.blocks for p in b.attn1.to_out[0].parameters()]
        self.kept = [p.detach().clone() for p in self.weights]

    def _fill(self, value: Callable[[int], Tensor | float]) -> None:
        with torch.no_grad():
            for i, p in enumerate(self.weights):
                p.copy_(torch.as_tensor(value(i)).expand_as(p))

    def __enter__(self) -> list[Tensor]:
        self._fill(lambda i: 0.0)
        return self.made.outputs()

    def __exit__(self, *exc: object) -> None:
        self._fill(lambda i: self.kept[i])
