"""ultravico against one dense softmax with explicit factors, text included."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from fakes import Layer, model_info, random_qkv, run_attention, site_of, view_of
from torch import Tensor
from torch.nn.attention import flex_attention as eager

from longgen.attention import flex, with_text
from longgen.attention.choose import engine as engine_of
from longgen.attention.cost import pairs
from longgen.attention.plans import run
from longgen.errors import BadInput
from longgen.methods.ultravico import UltraViCo, published
from longgen.types import Dense, FrameWindow, Patch, TokenDecay

TOKENS = 2


def factors(frames: int, native: int, alpha: float, beta: float, gamma: int, period: int) -> Tensor:
    """λ [T·P, T·P] written out from the paper's three cases, in frame distances."""
    lam = torch.ones(frames, frames, dtype=torch.float64)
    for i in range(frames):
        for j in range(frames):
            d = abs(i - j)
            if d > native / 2:
                near = period and any(abs(d - m * period) <= gamma for m in range(1, d + gamma + 1))
                lam[i, j] = beta if near else alpha
    return lam.repeat_interleave(TOKENS, 0).repeat_interleave(TOKENS, 1)


def dense(q: Tensor, k: Tensor, v: Tensor, lam: Tensor, text: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """softmax(λ·q(k − k̄) + q·k̄ | q·text): what is left out of the scaling is the keys' mean, and the text."""
    q, k, v = q.double(), k.double(), v.double()
    mean = k.mean(1, keepdim=True)
    logits = torch.einsum("bqnd,bknd->bnqk", q, k - mean) * lam + torch.einsum("bqnd,bknd->bnqk", q, mean)
    if text is not None:
        logits = torch.cat([logits, torch.einsum("bqnd,bknd->bnqk", q, text[0].double())], -1)
        v = torch.cat([v, text[1].double()], 1)
    return torch.einsum("bnqk,bknd->bqnd", (logits / math.sqrt(q.shape[-1])).softmax(-1), v).float()


def patch_of(method: UltraViCo, native: int, frames: int) -> Patch:
    return method.patch(view_of(model_info(native=native), frames))


@pytest.mark.parametrize("native, lengths", [(2, range(3, 13)), (3, range(4, 19)), (4, (5, 11, 24))])
@pytest.mark.parametrize("zones", [{}, {"beta": 0.6, "gamma": 1, "period": 5}, {"beta": 0.3, "gamma": 0, "period": 3}])
def test_equals_dense_softmax_at_every_length(native: int, lengths: Iterable[int], zones: dict) -> None:
    info = model_info(native=native)
    for frames in lengths:
        q, k, v = random_qkv(frames * TOKENS, seed=frames)
        k = k + 1.5  # keys with a mean, as real ones have
        got = run_attention(patch_of(UltraViCo(alpha=0.8, **zones), native, frames), q, k, v, site_of(info, frames))
        lam = factors(frames, native, 0.8, **({"beta": 0.8, "gamma": 0, "period": 0} | zones))
        assert torch.allclose(got, dense(q, k, v, lam), atol=1e-5)


@pytest.mark.parametrize("alpha", [1.0, 0.9, 0.5])
def test_text_merged_outside_keeps_scale_one(alpha: float) -> None:
    frames, native = 9, 3
    q, k, v = random_qkv(frames * TOKENS)
    k = k - 2.0
    text = tuple(random_qkv(5, seed=1)[:2])
    attend = patch_of(UltraViCo(alpha=alpha), native, frames).logits(
        site_of(model_info(native=native), frames), Layer().attend
    )
    got = with_text(attend, *text)(q, k, v, Dense())[0]
    lam = factors(frames, native, alpha, alpha, 0, 0)
    assert torch.allclose(got, dense(q, k, v, lam, text), atol=1e-5)
    if alpha == 1.0:
        assert torch.allclose(got, dense(q, k, v, torch.ones_like(lam), text), atol=1e-5)


def test_through_the_engines_plans() -> None:
    """The same through the merges that kernels run, text included."""
    frames, native = 13, 4
    q, k, v = random_qkv(frames * TOKENS)
    text = tuple(random_qkv(5, seed=1)[:2])

    def kernel(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        logits = torch.einsum("bqnd,bknd->bnqk", q, k) * (scale / math.sqrt(q.shape[-1]))
        return torch.einsum("bnqk,bknd->bqnd", logits.softmax(-1), v), logits.logsumexp(-1)

    method = UltraViCo(alpha=0.85, beta=0.5, gamma=1, period=6)
    attend = patch_of(method, native, frames).logits(
        site_of(model_info(native=native), frames), lambda q, k, v, plan, scale=1.0: run(kernel, q, k, v, plan, scale)
    )
    got = with_text(attend, *text)(q, k, v, Dense())[0]
    assert torch.allclose(got, dense(q, k, v, factors(frames, native, 0.85, 0.5, 1, 6), text), atol=1e-5)


def test_a_constant_added_to_all_keys_changes_nothing() -> None:
    q, k, v = random_qkv(9 * TOKENS)
    patch, site = patch_of(UltraViCo(), 3, 9), site_of(model_info(native=3), 9)
    shifted = k + torch.randn(1, 1, 2, 8)
    assert torch.allclose(run_attention(patch, q, k, v, site), run_attention(patch, q, shifted, v, site), atol=1e-5)


def test_scale_of_the_caller_multiplies_everything() -> None:
    q, k, v = random_qkv(9 * TOKENS)
    attend = patch_of(UltraViCo(), 3, 9).logits(site_of(model_info(native=3), 9), Layer().attend)
    scaled, doubled = attend(q, k, v, Dense(), 2.0), attend(2 * q, k, v, Dense())
    assert torch.allclose(scaled[0], doubled[0], atol=1e-5) and torch.allclose(scaled[1], doubled[1], atol=1e-4)


def test_inside_the_windows_of_a_route() -> None:
    """Batched windows [B·nW, U·P, N, D]: each centred and weighed on its own; short ones are left alone."""
    info = model_info(native=3)
    q, k, v = random_qkv(5 * TOKENS, batch=4)
    attend = patch_of(UltraViCo(alpha=0.7), 3, 20).logits(site_of(info, 20), Layer().attend)
    got = attend(q, k, v, Dense())[0]
    for b in range(4):
        own = tuple(t[b : b + 1] for t in (q, k, v))
        assert torch.allclose(got[b : b + 1], dense(*own, factors(5, 3, 0.7, 0.7, 0, 0)), atol=1e-5)
    layer = Layer()
    q, k, v = random_qkv(3 * TOKENS, batch=4)
    patch_of(UltraViCo(), 3, 20).logits(site_of(info, 20), layer.attend)(q, k, v, Dense())
    assert layer.plans == [Dense()]


def test_first_frame_of_wan_sees_the_trained_window_alone() -> None:
    info = model_info(native=3, family="wan")
    q, k, v = random_qkv(9 * TOKENS)
    site = site_of(info, 9)
    got = run_attention(UltraViCo().fit(info).patch(view_of(info, 9)), q, k, v, site)
    lam = factors(9, 3, 0.9, 0.9, 0, 0)
    open_ = run_attention(UltraViCo(first_frame=False).fit(info).patch(view_of(info, 9)), q, k, v, site)
    assert torch.allclose(open_, dense(q, k, v, lam), atol=1e-5)
    assert torch.allclose(got[:, TOKENS:], open_[:, TOKENS:], atol=1e-6)
    mean, near = k.double().mean(1, keepdim=True), 3 * TOKENS
    first = dense(
        q[:, :TOKENS], (k - mean)[:, :near].float(), v[:, :near], torch.ones(TOKENS, near)
    )  # recentring: no-op
    far = factors(9, 3, 0.9, 0.9, 0, 0)[:TOKENS, :near]
    logits = torch.einsum("bqnd,bknd->bnqk", q[:, :TOKENS].double(), (k - mean)[:, :near]) * far / math.sqrt(8)
    wanted = torch.einsum("bnqk,bknd->bqnd", logits.softmax(-1), v[:, :near].double()).float()
    assert torch.allclose(got[:, :TOKENS], wanted, atol=1e-5)
    assert not torch.allclose(got[:, :TOKENS], first, atol=1e-5)  # α acts inside the trained window, too


@pytest.mark.parametrize("family, stretch, alpha, beta", [
    ("wan", 3, 0.9, 0.9), ("hunyuan", 2, 0.95, 0.6), ("hunyuan", 3, 0.9, 0.6), ("hunyuan15", 4, 0.9, 0.8),
    ("cogvideox", 2, 0.9, 0.6), ("cogvideox", 4, 0.85, 0.6), ("ltx", 4, 0.9, 0.9),
])  # fmt: skip
def test_published_factors(family: str, stretch: float, alpha: float, beta: float) -> None:
    decay = published(family, stretch)
    assert (decay.alpha, decay.beta) == (alpha, beta)


def test_published_zones() -> None:
    decay = published("hunyuan", 2)
    assert [d for d in range(17, 120) if decay.at(d) == decay.beta] == [*range(46, 55), *range(96, 105)]


def test_no_op_within_the_trained_window_and_notes() -> None:
    info = model_info(native=3)
    assert patch_of(UltraViCo(), 3, 3).empty and not patch_of(UltraViCo(), 3, 4).empty
    assert "no-op" in UltraViCo().notes(3, info)[0]
    assert "× 0.9 beyond ±1" in UltraViCo().notes(9, info)[0]


# ------------------------------------------------------------------------------------------------------- token by token


def token_factors(
    logits: Tensor, frames: int, native: int, alpha: float, beta: float, gamma: int, period: int
) -> Tensor:
    """λ_ij [.., S, S] of the public code: token distances, the sign test, zones in frames; pair by pair."""
    lam = torch.ones_like(logits)
    for i in range(frames * TOKENS):
        for j in range(frames * TOKENS):
            if abs(i - j) > native * TOKENS / 2:
                d = abs(i // TOKENS - j // TOKENS)
                near = period and any(abs(d - m * period) <= gamma for m in range(1, d + gamma + 1))
                lam[..., i, j] = torch.where(logits[..., i, j] < 0, 1.0, beta if near else alpha)
    return lam


def exactly(
    q: Tensor, k: Tensor, v: Tensor, frames: int, native: int, zones: tuple[float, float, int, int],
    text: tuple[Tensor, Tensor] | None = None, first: bool = False,
) -> Tensor:  # fmt: skip
    q, k, v = q.double(), k.double(), v.double()
    mean = k.mean(1, keepdim=True)
    logits = torch.einsum("bqnd,bknd->bnqk", q, k - mean)
    logits = logits * token_factors(logits, frames, native, *zones)
    if first:
        logits[:, :, :TOKENS, native * TOKENS :] = -math.inf
    logits = logits + torch.einsum("bqnd,bknd->bnqk", q, mean)
    if text is not None:
        logits = torch.cat([logits, torch.einsum("bqnd,bknd->bnqk", q, text[0].double())], -1)
        v = torch.cat([v, text[1].double()], 1)
    return torch.einsum("bnqk,bknd->bqnd", (logits / math.sqrt(q.shape[-1])).softmax(-1), v).float()


ZONES = (0.8, 0.5, 1, 5)
EXACT = {"mode": "exact", "alpha": 0.8, "beta": 0.5, "gamma": 1, "period": 5}


@pytest.fixture(params=["sdpa", "sdpa-math", "flex"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """On a CPU FlexAttention runs uncompiled here, which is the same arithmetic."""
    monkeypatch.setattr(flex, "compiled", lambda: eager.flex_attention)
    monkeypatch.setattr(eager, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    return engine_of(request.param)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("frames, native", [(4, 3), (9, 3), (13, 4)])
def test_exact_mode_equals_the_token_form(engine: Any, frames: int, native: int, joint: bool) -> None:
    q, k, v = random_qkv(frames * TOKENS, batch=2, dim=16)
    k = k + 1.0
    text = tuple(random_qkv(5, batch=2, dim=16, seed=1)[:2]) if joint else None
    site = site_of(model_info(native=native), frames)
    attend = patch_of(UltraViCo(**EXACT), native, frames).logits(site, engine.attend)
    attend = with_text(attend, *text) if text else attend
    got = attend(q, k, v, Dense())[0]
    assert torch.allclose(got, exactly(q, k, v, frames, native, ZONES, text), atol=2e-5)


def test_exact_mode_hides_far_keys_from_the_first_frame(engine: Any) -> None:
    info = model_info(native=3, family="wan")
    q, k, v = random_qkv(9 * TOKENS, dim=16)
    attend = UltraViCo(mode="exact").fit(info).patch(view_of(info, 9)).logits(site_of(info, 9), engine.attend)
    assert torch.allclose(attend(q, k, v, Dense())[0], exactly(q, k, v, 9, 3, (0.9, 0.9, 0, 0), first=True), atol=2e-5)


def test_both_modes_agree_where_the_paper_says_that_they_should() -> None:
    """With factors of one both are plain attention; else they differ by the edge of the window and by signs."""
    q, k, v = random_qkv(12 * TOKENS)
    site = site_of(model_info(native=4), 12)

    def run_mode(mode: str, alpha: float) -> Tensor:
        patch = patch_of(UltraViCo(mode=mode, alpha=alpha), 4, 12)
        return patch.logits(site, engine_of("sdpa").attend)(q, k, v, Dense())[0]

    plain = engine_of("sdpa").attend(q, k, v, Dense())[0]
    for mode in ("merge", "exact"):
        assert torch.allclose(run_mode(mode, 1.0), plain, atol=1e-5)
    apart = float((run_mode("merge", 0.9) - run_mode("exact", 0.9)).abs().max())
    assert 1e-4 < apart < float((run_mode("merge", 0.5) - plain).abs().max())


@pytest.mark.parametrize("name", ["sdpa-flash", "varlen", "xformers"])
def test_engines_that_cannot_change_logits_refuse_in_one_line(name: str) -> None:
    q, k, v = random_qkv(9 * TOKENS)
    attend = patch_of(UltraViCo(mode="exact"), 3, 9).logits(site_of(model_info(native=3), 9), engine_of(name).attend)
    with pytest.raises(BadInput, match=f"engine {name} does not serve TokenDecay plans .--attention flex") as caught:
        attend(q, k, v, Dense())
    assert "\n" not in str(caught.value)


def test_token_plans_pass_every_self_test_and_count_as_dense() -> None:
    device = torch.device("cpu")
    assert engine_of("sdpa").probe(device, torch.float32, 16) is None
    assert engine_of("sdpa-math").probe(device, torch.float32, 16) is None
    assert pairs(TokenDecay(2, 3, 0.9, 0.9), 20, 20) == 400


def test_refusals() -> None:
    q, k, v = random_qkv(9 * TOKENS)
    attend = patch_of(UltraViCo(), 3, 9).logits(site_of(model_info(native=3), 9), Layer().attend)
    with pytest.raises(BadInput, match="dense attention"):
        attend(q, k, v, FrameWindow(TOKENS, ((0, 9),) * 9))
    with pytest.raises(BadInput, match=r"needs ultravico\.period"):
        UltraViCo(beta=0.5).check(9, model_info(native=3))
