"""Engines whose kernels need a GPU, with the kernel replaced by a literal reading of its documentation.

What is tested is ours: biases, block tables, offsets, layouts of log-sum-exps. The kernels themselves are tested by the
self-test that every engine passes before it serves (and by tests/gpu on a GPU).
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import dense_reference as reference
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import flex_attention as torch_flex
from torch.nn.attention import varlen as torch_varlen

from longgen.attention import flex, xformers
from longgen.attention.flash import Flash2, Flash3
from longgen.attention.sage import Sage
from longgen.attention.varlen import Varlen
from longgen.errors import BadInput
from longgen.types import Dense, FrameWindow, Plan

TIGHT = {"rtol": 1e-5, "atol": 1e-5}
MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def softmax(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """[.., S, N, D] textbook attention and its log-sum-exp [.., N, S]."""
    logits = torch.einsum("...qnd,...knd->...nqk", q, k) * scale + bias
    return torch.einsum("...nqk,...knd->...qnd", logits.softmax(-1), v), logits.logsumexp(-1)


def agrees(engine: Any, case: Any) -> None:
    q, k, v, plan, scale = case
    out, lse = engine.attend(q, k, v, plan, scale)
    want, want_lse = reference.dense(q, k, v, plan, scale)
    torch.testing.assert_close(out, want, **TIGHT)
    torch.testing.assert_close(lse, want_lse, **TIGHT)


# ---------------------------------------------------------------------------------------------------------- xformers


def materialised(q: Tensor, k: Tensor, v: Tensor, attn_bias: Any = None, *, scale: float) -> tuple[Tensor, Tensor]:
    """memory_efficient_attention_partial over xformers' own materialisation of its bias."""
    bias = 0.0 if attn_bias is None else attn_bias.materialize((q.shape[1], k.shape[1]))
    return softmax(q, k, v, scale, bias)


@given(case=reference.cases())
@MANY
def test_xformers_bias_is_the_plan(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xformers.fmha(), "memory_efficient_attention_partial", materialised)
    agrees(xformers.Xformers(), case)


def test_overlapping_windows_are_one_gappy_bias() -> None:
    plan = FrameWindow(3, ((0, 2), (0, 2), (1, 3), (2, 4)))
    bias = xformers.window_bias(plan, 2, 12, torch.device("cpu"))
    assert type(bias).__name__ == "BlockDiagonalGappyKeysMask"
    one = reference.frame_mask(plan, 12, 12)
    assert torch.equal(bias.materialize((24, 24)) == 0, torch.block_diag(one.float(), one.float()).bool())


# ------------------------------------------------------------------------------------------------------------ varlen


def documented_varlen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    return_aux: Any,
    scale: float,
    seqused_k: Tensor,
) -> tuple[Tensor, Tensor]:
    assert cu_q.dtype == cu_k.dtype == seqused_k.dtype == torch.int32 and return_aux.lse
    assert len(cu_q) == len(cu_k) == len(seqused_k) + 1 and int(cu_q[-1]) == len(q)
    assert max_q == int(cu_q.diff().max()) and max_k == int(seqused_k.max())
    rows = []
    for b in range(len(seqused_k)):
        keys = slice(int(cu_k[b]), int(cu_k[b]) + int(seqused_k[b]))
        assert keys.stop <= len(k)
        rows.append(softmax(q[int(cu_q[b]) : int(cu_q[b + 1])], k[keys], v[keys], scale))
    return torch.cat([o for o, _ in rows]), torch.cat([e for _, e in rows], 1)


@given(case=reference.cases())
@MANY
def test_varlen_blocks_are_the_plan(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_varlen, "varlen_attn", documented_varlen)
    agrees(Varlen(), case)


# -------------------------------------------------------------------------------------------------------------- flex


@given(case=reference.cases())
@MANY
def test_flex_masks_are_the_plan(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "compiled", lambda: torch_flex.flex_attention)  # tiny, so eager S × S does no harm
    agrees(flex.Flex(), case)


@given(data=st.data(), frames=st.integers(1, 9), tokens=st.integers(1, 9))
@MANY
def test_flex_blocks_cover_the_plan_and_no_more(
    data: st.DataObject, frames: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full blocks hold seen pairs only; what is in no block at all is unseen; every block is listed once."""
    monkeypatch.setattr(flex, "BLOCK", 8)
    plans = st.one_of(reference.window_plans(frames, tokens), reference.gather_plans(frames, tokens))
    plan = data.draw(plans)
    flex.block_mask.cache_clear()  # BLOCK is no key of it
    made = flex.block_mask(plan, frames, torch.device("cpu"))
    flex.block_mask.cache_clear()
    seen = reference.frame_mask(plan, frames * tokens, frames * tokens)
    for row in range(made.kv_num_blocks.shape[-1]):
        part = made.kv_indices[0, 0, row, : made.kv_num_blocks[0, 0, row]].tolist()
        full = made.full_kv_indices[0, 0, row, : made.full_kv_num_blocks[0, 0, row]].tolist()
        assert len({*part, *full}) == len(part) + len(full)
        for column in range(made.kv_indices.shape[-1]):
            tile = seen[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
            assert bool(tile.all()) == (column in full)
            assert bool(tile.any()) == (column in full or column in part)


@pytest.mark.slow
def test_flex_compiled_on_a_cpu_equals_the_reference() -> None:
    """Without the log-sum-exp, which torch's CPU kernel lacks (and for which the engine refuses CPUs)."""
    plan = FrameWindow(48, tuple((max(0, i - 2), min(8, i + 3)) for i in range(8)))
    q, k, v = (torch.randn(1, 8 * 48, 2, 16, generator=torch.Generator().manual_seed(i)) for i in range(3))
    mask = flex.block_mask(plan, 8, torch.device("cpu"))
    out = flex.compiled()(*(x.transpose(1, 2) for x in (q, k, v)), block_mask=mask).transpose(1, 2)
    torch.testing.assert_close(out, reference.dense(q, k, v, plan)[0], **TIGHT)


# ---------------------------------------------------------------------------------------------------- flash and sage


def flash_module(extra: int) -> ModuleType:
    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, *, softmax_scale: float, return_attn_probs: bool) -> Any:
        assert return_attn_probs and all(x.stride(-1) == 1 for x in (q, k, v))
        return (*softmax(q, k, v, softmax_scale), *[None] * extra)

    module = ModuleType("flash")
    module.flash_attn_func = flash_attn_func  # type: ignore[attr-defined]
    return module


@given(case=reference.cases())
@MANY
def test_flash_packages_serve_every_plan(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", flash_module(1))
    monkeypatch.setitem(sys.modules, "flash_attn_interface", flash_module(0))
    case = (*(x.contiguous() for x in case[:3]), *case[3:])
    agrees(Flash2(), case)
    agrees(Flash3(), case)


def test_sage_serves_dense_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def sageattn(
        q: Tensor, k: Tensor, v: Tensor, *, tensor_layout: str, is_causal: bool, sm_scale: float, return_lse: bool
    ) -> tuple[Tensor, Tensor]:
        assert tensor_layout == "NHD" and not is_causal and return_lse
        return softmax(q, k, v, sm_scale)

    module = ModuleType("sageattention")
    module.sageattn = sageattn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sageattention", module)
    q, k, v = torch.randn(3, 1, 12, 2, 64, generator=torch.Generator().manual_seed(0))
    agrees(Sage(), (q, k, v, Dense(), 1.3))
    window: Plan = FrameWindow(4, ((0, 1), (1, 2), (1, 3)))
    with pytest.raises(BadInput, match="sage does not serve FrameWindow"):
        Sage().attend(q, k, v, window)
