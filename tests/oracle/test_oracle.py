"""Loops on a linear Gaussian model: convergence to the truth, and independent dense-matrix references.

The references below use no line of the loops under test: windows, levels and queues are written out as matrices that
act on coefficients. Row i of a matrix [T, T] is latent i as a combination of the unit noises of all latents.
"""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import torch
from fakes import ar1_covariance, ar1_estimate
from torch import Tensor

from longgen.bench.oracle import CASES, Draws, by_lag, covariance, estimate, info, page, push, schedule
from longgen.bench.rows import RESULTS, Rows
from longgen.runtime.compose import compose
from longgen.types import Level

RHO = 0.8


def result(text: str, frames: int, native: int, steps: int, **settings: Any) -> Tensor:
    named = {f"{text}.{k}": v for k, v in settings.items()}
    return push(compose(text, named).fit(info(native)), frames, native, steps, RHO)


def flow(sigma: list[float] | float) -> Level:
    s = torch.tensor(sigma, dtype=torch.float64)
    return Level(s, 1 - s, 1000 * s, torch.zeros_like(s))


def optimal(sigmas: list[float]) -> Tensor:
    """E for latents with these levels: the regression of z on x, by its normal equations."""
    n = len(sigmas)
    cov = torch.tensor([[RHO ** abs(i - j) for j in range(n)] for i in range(n)], dtype=torch.float64)
    s = torch.tensor(sigmas, dtype=torch.float64)
    cross = cov * (1 - s)[None, :]
    seen = cov * (1 - s)[None, :] * (1 - s)[:, None] + torch.diag(s * s)
    return torch.linalg.solve(seen.T, cross.T).T


def towards(x: Tensor, clean: Tensor, now: float, then: float) -> Tensor:
    """Euler on the flow: x + (σ' − σ)·v with v = (x − z)/σ."""
    return x + (then - now) * (x - clean) / now


# --------------------------------------------------------------------------------------------------------- the oracle


def test_the_estimate_is_the_regression() -> None:
    """Cov(z − E·x, x) = 0, for common and separate levels; both implementations agree."""
    for level in (flow(0.3), flow([0.1, 0.5, 0.9, 1.0, 0.2])):
        e, s = estimate(level, 5, RHO), level.spread(5)
        a, cov = torch.diag(s.alpha), covariance(5, RHO)
        residual = cov @ a - e @ (a @ cov @ a + torch.diag(s.sigma.square()))
        assert float(residual.abs().max()) < 1e-12
        assert torch.allclose(e, ar1_estimate(level, 5, RHO)) and torch.allclose(e, optimal(s.sigma.tolist()))
    assert torch.equal(covariance(6, RHO), ar1_covariance(6, RHO))


def test_draws_are_a_basis() -> None:
    draws = Draws()
    draws("noise", 0, 3)
    draws("fresh", 1, 3)
    full = Draws(draws.index, len(draws.index))
    vectors = torch.cat([full("noise", 0, 3), full("fresh", 1, 3)], 2)[0, :, :, 0, 0]
    assert torch.equal(vectors, torch.eye(5, dtype=torch.float64))


def gap(m: Tensor) -> float:
    return float((m @ m.T - covariance(len(m), RHO)).abs().max())


def test_direct_converges_to_the_truth() -> None:
    """First order: twice the steps, about half the gap; 320 steps are within 0.01 of the truth."""
    gaps = [gap(result("direct", 12, 4, steps)) for steps in (10, 20, 40, 80, 160, 320)]
    assert all(later < 0.65 * earlier for earlier, later in pairwise(gaps)) and gaps[-1] < 0.01


@pytest.mark.parametrize("lookahead", [True, False])
def test_fifo_with_one_window_over_its_queue_converges_to_the_truth(lookahead: bool) -> None:
    """A path through levels of their own leads to the same law, if every call sees all latents."""
    gaps = [gap(result("fifo", 8, 8, 8, window_latents=8, partitions=n, lookahead=lookahead)) for n in (4, 8, 16)]
    assert all(later < 0.65 * earlier for earlier, later in pairwise(gaps)) and gaps[-1] < 0.04


# --------------------------------------------------------------------------------------------------- dense references


def fused(frames: int, calls: list[tuple[list[int], int, list[float]]], sigma: float) -> Tensor:
    """Σ_k share_k·E on the latents of each call; `calls` holds (latents, dropped at the head, raw weights)."""
    total = torch.zeros(frames, dtype=torch.float64)
    out = torch.zeros(frames, frames, dtype=torch.float64)
    for latents, lead, weights in calls:
        for j, w in zip(latents[lead:], weights, strict=True):
            total[j] += w
    for latents, lead, weights in calls:
        e = optimal([sigma] * len(latents))
        for row, (i, w) in enumerate(zip(latents[lead:], weights, strict=True), start=lead):
            for column, j in enumerate(latents):
                out[i, j] += w / total[i] * e[row, column]
    return out


