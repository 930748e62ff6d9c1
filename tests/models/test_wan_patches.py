"""Patches on Wan: hooks see what they should, change what they should, and leave no trace."""

import itertools
import math

import pytest
import torch
from models import tiny

from longgen.models import wan
from longgen.types import Dense, FrameWindow, Patch

KINDS = ["2.1", "a14b", "ti2v"]


def dense(site, q, k, v, rotate, attend):
    return attend(rotate(q), rotate(k), v, Dense())[0]


HARMLESS = {
    "attention": Patch(attention=dense),
    "logits": Patch(logits=lambda site, attend: attend),
    "kv": Patch(kv=lambda site, k, v: (k, v)),
    "cross": Patch(cross=lambda site, q, k, v, attend: attend(q, k, v, Dense())),
    "freqs": Patch(freqs=lambda theta: theta),
    "positions": Patch(positions=lambda positions: positions),
}


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return wan.from_pipeline(tiny.wan(request.param))


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("row", [0, 3])
def test_a_patch_that_changes_nothing(model, name, row):
    denoiser, call = tiny.denoiser(model), tiny.call(model, row)
    want = denoiser.denoise(call)
    with denoiser.patched(HARMLESS[name]):
        got = denoiser.denoise(call)
    assert (got - want).abs().max() < 1e-5


def test_positions_and_frequencies_reach_the_rotation(model):
    denoiser, call = tiny.denoiser(model), tiny.call(model)
    want = denoiser.denoise(call)
    outcomes = {}
    for name, patch in {
        "shifted": Patch(positions=lambda positions: positions + 7),
        "stretched": Patch(positions=lambda positions: positions * 0.5),
        "slower": Patch(freqs=lambda theta: theta * 0.5),
        "slower, own processor": Patch(freqs=lambda theta: theta * 0.5, attention=dense),
    }.items():
        with denoiser.patched(patch):
            outcomes[name] = denoiser.denoise(call)
    assert (outcomes["shifted"] - want).abs().max() < 1e-4  # rotary attention is relative
    assert (outcomes["stretched"] - want).abs().max() > 1e-3
    assert (outcomes["slower"] - outcomes["stretched"]).abs().max() < 1e-5  # θ·(p/2) = (θ/2)·p
    assert (outcomes["slower, own processor"] - outcomes["slower"]).abs().max() < 1e-5


def test_rotate_takes_other_positions(model):
    """rotate(x, positions) puts x where those frames are, whatever frames x came from."""
    denoiser, call, errors = tiny.denoiser(model), tiny.call(model), []

    def check(site, q, k, v, rotate, attend):
        two, three = q[:, : 2 * site.tokens], 3 * site.tokens
        placed = torch.cat([q[:, :three], two], dim=1)  # the first two frames at the places 3 and 4
        errors.append((rotate(two, torch.tensor([3, 4])) - rotate(placed)[:, three:]).abs().max())
        errors.append((rotate(q, torch.arange(5)) - rotate(q)).abs().max())
        assert (rotate(two, torch.tensor([30, 40])) - rotate(two, torch.tensor([3, 4]))).abs().max() > 1e-2
        return dense(site, q, k, v, rotate, attend)

    with denoiser.patched(Patch(attention=check)):
        denoiser.denoise(call)
    assert errors and max(errors) < 1e-5


def test_hooks_are_called_once_per_layer_branch_and_call(model):
    denoiser, sites = tiny.denoiser(model), []

    def record(site, q, k, v, rotate, attend):
        assert q.shape == (1, site.grid[0] * site.tokens, 2, 12)
        sites.append(site)
        return dense(site, q, k, v, rotate, attend)

    calls = [tiny.call(model, row, frames=range(3, 8)) for row in range(4)]
    with denoiser.patched(Patch(attention=record)):
        for call in calls:
            denoiser.denoise(call)
    layers, branches = range(model.info.layers), ("cond", "uncond")
    order = [(row, branch, layer) for row, branch, layer in itertools.product(range(4), branches, layers)]
    assert [(site.step, site.branch, site.layer) for site in sites] == order
    assert all(site.frames == (3, 4, 5, 6, 7) and site.grid == (5, 2, 3) and site.steps == 4 for site in sites)
    boundary = math.inf if model.info.boundary is None else model.info.boundary * 1000
    experts = [0 if boundary == math.inf or float(site.level.t) >= boundary else 1 for site in sites]
    assert [site.expert for site in sites] == experts
    assert len(set(experts)) == len(model.experts)


