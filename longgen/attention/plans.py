"""Which keys a query sees, carried out by any dense kernel: windows, gathers, unions, log-sum-exp merges.

Knows plans and tensors. Does not know kernels: each is a function (q, k, v, scale) → (out, lse) on
[B, S, N, D] tensors. Nothing here allocates a tensor that grows with S²; windows are views of the keys, never copies.

Letters: B batch, Sq Sk query and key tokens, N heads, D head dim, P tokens per latent frame, U window in latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from longgen.core.merge import Part, merge
from longgen.errors import BadInput
from longgen.types import Dense, FrameGather, FrameWindow, Plan, TokenDecay, Union

# kernel(q [B, Sq, N, D], k, v [B, Sk, N, D], scale) → out [B, Sq, N, D], lse [B, N, Sq]; `scale` multiplies 1/√D.
Kernel = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]

# A gathered key copy holds at most this many times the elements of k itself; more query frames go to the next call.
GATHER_COPIES = 4
# Frames that every query frame sees are copied once for all and merged, when there are at least this many of them: a
# merge moves about 28 bytes per query channel (bf16), each copied key frame 8.
GATHER_COMMON = 4


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type in which log-sum-exps are kept and merged: fp32, or fp64 for fp64 inputs."""
    return torch.promote_types(dtype, torch.float32)


def run(kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float = 1.0) -> Part:
    """Carry out a plan with a dense kernel.

    Args:
        q: [B, Sq, N, D]; k, v: [B, Sk, N, D].
        scale: multiplies the logits beside the usual 1/√D.

    Returns:
        out [B, Sq, N, D] in q's dtype, lse [B, N, Sq] in fp32: the natural log of the softmax denominator of the scaled
        logits.

    Raises:
        BadInput: the plan does not fit the number of tokens.
    """
    if isinstance(plan, Dense):
        return kernel(q, k, v, scale) if k.shape[1] else nothing(q)
    if isinstance(plan, Union):
        return merge([run(kernel, q, k, v, p, scale * s) for p, s in zip(plan.parts, plan.scales, strict=True)])
    if isinstance(plan, TokenDecay):
        raise BadInput("a kernel of its own is needed for TokenDecay plans")
    check(plan, q.shape[1], k.shape[1])
    if isinstance(plan, FrameWindow):
        return _windows(kernel, q, k, v, plan, scale)
    return _gather(kernel, q, k, v, plan, scale)


def decayed(logits: Tensor, plan: TokenDecay, first: int = 0) -> Tensor:
    """Logits [..., rows, Sk] of the query tokens from `first` on, scaled and hidden as the plan says."""
    q = torch.arange(first, first + logits.shape[-2], device=logits.device)[:, None]
    k = torch.arange(logits.shape[-1], device=logits.device)
    return decay(logits, q, k, plan)