def pyramid(n: int) -> list[float]:
    return [float(min(i + 1, n - i)) for i in range(n)]


def static(frames: int, window: int, stride: int, anchor: int) -> list[tuple[list[int], int, list[float]]]:
    """Even starts, rounded half up; later windows drop their first `anchor` outputs."""
    n = 1
    while (n - 1) * stride + window < frames:
        n += 1
    calls = []
    for k in range(n):
        start = int(Fraction(k * max(frames - window, 0), max(n - 1, 1)) + Fraction(1, 2))
        latents, lead = list(range(start, min(start + window, frames))), anchor if k else 0
        calls.append((latents, lead, pyramid(len(latents) - lead)))
    return calls


def moved(frames: int, window: int, stride: int, step: int, ring: bool) -> list[tuple[list[int], int, list[float]]]:
    """Starts k·S − shift, shift a bit-reversed fraction of S; clipped to the video, or around a ring."""
    shift = int(stride * int(f"{step:04b}"[::-1], 2) / 16)
    if ring:
        raw = [(k * stride - shift) % frames for k in range(-(-frames // stride))]
    else:
        raw = sorted({min(max(k * stride - shift, 0), frames - window) for k in range(2 * frames)})
    return [([(s + j) % frames for j in range(window)], 0, pyramid(window)) for s in raw]


def side_by_side(frames: int, window: int) -> list[tuple[list[int], int, list[float]]]:
    calls, reached = [], 0
    while reached < frames:
        start = min(reached, frames - window)
        calls.append((list(range(start, start + window)), 0, [float(start + j >= reached) for j in range(window)]))
        reached = start + window
    return calls


@pytest.mark.parametrize("frames", [4, 5, 7, 10, 13, 14, 19])
@pytest.mark.parametrize("planner", ["static", "uniform", "looped", "batched"])
def test_windows_equal_dense_matrices(planner: str, frames: int) -> None:
    steps, window, stride = 6, 4, 3
    x = torch.eye(frames, dtype=torch.float64)
    for row in range(steps):
        now, then = 1 - row / steps, 1 - (row + 1) / steps
        if planner == "static":
            calls = static(frames, window, stride, 1)
        elif planner == "batched":
            calls = side_by_side(frames, window)
        elif frames == window:
            calls = [(list(range(4)), 0, pyramid(4))]
        else:
            calls = moved(frames, window, stride, row, planner == "looped")
        x = towards(x, fused(frames, calls, now) @ x, now, then)
    settings = {"plan": planner, "anchor": 1 if planner == "static" else 0, "stride_latents": stride}
    assert float((result("windows", frames, window, steps, **settings) - x).abs().max()) < 1e-6


@pytest.mark.parametrize("frames", [3, 8, 11])
def test_direct_equals_dense_matrices(frames: int) -> None:
    x = torch.eye(frames, dtype=torch.float64)
    for row in range(7):
        now, then = 1 - row / 7, 1 - (row + 1) / 7
        x = towards(x, optimal([now] * frames) @ x, now, then)
    assert float((result("direct", frames, 3, 7) - x).abs().max()) < 1e-6


@pytest.mark.parametrize("frames", [4, 9, 12])
def test_flowlong_equals_its_covariance_recursion(frames: int) -> None:
    """σ ≥ s*: C ← α'²·Z·C·Zᵀ + σ'²·1. Below: C ← S·C·Sᵀ with S the Euler step."""
    steps, cov, eye = 8, torch.eye(frames, dtype=torch.float64), torch.eye(frames, dtype=torch.float64)
    calls = static(frames, 4, 2, 1)
    calls = [(own, lead, [min(1.0, w / 2) for w in pyramid(len(own) - lead)]) for own, lead, _ in calls]
    for row in range(steps):
        now, then = 1 - row / steps, 1 - (row + 1) / steps
        z = fused(frames, calls, now)
        if now >= 0.6:
            cov = (1 - then) ** 2 * z @ cov @ z.T + then**2 * eye
        else:
            step = towards(eye, z, now, then)
            cov = step @ cov @ step.T
    m = result("flowlong", frames, 4, steps, stride_latents=2)
    assert float((m @ m.T - cov).abs().max()) < 1e-6


@pytest.mark.parametrize("frames", [4, 7, 10, 12])
def test_extend_equals_dense_matrices(frames: int) -> None:
    """Chunks of 4 with a prefix of 1 (the last one longer): at each level the prefix is (1 − σ)·z + σ·ε."""
    steps, window, noise = 6, 4, torch.eye(frames, dtype=torch.float64)
    done = torch.zeros(0, frames, dtype=torch.float64)
    for start in sorted({min(k * 3, frames - window) for k in range(frames)}):
        known = len(done) - start
        x = noise[start : start + window]
        for row in range(steps):
            now, then = 1 - row / steps, 1 - (row + 1) / steps
            x = torch.cat([(1 - now) * done[start:] + now * noise[start : start + known], x[known:]])
            clean = optimal([now] * window) @ x
            clean = torch.cat([done[start:], clean[known:]])
            x = towards(x, clean, now, then)
        done = torch.cat([done, x[known:]])
        if len(done) == frames:
            break
    assert float((result("extend", frames, window, steps, overlap_latents=1) - done).abs().max()) < 1e-6


@pytest.mark.parametrize("frames", [4, 6, 9, 13])
@pytest.mark.parametrize("lookahead", [True, False])
def test_fifo_equals_dense_matrices(frames: int, lookahead: bool) -> None:
    """The diagonal queue as a table of levels: latent i needs clamp(i − front + 1, 0, K) more rungs of 1/K."""
    window, partitions = 4, 2
    top = window * partitions
    x = trajectory(frames, window, top)
    halves = [window - window // 2, window // 2] if lookahead else [window, window]
    blocks, edge = [], 0
    while edge < top:
        stop = min(edge + halves[len(blocks) % 2], top)
        blocks.append((edge, stop))
        edge = stop
    for front in range(window - top, frames):
        rung = [min(max(i - front + 1, 0), top) for i in range(frames)]
        entered = min(front + top, frames)
        new = x.clone()
        for a, b in blocks:
            start = min(max(front + b - window, 0), max(entered, window) - window)
            inside = range(start, start + window)
            clean = optimal([rung[i] / top for i in inside]) @ x[start : start + window]
            for i in range(max(front + a, 0), min(front + b, entered)):
                new[i] = towards(x[i], clean[i - start], rung[i] / top, (rung[i] - 1) / top)
        x = new
    ours = result("fifo", frames, window, 5, partitions=partitions, lookahead=lookahead)
    assert float((ours - x).abs().max()) < 1e-6


def trajectory(frames: int, window: int, top: int) -> Tensor:
    """Start of the queue: latent i of an ordinary clip, as it is when the clip passes rung K − f + 1 + i."""
    clip = x = torch.eye(frames, dtype=torch.float64)
    for rung in range(top, top - window + 1, -1):
        head = clip[:window]
        moved = towards(head, optimal([rung / top] * window) @ head, rung / top, (rung - 1) / top)
        clip = torch.cat([moved, clip[window:]])
        i = rung - 1 - (top - window + 1)
        x = torch.cat([x[:i], clip[i : i + 1], x[i + 1 :]])
    return x


# ---------------------------------------------------------------------------------------------------------- the record


def test_windows_lose_long_lags_and_direct_keeps_them() -> None:
    wide, narrow = (by_lag(m @ m.T) for m in (result("direct", 16, 4, 100), result("windows", 16, 4, 100)))
    truth = [RHO**k for k in range(16)]
    assert all(abs(w - t) < 0.03 for w, t in zip(wide, truth))
    assert narrow[8] < 0.5 * truth[8]


@pytest.mark.parametrize(("text", "settings"), CASES)
def test_every_case_is_a_linear_map_with_a_covariance(text: str, settings: dict[str, Any]) -> None:
    made = compose(text, settings).fit(info(3))
    m = push(made, 8, 3, 6, RHO)
    assert m.shape[0] == 8 and m.isfinite().all()
    values = torch.linalg.eigvalsh(m @ m.T)
    assert float(values.min()) > -1e-9 and float((m @ m.T).diagonal().max()) < 4


def test_the_page_is_generated_from_the_rows() -> None:
    rows = [json.loads(line) for line in (RESULTS / "oracle.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (RESULTS.parent / "methods" / "oracle.md").read_text(encoding="utf-8") == page(rows)


def test_a_recorded_row_can_be_measured_again() -> None:
    recorded = Rows("oracle").rows
    row = next(r for r in recorded.values() if r["method"] == "windows")
    made = compose("windows").fit(info(row["native"]))
    m = push(made, row["frames"], row["native"], row["steps"], row["rho"])
    assert by_lag(m @ m.T) == pytest.approx(row["covariance"], abs=2e-4)
    assert schedule(row["steps"]).steps == row["steps"]
