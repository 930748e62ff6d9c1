"""Dense masked attention in fp32, written without a line of the code under test, and random geometries."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from longgen.types import Dense, FrameGather, FrameWindow, Plan, Union


def frame_mask(plan: Plan, queries: int, keys: int) -> Tensor:
    """[Sq, Sk] bool: which token sees which, spelled out token by token."""
    if isinstance(plan, Dense):
        return torch.ones(queries, keys, dtype=torch.bool)
    assert isinstance(plan, FrameWindow | FrameGather)
    mask = torch.zeros(queries, keys, dtype=torch.bool)
    for qt in range(queries):
        for kt in range(keys):
            i, j = qt // plan.tokens, kt // plan.tokens
            if isinstance(plan, FrameWindow):
                mask[qt, kt] = plan.spans[i][0] <= j < plan.spans[i][1]
            else:
                mask[qt, kt] = j in plan.sets[i]
    return mask


def bias(plan: Plan, queries: int, keys: int, scale: float) -> tuple[Tensor, Tensor]:
    """Per (query, key): the factor on the logit, and whether the key is seen."""
    if isinstance(plan, Union):
        factor, seen = torch.ones(queries, keys), torch.zeros(queries, keys, dtype=torch.bool)
        for part, s in zip(plan.parts, plan.scales):
            f, m = bias(part, queries, keys, scale * s)
            assert not (m & seen).any(), "parts of a union must be disjoint"
            factor, seen = torch.where(m, f, factor), seen | m
        return factor, seen
    return torch.full((queries, keys), scale), frame_mask(plan, queries, keys)


def dense(q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """out [B, Sq, N, D], lse [B, N, Sq] by one masked softmax over S × S logits."""
    factor, seen = bias(plan, q.shape[1], k.shape[1], scale)
    logits = torch.einsum("bqnd,bknd->bnqk", q.double(), k.double()) / q.shape[-1] ** 0.5
    logits = (logits * factor).masked_fill(~seen, float("-inf"))
    weights = logits.softmax(-1).nan_to_num(0.0)
    return torch.einsum("bnqk,bknd->bqnd", weights, v.double()).float(), logits.logsumexp(-1).float()


@st.composite
def window_plans(draw: st.DrawFn, frames: int, tokens: int) -> FrameWindow:
    """Sliding windows as the methods use them, or any spans at all, empty ones included."""
    if draw(st.booleans()):
        u, shift = draw(st.integers(1, frames)), draw(st.integers(0, frames))
        starts = [min(max(i - shift, 0), frames - u) for i in range(frames)]
        return FrameWindow(tokens, tuple((s, s + u) for s in starts))
    spans = st.tuples(st.integers(0, frames), st.integers(0, frames)).map(lambda s: (min(s), max(s)))
    return FrameWindow(tokens, tuple(draw(st.lists(spans, min_size=frames, max_size=frames))))


@st.composite
def gather_plans(draw: st.DrawFn, frames: int, tokens: int) -> FrameGather:
    size = draw(st.integers(0, frames))
    rows = st.permutations(range(frames)).map(lambda r: tuple(r[:size]))
    return FrameGather(tokens, tuple(draw(st.lists(rows, min_size=frames, max_size=frames))))


@st.composite
def union_plans(draw: st.DrawFn, frames: int, tokens: int) -> Union:
    """A window before a cut and one after it: disjoint for every query frame."""
    cuts = draw(st.lists(st.integers(0, frames), min_size=frames, max_size=frames))
    lows = [draw(st.integers(0, c)) for c in cuts]
    highs = [draw(st.integers(c, frames)) for c in cuts]
    factor = st.floats(0.1, 2.0)
    return Union(
        (FrameWindow(tokens, tuple(zip(lows, cuts))), FrameWindow(tokens, tuple(zip(cuts, highs)))),
        (draw(factor), draw(factor)),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Plan, float]:
    """q, k, v [B, S, N, D] with odd strides, a plan that fits, and a scale."""
    frames, tokens = draw(st.integers(1, 9)), draw(st.integers(1, 6))
    b, n, d = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.sampled_from([8, 16]))
    plan: Plan = draw(
        st.one_of(
            st.just(Dense()),
            window_plans(frames, tokens),
            gather_plans(frames, tokens),
            union_plans(frames, tokens),
        )
    )
    seed = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    fused = torch.randn(b, frames * tokens, 3, n, d, generator=seed)
    if draw(st.booleans()):  # heads before tokens, as some models lay them out
        fused = fused.transpose(1, 3).contiguous().transpose(1, 3)
    q, k, v = fused.unbind(2)
    return q, k, v, plan, draw(st.floats(0.2, 2.0))
