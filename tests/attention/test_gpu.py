"""On a GPU: every engine that says it works serves random plans, views are not copied, windows cost their share."""

from __future__ import annotations

import dense_reference as reference
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longgen import registry
from longgen.attention import choose, sdpa, table
from longgen.attention.engine import TOLERANCE, Engine
from longgen.bench.attention import measure, sliding
from longgen.types import Dense, Plan

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]
GPU = torch.device("cuda")


def served(name: str, head_dim: int) -> Engine:
    row = next(r for r in table(GPU, head_dim=head_dim) if r["engine"] == name)
    if not row["ok"]:
        pytest.skip(row["reason"])
    return choose(name, GPU, torch.bfloat16, head_dim)


@pytest.mark.parametrize("name", list(registry.ENGINES))
@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_engines_equal_the_reference(name: str, data: st.DataObject) -> None:
    engine = served(name, 64)
    frames, tokens = data.draw(st.integers(2, 7)), data.draw(st.sampled_from([16, 40]))
    makers = (reference.window_plans, reference.gather_plans, reference.union_plans)
    plan: Plan = data.draw(st.one_of(st.just(Dense()), *(m(frames, tokens) for m in makers)))
    if type(plan) not in engine.supports:
        return
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, frames * tokens, 2, 64, generator=draw).to(GPU, torch.bfloat16) for _ in range(3))
    out, lse = engine.attend(q, k, v, plan, 0.9)
    want, want_lse = reference.dense(q.cpu().float(), k.cpu().float(), v.cpu().float(), plan, 0.9)
    allowed = TOLERANCE[torch.bfloat16] * engine.tolerance
    torch.testing.assert_close(out.cpu().float(), want, rtol=0, atol=allowed)
    torch.testing.assert_close(lse.cpu(), want_lse, rtol=0, atol=allowed)


@pytest.mark.parametrize("name", list(registry.ENGINES))
def test_windows_copy_no_keys(name: str) -> None:
    """Peak memory of a windowed call stays below one copy of the keys per window by far."""
    engine, frames, window, tokens = served(name, 128), 40, 10, 256
    plan = sliding(frames, window, tokens)
    if type(plan) not in engine.supports:
        pytest.skip("serves dense alone")
    q, k, v = (torch.randn(1, frames * tokens, 4, 128, device=GPU, dtype=torch.bfloat16) for _ in range(3))
    engine.attend(q, k, v, plan)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    engine.attend(q, k, v, plan)
    torch.cuda.synchronize()
    one = k.numel() * k.element_size()
    assert torch.cuda.max_memory_allocated() - before < 5 * one  # out, its parts and lse; window copies would be 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length", [3, 16, 77])
def test_masked_text(dtype: torch.dtype, length: int) -> None:
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, 2, 64, generator=draw).to(dtype) for n in (40, length, length))
    mask = torch.arange(length)[None] < torch.tensor([[length // 2], [length]])
    out, lse = sdpa.masked(*(x.to(GPU) for x in (q, k, v, mask)))
    want, want_lse = sdpa.math(q.float(), k.float(), v.float(), 1.0, torch.where(mask, 0.0, -torch.inf)[:, None, None])
    torch.testing.assert_close(out.cpu().float(), want, rtol=0, atol=TOLERANCE[dtype])
    torch.testing.assert_close(lse.cpu(), want_lse, rtol=0, atol=TOLERANCE[dtype])


def test_windows_cost_what_they_should() -> None:
    """Attention alone at the shape of Wan-2.1-1.3B, 480p, four times its length."""
    row = measure(4, 1560, 21, 12, 128, device="cuda", dtype=torch.bfloat16, repeats=5)
    assert row["percent_of_ideal"] > 80, row
