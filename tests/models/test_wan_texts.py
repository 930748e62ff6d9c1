"""Texts per latent: exact against a masked softmax over all texts, and equal to a plain call where they should be."""

import math

import pytest
import torch
from models import tiny

from longgen.errors import BadInput
from longgen.models import wan
from longgen.types import Dense, Patch

TEXTS = ("a red circle moving left", "a blue star on black", "gray square")
MODEL = wan.from_pipeline(tiny.wan())
ROWS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0], [0.25, 0.75, 0], [0, 0, 1]])


class MaskedCross:
    """Reference text attention: all texts in one sequence, a bias [T, n] on the logits, one softmax."""

    def __init__(self, bias, tokens):
        self.bias, self.tokens = bias, tokens

    def __call__(self, attn, hidden, context, mask=None, rotary=None):
        q = attn.norm_q(attn.to_q(hidden)).unflatten(2, (attn.heads, -1))
        k = attn.norm_k(attn.to_k(context)).unflatten(2, (attn.heads, -1))
        v = attn.to_v(context).unflatten(2, (attn.heads, -1))
        logits = torch.einsum("bqnd,bknd->bnqk", q, k) / math.sqrt(q.shape[-1])
        length = context.shape[1] // self.bias.shape[1]
        logits = logits + self.bias.repeat_interleave(self.tokens, 0).repeat_interleave(length, 1)
        return attn.to_out[0](torch.einsum("bnqk,bknd->bqnd", logits.softmax(-1), v).flatten(2))


@torch.no_grad()
def reference(call, texts, bias):
    """Clean estimate without guidance, the reference in every block."""
    transformer = MODEL.pipe.transformer
    kept = [block.attn2.processor for block in transformer.blocks]
    try:
        for block in transformer.blocks:
            block.attn2.processor = MaskedCross(bias, 6)
        v = transformer(call.x, call.level.t[None], torch.cat(texts, 1), return_dict=False)[0]
    finally:
        for block, processor in zip(transformer.blocks, kept, strict=True):
            block.attn2.processor = processor
    return call.x - call.level.sigma * v


def test_one_hot_rows_of_one_text_are_the_plain_call():
    call = tiny.call(MODEL)
    for j, text in enumerate(TEXTS):
        want = tiny.denoiser(MODEL, texts=(text,)).denoise(call)
        for space in ("text", "output"):
            weights = torch.eye(3)[[j] * 5]
            got = tiny.denoiser(MODEL, texts=TEXTS, weights=weights, space=space).denoise(call)
            assert torch.equal(got, want), (text, space)


def test_equal_mixtures_are_one_text():
    """All latents see the same mixture: the plain call on that embedding."""
    call, denoiser = tiny.call(MODEL), tiny.denoiser(MODEL, texts=TEXTS, weights=ROWS[[3] * 5], scale=1.0)
    mixed = 0.25 * denoiser.encode(TEXTS[0]) + 0.75 * denoiser.encode(TEXTS[1])
    with torch.no_grad():
        v = MODEL.pipe.transformer(call.x, call.level.t[None], mixed, return_dict=False)[0]
    assert (denoiser.denoise(call) - (call.x - call.level.sigma * v)).abs().max() < 1e-6


@pytest.mark.parametrize("patch", [None, Patch(cross=lambda site, q, k, v, attend: attend(q, k, v, Dense()))])
def test_a_text_per_latent_is_exact(patch):
    call = tiny.call(MODEL)
    denoiser = tiny.denoiser(MODEL, texts=TEXTS, weights=ROWS, scale=1.0)
    a, b, c = (denoiser.encode(text) for text in TEXTS)
    bias = torch.full((5, 4), -torch.inf)
    for latent, text in enumerate([0, 1, 1, 2, 3]):
        bias[latent, text] = 0
    want = reference(call, [a, b, 0.25 * a + 0.75 * b, c], bias)
    with denoiser.patched(patch or Patch()):
        assert (denoiser.denoise(call) - want).abs().max() < 1e-5
    assert (denoiser.denoise(call) - tiny.denoiser(MODEL, texts=TEXTS[:1], scale=1.0).denoise(call)).abs().max() > 1e-2


def test_penalties_act_on_the_logits_of_each_text():
    call = tiny.call(MODEL)
    costs = torch.tensor([[0.0, 1.0, 3.0], [2, 0, 0.5], [0, 0, 0], [5, 5, 0], [0.3, 0.1, 9]])
    denoiser = tiny.denoiser(MODEL, texts=TEXTS, weights=costs, space="bias", scale=1.0)
    want = reference(call, [denoiser.encode(text) for text in TEXTS], -costs)
    assert (denoiser.denoise(call) - want).abs().max() < 1e-5


