"""One noise level per latent, and calls that two experts share."""

import pytest
import torch
from models import tiny

from longgen.models import wan
from longgen.types import Dense, Level, Patch

MODELS = {kind: wan.from_pipeline(tiny.wan(kind)) for kind in ("2.1", "a14b", "ti2v")}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("row", [0, 3])
def test_constant_levels_equal_the_scalar(kind, row):
    model = MODELS[kind]
    denoiser = tiny.denoiser(model)
    want = denoiser.denoise(tiny.call(model, row))
    got = denoiser.denoise(tiny.call(model, [row] * 5))
    assert (got - want).abs().max() < 1e-5


def velocity(transformer, denoiser, call, text):
    """By hand: the transformer on per-token timesteps."""
    t = call.level.t.float().repeat_interleave(6)[None]
    with torch.no_grad():
        return transformer(call.x, t, denoiser.encode(text), return_dict=False)[0]


@pytest.mark.parametrize("kind", MODELS)
def test_mixed_levels(kind):
    """Each latent gets its own timestep, σ and expert; the reference calls the transformers directly."""
    model = MODELS[kind]
    denoiser = tiny.denoiser(model, scale=1.0)
    call = tiny.call(model, [0, 3, 1, 2, 3])
    each = [velocity(t, denoiser, call, "a red circle moving left") for t in model.experts]
    low = call.level.t < 875 if kind == "a14b" else torch.zeros(5, dtype=torch.bool)
    v = torch.where(low[None, None, :, None, None], each[-1], each[0])
    want = call.x - call.level.sigma[None, None, :, None, None] * v
    assert (denoiser.denoise(call) - want).abs().max() < 1e-6
    if kind == "a14b":
        assert 0 < low.sum() < 5
        assert (each[0] - each[1]).abs().max() > 1e-2


def by_place(site, q, k, v, rotate, attend):
    """A hook that tells rows of a batch apart: it depends on where and how noisy the call is."""
    scale = 0.5 + 0.1 * site.frames[0] + 0.1 * float(site.level.sigma.max())
    return attend(rotate(q), rotate(k), v, Dense(), scale)[0]


@pytest.mark.parametrize("patch", [Patch(), Patch(attention=by_place)], ids=["plain", "patched"])
@pytest.mark.parametrize("kind", MODELS)
def test_batched_calls_equal_single_ones(kind, patch):
    """Calls of one shape with other latents, frames, texts and levels share forwards; results agree to 1e-5."""
    model = MODELS[kind]
    weights = torch.eye(3)[[0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 0, 1, 2, 0, 1]]
    denoiser = tiny.denoiser(model, texts=("a red circle", "a blue star on black", "gray square"), weights=weights)
    calls = [
        tiny.call(model, 0, frames=range(5), seed=1),
        tiny.call(model, 3, frames=range(4, 9), seed=2),
        tiny.call(model, 0, frames=range(10, 15), seed=3),
        tiny.call(model, [0, 1, 2, 3, 3], frames=range(3, 8), seed=4),
        tiny.call(model, 0, frames=range(3), seed=5),
    ]
    with denoiser.patched(patch):
        together = denoiser.denoise_batch(calls)
        alone = [denoiser.denoise(call) for call in calls]
    assert max(float((a - b).abs().max()) for a, b in zip(together, alone, strict=True)) < 1e-5


def test_a_boundary_level_belongs_to_the_high_noise_expert():
    """As in WanPipeline: t ≥ boundary·1000 runs the first transformer."""
    denoiser = tiny.denoiser(MODELS["a14b"])
    one = torch.tensor(0.5)
    experts = [int(denoiser._experts(Level(one, one, torch.tensor(t), torch.tensor(0)))) for t in (1000, 875, 874, 1)]
    assert experts == [0, 0, 1, 1]
