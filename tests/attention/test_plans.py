"""Every plan equals one masked softmax; windows are views; nothing grows with S²."""

from __future__ import annotations

from typing import Any

import dense_reference as reference
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from longgen.attention import attend, merge, sdpa, with_text
from longgen.attention.plans import run, segments, views
from longgen.errors import BadInput
from longgen.types import Dense, FrameGather, FrameWindow, Plan, Union

KERNELS = {"cpu": sdpa.cpu, "math": sdpa.math, "auto": sdpa.auto}
TIGHT = {"rtol": 1e-5, "atol": 1e-5}


def qkv(b: int, s: int, n: int = 2, d: int = 16, seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(b, s, n, d, generator=draw) for _ in range(3)]


def sliding(frames: int, u: int, tokens: int) -> FrameWindow:
    starts = [min(max(i - u // 2, 0), frames - u) for i in range(frames)]
    return FrameWindow(tokens, tuple((s, s + u) for s in starts))


class Sizes(TorchDispatchMode):
    """Remembers the largest storage, in elements, that any operator returned."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, Tensor):
                self.most = max(self.most, x.untyped_storage().nbytes() // x.element_size())
        return out


@pytest.mark.parametrize("kernel", KERNELS)
@given(case=reference.cases())
@settings(max_examples=60, deadline=None)
def test_every_plan_is_one_masked_softmax(kernel: str, case: Any) -> None:
    q, k, v, plan, scale = case
    out, lse = run(KERNELS[kernel], q, k, v, plan, scale)
    want, want_lse = reference.dense(q, k, v, plan, scale)
    assert out.shape == q.shape and lse.dtype == torch.float32
    torch.testing.assert_close(out, want, **TIGHT)
    torch.testing.assert_close(lse, want_lse, **TIGHT)


@given(frames=st.integers(1, 40), u=st.integers(1, 40))
@settings(max_examples=80, deadline=None)
def test_sliding_windows_take_at_most_three_calls(frames: int, u: int) -> None:
    u = min(u, frames)
    parts = segments(sliding(frames, u, 1).spans)
    assert len(parts) <= 3
    assert sum(s.count * s.size for s in parts) == frames


def test_windows_are_views_of_the_keys() -> None:
    _, k, _ = qkv(1, 12 * 5)
    windows = views(k[0], 5, 1, 4, 7, 1)
    assert windows.shape == (7, 20, 2, 16)
    assert windows.untyped_storage().data_ptr() == k.untyped_storage().data_ptr()
    for w in range(7):
        assert torch.equal(windows[w], k[0, (1 + w) * 5 : (5 + w) * 5])


@pytest.mark.parametrize(
    "plan",
    [
        sliding(32, 5, 16),
        FrameGather(16, tuple((0, i, (i + 7) % 32) if i not in (0, 25) else (0, 5, 9) for i in range(32))),
        Union((FrameWindow(16, ((0, 2),) * 32), FrameWindow(16, ((2, 6),) * 32)), (1.0, 0.5)),
    ],
)
def test_no_tensor_grows_with_the_square_of_the_length(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdpa, "MATH_BUDGET", 1 << 14)
    q, k, v = qkv(1, 32 * 16, n=1, d=8)
    for kernel in (sdpa.cpu, sdpa.math):
        with Sizes() as sizes:
            run(kernel, q, k, v, plan)
        assert 0 < sizes.most < (32 * 16) ** 2 / 8


def test_half_precision_keeps_an_fp32_log_sum_exp() -> None:
    q, k, v = (x.bfloat16() for x in qkv(2, 24))
    plan = sliding(6, 3, 4)
    out, lse = attend(q, k, v, plan)
    want, want_lse = reference.dense(q, k, v, plan)
    assert out.dtype == torch.bfloat16 and lse.dtype == torch.float32
    torch.testing.assert_close(out.float(), want, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(lse, want_lse, rtol=1e-2, atol=1e-2)


def test_merge_of_nothing_is_nothing() -> None:
    q, k, v = qkv(1, 8)
    empty = attend(q, k, v, FrameWindow(4, ((1, 1), (0, 0))))
    out, lse = merge([empty, empty])
    assert torch.equal(out, torch.zeros_like(q)) and bool(torch.isneginf(lse).all())
    full = attend(q, k, v, Dense())
    torch.testing.assert_close(merge([empty, full, empty])[0], full[0])


@given(b=st.integers(1, 2), windows=st.integers(1, 3), text=st.integers(1, 5), hide=st.booleans())
@settings(max_examples=40, deadline=None)
def test_text_joins_every_softmax(b: int, windows: int, text: int, hide: bool) -> None:
    """Reference: the same softmax over the concatenated keys, one window and one entry at a time."""
    q, k, v = qkv(b * windows, 6 * 4)
    _, tk, tv = qkv(b, text, seed=1)
    mask = torch.ones(b, text, dtype=torch.bool)
    if hide:
        mask[0, : text // 2] = False
    out, lse = with_text(attend, tk, tv, mask if hide else None)(q, k, v, sliding(6, 3, 4), 0.7)
    for row in range(b * windows):
        keep = mask[row // windows]
        keys = torch.cat([k[row : row + 1] * 0.7, tk[row // windows][keep][None]], 1)
        values = torch.cat([v[row : row + 1], tv[row // windows][keep][None]], 1)
        seen = torch.cat([reference.frame_mask(sliding(6, 3, 4), 24, 24), torch.ones(24, int(keep.sum())) > 0], 1)
        logits = torch.einsum("qnd,knd->nqk", q[row], keys[0]) / 4
        logits = logits.masked_fill(~seen, float("-inf"))
        torch.testing.assert_close(out[row], torch.einsum("nqk,knd->qnd", logits.softmax(-1), values[0]), **TIGHT)
        torch.testing.assert_close(lse[row], logits.logsumexp(-1), **TIGHT)


def test_wholly_masked_text_changes_nothing() -> None:
    q, k, v = qkv(2, 8)
    _, tk, tv = qkv(2, 3, seed=1)
    mask = torch.tensor([[False] * 3, [True] * 3])
    out, _ = with_text(attend, tk, tv, mask)(q, k, v, Dense())
    torch.testing.assert_close(out[0], attend(q, k, v, Dense())[0][0])
    assert not torch.allclose(out[1], attend(q, k, v, Dense())[0][1])


@pytest.mark.parametrize(
    ("plan", "word"),
    [
        (FrameWindow(4, ((0, 1),)), "does not fit"),
        (FrameWindow(4, ((0, 1), (1, 3))), "only frames 0 … 1"),
        (FrameWindow(3, ((0, 1), (1, 2))), "does not fit"),
        (FrameGather(4, ((0,), (5,))), "only frames 0 … 1"),
        (FrameGather(4, ((0,), (0, 1))), "one size"),
    ],
)
def test_plans_that_do_not_fit_are_refused(plan: Plan, word: str) -> None:
    with pytest.raises(BadInput, match=word):
        attend(*qkv(1, 8), plan)


def test_text_of_another_batch_is_refused() -> None:
    _, tk, tv = qkv(2, 3)
    with pytest.raises(BadInput, match="evenly"):
        with_text(attend, tk, tv)(*qkv(3, 8), Dense())