def decay(logits: Tensor, q: Tensor, k: Tensor, plan: TokenDecay) -> Tensor:
    """The same for the pairs of query tokens q and key tokens k, in any shapes that broadcast."""
    factor: Tensor | float = plan.alpha
    if plan.period:
        apart = (q // plan.tokens - k // plan.tokens).abs()
        offset = apart % plan.period
        beside = (offset <= plan.gamma) | (plan.period - offset <= plan.gamma)
        factor = torch.where(beside & (apart >= plan.period - plan.gamma), plan.beta, plan.alpha)
    scaled = torch.where(((q - k).abs() > plan.reach) & (logits > 0), logits * factor, logits)
    if not plan.hidden:
        return scaled
    return torch.where((q < plan.tokens) & (k >= plan.hidden * plan.tokens), float("-inf"), scaled)


def nothing(q: Tensor) -> Part:
    """The result of queries [B, S, N, D] that see no key: out 0, lse −∞."""
    lse = q.new_full((q.shape[0], q.shape[2], q.shape[1]), float("-inf"), dtype=wide(q.dtype))
    return torch.zeros_like(q), lse


def check(plan: FrameWindow | FrameGather, queries: int, keys: int) -> None:
    """Raise BadInput when the frames of a plan do not fit the tokens."""
    rows = plan.spans if isinstance(plan, FrameWindow) else plan.sets
    if len(rows) * plan.tokens != queries or keys % plan.tokens:
        raise BadInput(
            f"plan of {len(rows)} query frames × {plan.tokens} tokens does not fit {queries} queries and {keys} keys"
        )
    frames = keys // plan.tokens
    bad: tuple[int, ...] | None
    if isinstance(plan, FrameWindow):
        bad = next((s for s in plan.spans if not 0 <= s[0] <= s[1] <= frames), None)
    else:
        bad = next((s for s in plan.sets if any(not 0 <= j < frames for j in s)), None)
        if len({len(s) for s in plan.sets}) > 1:
            raise BadInput("the sets of a gather plan must all have one size")
    if bad is not None:
        raise BadInput(f"plan names key frames {bad}, but only frames 0 … {frames - 1} exist")


# ----------------------------------------------------------------------------------------------------------- windows


@dataclass(frozen=True)
class Segment:
    """`count` windows in a row: window w holds `size` query frames from query + w·size and sees `keys` key frames from
    start + w·step."""

    query: int
    size: int
    start: int
    keys: int
    count: int = 1
    step: int = 1


def segments(spans: Sequence[tuple[int, int]]) -> list[Segment]:
    """Fewest calls that serve these spans: equal spans share their queries, evenly moving ones share a batch.

    >>> segments([(0, 3), (0, 3), (1, 4), (2, 5), (2, 5)])  # doctest: +NORMALIZE_WHITESPACE
    [Segment(query=0, size=2, start=0, keys=3, count=1, step=1),
     Segment(query=2, size=1, start=1, keys=3, count=1, step=1),
     Segment(query=3, size=2, start=2, keys=3, count=1, step=1)]
    >>> segments([(0, 3), (1, 4), (2, 5)])
    [Segment(query=0, size=1, start=0, keys=3, count=3, step=1)]
    """
    bounds = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(spans)) if a != b), len(spans)]
    runs = [Segment(a, b - a, spans[a][0], spans[a][1] - spans[a][0]) for a, b in pairwise(bounds) if b > a]
    batched: list[Segment] = []
    for now in runs:
        last = batched[-1] if batched else None
        if last is not None and (last.size, last.keys) == (now.size, now.keys) and now.keys > 0:
            move = now.start - (last.start + (last.count - 1) * last.step)
            if move > 0 and (last.count == 1 or move == last.step):
                batched[-1] = Segment(last.query, last.size, last.start, last.keys, last.count + 1, move)
                continue
        batched.append(now)
    return batched


def varlen(plan: FrameWindow, batch: int, keys: int) -> tuple[list[int], list[int], list[int]]:
    """The plan as ragged blocks over a flattened batch: per block its query tokens, first key token and key tokens.

    Args:
        batch, keys: B and Sk of the keys; entry b's tokens begin at b·Sk.

    >>> varlen(FrameWindow(2, ((0, 2), (0, 2), (1, 3))), 2, 6)
    ([4, 2, 4, 2], [0, 2, 6, 8], [4, 4, 4, 4])
    """
    p = plan.tokens
    blocks = [
        (s.size * p, s.start * p + w * s.step * p, s.keys * p) for s in segments(plan.spans) for w in range(s.count)
    ]
    queries, starts, lengths = (list(x) for x in zip(*blocks))
    return queries * batch, [b * keys + s for b in range(batch) for s in starts], lengths * batch