def test_penalties_leave_the_unconditional_branch_alone():
    """Guided: u + s·(c − u), with u from the plain negative prompt."""
    call, scale = tiny.call(MODEL), 3.0
    costs = torch.rand(5, 3, generator=torch.Generator().manual_seed(0)) * 4
    cond = tiny.denoiser(MODEL, texts=TEXTS, weights=costs, space="bias", scale=1.0).denoise(call)
    uncond = tiny.denoiser(MODEL, texts=("blurry gray",), scale=1.0).denoise(call)
    guided = tiny.denoiser(MODEL, texts=TEXTS, weights=costs, space="bias", scale=scale).denoise(call)
    assert (guided - (uncond + scale * (cond - uncond))).abs().max() < 1e-5


def test_outputs_mix_clean_estimates():
    call = tiny.call(MODEL)
    each = [tiny.denoiser(MODEL, texts=(text,), scale=1.0).denoise(call) for text in TEXTS]
    want = sum(ROWS[:, j][None, None, :, None, None] * z for j, z in enumerate(each))
    got = tiny.denoiser(MODEL, texts=TEXTS, weights=ROWS, space="output", scale=1.0).denoise(call)
    assert (got - want).abs().max() < 1e-5


@pytest.mark.parametrize(("split", "chosen"), [(0.0, 0), (1.0, 1)])
def test_early_layers_can_have_other_texts(split, chosen):
    call = tiny.call(MODEL)
    late, early = torch.eye(3)[[0] * 5], torch.eye(3)[[1] * 5]
    got = tiny.denoiser(MODEL, texts=TEXTS, weights=late, early=early, split=split).denoise(call)
    want = tiny.denoiser(MODEL, texts=(TEXTS[chosen],)).denoise(call)
    assert (got - want).abs().max() < 1e-5
    halves = tiny.denoiser(MODEL, texts=TEXTS, weights=late, early=early, split=0.5).denoise(call)
    assert (halves - want).abs().max() > 1e-3
    with pytest.raises(BadInput, match="text space only"):
        tiny.denoiser(MODEL, texts=TEXTS, weights=late, early=early, space="output").denoise(call)


def test_spherical_mixing_keeps_the_norm_between_texts():
    from longgen.models.texts import slerp

    a, b = torch.randn(2, 1, 7, 16, generator=torch.Generator().manual_seed(0))
    a, b = a / a.norm(dim=-1, keepdim=True), b / b.norm(dim=-1, keepdim=True)
    for w in (0.1, 0.5, 0.9):
        mixed = slerp([a, b], torch.tensor([1 - w, w]))
        assert (mixed.norm(dim=-1) - 1).abs().max() < 1e-5
        swapped = slerp([b, a], torch.tensor([w, 1 - w]))
        assert (mixed - swapped).abs().max() < 1e-5
    zero = torch.zeros_like(a)
    assert torch.allclose(slerp([a, zero], torch.tensor([0.5, 0.5])), 0.5 * a)


def test_guidance_per_latent():
    call = tiny.call(MODEL)
    scales = torch.tensor([1.0, 2.0, 4.0, 4.0, 0.5])
    got = tiny.denoiser(MODEL, scale=scales).denoise(call)
    for latent, scale in enumerate(scales.tolist()):
        want = tiny.denoiser(MODEL, scale=scale).denoise(call)
        assert (got - want)[:, :, latent].abs().max() < 1e-5
    constant = tiny.denoiser(MODEL, scale=torch.full((5,), 4.0)).denoise(call)
    assert (constant - tiny.denoiser(MODEL, scale=4.0).denoise(call)).abs().max() < 1e-5


def test_cross_hooks_see_the_latents_that_share_a_text():
    call, sites = tiny.call(MODEL, frames=range(4, 9)), []
    weights = torch.zeros(9, 3)
    weights[4:9] = torch.eye(3)[[0, 1, 0, 1, 2]]

    def record(site, q, k, v, attend):
        assert q.shape[1] == site.grid[0] * site.tokens and k.shape[1] == 12
        sites.append(site)
        return attend(q, k, v, Dense())

    denoiser = tiny.denoiser(MODEL, 9, texts=TEXTS, weights=weights)
    with denoiser.patched(Patch(cross=record)):
        denoiser.denoise(call)
    assert [s.frames for s in sites if s.branch == "cond" and s.layer == 0] == [(4, 6), (5, 7), (8,)]
    assert [s.frames for s in sites if s.branch == "uncond" and s.layer == 1] == [(4, 5, 6, 7, 8)]