def test_one_windowed_layer_equals_a_dense_mask(model):
    """The windowed plan through the whole adapter against a softmax with an explicit [S, S] mask."""
    spans = ((0, 2), (0, 3), (1, 4), (2, 5), (3, 5))

    def windowed(site, q, k, v, rotate, attend):
        plan = FrameWindow(site.tokens, spans) if site.layer == 0 else Dense()
        return attend(rotate(q), rotate(k), v, plan)[0]

    def masked(site, q, k, v, rotate, attend):
        q, k = rotate(q), rotate(k)
        logits = torch.einsum("bqnd,bknd->bnqk", q, k) / math.sqrt(q.shape[-1])
        if site.layer == 0:
            frame = torch.arange(q.shape[1]) // site.tokens
            low, high = torch.tensor(spans).T
            visible = (frame[None] >= low[frame][:, None]) & (frame[None] < high[frame][:, None])
            logits = logits.masked_fill(~visible, -torch.inf)
        return torch.einsum("bnqk,bknd->bqnd", logits.softmax(-1), v)

    denoiser, call = tiny.denoiser(model), tiny.call(model)
    outcomes = []
    for hook in (windowed, masked):
        with denoiser.patched(Patch(attention=hook)):
            outcomes.append(denoiser.denoise(call))
    assert (outcomes[0] - outcomes[1]).abs().max() < 1e-5
    assert (outcomes[0] - denoiser.denoise(call)).abs().max() > 1e-3


def traces(model):
    """Everything that a patch may touch, by identity."""
    return [
        (
            id(b.attn1),
            id(b.attn1.processor),
            id(b.attn2.processor),
            id(t.rope),
            id(t.rope.freqs_cos),
            id(t.rope.freqs_sin),
        )
        for t in model.experts
        for b in t.blocks
    ]


def test_patches_come_off_bitwise(model):
    denoiser, calls = tiny.denoiser(model), [tiny.call(model, row) for row in (0, 3)]
    before, objects = [denoiser.denoise(call) for call in calls], traces(model)
    with denoiser.patched(Patch(freqs=lambda theta: theta / 2, logits=lambda site, attend: attend)):
        for call in calls:
            denoiser.denoise(call)
    assert traces(model) == objects
    assert all(torch.equal(denoiser.denoise(call), want) for call, want in zip(calls, before, strict=True))


def test_patches_come_off_after_an_exception(model):
    denoiser, call = tiny.denoiser(model), tiny.call(model)
    before, objects = denoiser.denoise(call), traces(model)

    def fails(site, q, k, v, rotate, attend):
        if site.layer == 1:
            raise RuntimeError("planted")
        return dense(site, q, k, v, rotate, attend)

    patch = Patch(attention=fails, positions=lambda positions: positions / 2)
    with pytest.raises(RuntimeError, match="planted"), denoiser.patched(patch):
        denoiser.denoise(call)
    assert traces(model) == objects
    assert torch.equal(denoiser.denoise(call), before)


def test_an_empty_patch_touches_nothing(model):
    denoiser, call = tiny.denoiser(model), tiny.call(model)
    before, objects = denoiser.denoise(call), traces(model)
    with denoiser.patched(Patch()):
        assert traces(model) == objects
        assert torch.equal(denoiser.denoise(call), before)


def test_calls_beyond_the_position_table_are_refused():
    from longgen.errors import BadInput

    model = wan.from_pipeline(tiny.wan(rope_max_seq_len=8))
    with pytest.raises(BadInput, match="exceeds the 8 positions"):
        tiny.denoiser(model, 9).denoise(tiny.call(model, frames=range(9)))