def views(x: Tensor, tokens: int, first: int, size: int, count: int, step: int) -> Tensor:
    """`count` windows of `size` frames of x [S, N, D], `step` frames apart, as a batch [count, size·P, N, D].

    Zero-copy: neighbouring windows share memory, only the batch stride (step·P tokens) is new. `as_strided`, because
    torch's compiler copies the windows of an `unfold` out one by one.
    """
    token, head, channel = x.stride()
    shape = (count, size * tokens, *x.shape[1:])
    return x[first * tokens :].as_strided(shape, (step * tokens * token, token, head, channel))


def _windows(kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, plan: FrameWindow, scale: float) -> Part:
    """Every segment is one call of the kernel, or one per batch entry where windows overlap in memory."""
    done = [_segment(kernel, q, k, v, plan.tokens, s, scale) for s in segments(plan.spans)]
    return _join(done)


def _segment(kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, p: int, s: Segment, scale: float) -> Part:
    queries = q[:, s.query * p : (s.query + s.count * s.size) * p]
    if s.keys == 0:
        return nothing(queries)
    if s.count == 1:
        keys = slice(s.start * p, (s.start + s.keys) * p)
        return kernel(queries, k[:, keys], v[:, keys], scale)
    rows = []
    for qb, kb, vb in zip(queries, k, v):  # overlapping windows of several entries do not form one strided batch
        window = (p, s.start, s.keys, s.count, s.step)
        out, lse = kernel(qb.unflatten(0, (s.count, s.size * p)), views(kb, *window), views(vb, *window), scale)
        rows.append(_unbatch(out, lse))
    return torch.stack([o for o, _ in rows]), torch.stack([e for _, e in rows])


def _unbatch(out: Tensor, lse: Tensor) -> Part:
    """[count, s, N, D], [count, N, s] → [count·s, N, D], [N, count·s]."""
    return out.flatten(0, 1), lse.transpose(0, 1).flatten(1, 2)


def _join(parts: Sequence[Part]) -> Part:
    """Results of neighbouring queries, one after the other."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat([o for o, _ in parts], 1), torch.cat([e for _, e in parts], 2)


def _gather(kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, plan: FrameGather, scale: float) -> Part:
    """Key frames are copied together per query frame, a bounded number of query frames at a time."""
    p, size = plan.tokens, len(plan.sets[0]) if plan.sets else 0
    if size == 0:
        return nothing(q)
    ranges = [(min(s), max(s) + 1) for s in plan.sets]
    if all(b - a == size == len(set(s)) for (a, b), s in zip(ranges, plan.sets)):
        return _windows(kernel, q, k, v, FrameWindow(p, tuple(ranges)), scale)
    common = set(plan.sets[0]).intersection(*plan.sets)
    if len(common) >= GATHER_COMMON:
        index = torch.tensor(sorted(common), device=k.device)
        keys, values = (x.unflatten(1, (-1, p)).index_select(1, index).flatten(1, 2) for x in (k, v))
        rest = FrameGather(p, tuple(tuple(j for j in s if j not in common) for s in plan.sets))
        return merge([kernel(q, keys, values, scale), _gather(kernel, q, k, v, rest, scale)])
    n = max(1, GATHER_COPIES * (k.shape[1] // p) // size)
    done = [
        _gathered(kernel, q[:, a * p : (a + n) * p], k, v, p, plan.sets[a : a + n], scale)
        for a in range(0, len(plan.sets), n)
    ]
    return _join(done)


def _gathered(
    kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, p: int, sets: tuple[tuple[int, ...], ...], scale: float
) -> Part:
    index = torch.tensor(sets, device=k.device).flatten()
    rows = []
    for qb, kb, vb in zip(q, k, v):
        keys, values = (
            x.unflatten(0, (-1, p)).index_select(0, index).unflatten(0, (len(sets), -1)).flatten(1, 2) for x in (kb, vb)
        )  # [query frames, set·P, N, D]
        rows.append(_unbatch(*kernel(qb.unflatten(0, (len(sets), p)), keys, values, scale)))
    return torch.stack([o for o, _ in rows]), torch.stack([e for _, e in rows])
