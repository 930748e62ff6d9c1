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


def seen_by_blocks(model, denoiser, call, patch):
    """What the time embedding and the first block are given: rows of timesteps, values of modulation, hidden shape."""
    transformer, seen = model.pipe.transformer, {}
    handles = [
        transformer.condition_embedder.time_proj.register_forward_pre_hook(
            lambda module, args: seen.update(rows=args[0].numel() // args[0].shape[-1])
        ),
        transformer.blocks[0].register_forward_pre_hook(
            lambda module, args: seen.update(values=args[2].numel(), hidden=tuple(args[0].shape))
        ),
    ]
    with denoiser.patched(patch):
        out = denoiser.denoise(call)
    for handle in handles:
        handle.remove()
    return out, seen


@pytest.mark.parametrize(
    "patch",
    [Patch(), Patch(freqs=lambda theta: theta * 0.5), Patch(attention=by_place)],
    ids=["plain", "rope", "route"],
)
@pytest.mark.parametrize("texts", [1, 2])
def test_levels_of_their_own_modulate_by_latent_not_by_token(patch, texts):
    """T rows of timesteps and T·6·d values of modulation, whatever the number of tokens; token by token is the same."""
    model = MODELS["2.1"]
    weights = None if texts == 1 else torch.eye(2)[[0, 0, 1, 1, 1]]
    denoiser = tiny.denoiser(model, texts=("a red circle", "a blue star")[:texts], weights=weights, scale=1.0)
    call = tiny.call(model, [0, 3, 1, 2, 3])
    got, seen = seen_by_blocks(model, denoiser, call, patch)
    assert seen == {"rows": 5, "values": 5 * 6 * 24, "hidden": (5, 6, 24)}
    denoiser.by_latent = lambda jobs: False
    want, spread = seen_by_blocks(model, denoiser, call, patch)
    assert spread == {"rows": 30, "values": 30 * 6 * 24, "hidden": (1, 30, 24)}
    assert (got - want).abs().max() < 1e-5
    assert not model.pipe.transformer.patch_embedding._forward_hooks
