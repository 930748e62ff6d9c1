"""freepca against principal components written out with numpy, and its laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fakes import Layer, model_info, random_qkv, run_attention, site_of, view_of
from torch import Tensor

from longgen.methods.freepca import FreePca, combine
from longgen.types import Dense

TOKENS = 2


def written_out(coarse: np.ndarray, fine: np.ndarray, k: int) -> np.ndarray:
    """Project on eigenvectors, order by cosine, swap, project back: one matrix [n, M] each."""
    mean = coarse.mean(0)
    g, w = coarse - mean, fine - fine.mean(0)
    values, vectors = np.linalg.eigh(g @ g.T)
    kept = [j for j in range(len(values)) if values[j] > 1e-6 * values.max()]  # the constant direction carries nothing
    pg, pw = vectors.T @ g, vectors.T @ w  # a component per row
    cosine = {j: pg[j] @ pw[j] / np.linalg.norm(pg[j]) / np.linalg.norm(pw[j]) for j in kept}
    mixed = pw.copy()
    for j in sorted(kept, key=lambda j: -cosine[j])[:k]:
        mixed[j] = pg[j]
    return vectors @ mixed + mean


@pytest.mark.parametrize("k", [0, 1, 2, 3, 5])
def test_equals_projections_written_out(k: int) -> None:
    coarse, fine = torch.randn(2, 5, 24), torch.randn(2, 5, 24)
    got = combine(coarse, fine, k)
    for b in range(2):
        wanted = written_out(coarse[b].double().numpy(), fine[b].double().numpy(), k)
        assert np.allclose(got[b], wanted, atol=1e-4)


def test_ends() -> None:
    g, w = torch.randn(1, 6, 30), torch.randn(1, 6, 30)
    assert torch.allclose(combine(g, w, 6), g, atol=1e-4)
    assert torch.allclose(combine(g, w, 0), w - w.mean(1, keepdim=True) + g.mean(1, keepdim=True), atol=1e-5)
    for k in range(7):
        assert torch.allclose(combine(g, g, k), g, atol=1e-4)


def reference(
    method: FreePca, q: Tensor, k: Tensor, v: Tensor, frames: int, window: int, stride: int, on: bool
) -> Tensor:
    """Windows stepped by hand; attention by the test's own dense softmax."""
    layer = Layer()
    scale = math.sqrt(math.log(frames) / math.log(window))
    whole = layer.attend(q, k, v, Dense(), scale)[0]
    spans, a = [], 0
    while a + window < frames:
        spans.append((a, a + window))
        a += stride
    spans.append((frames - window, frames))
    total, count = torch.zeros_like(v), torch.zeros(frames)
    for index, (a, b) in enumerate(spans):
        part = slice(a * TOKENS, b * TOKENS)
        local = layer.attend(q[:, part], k[:, part], v[:, part], Dense())[0]
        if on and index:
            flat = (x[0].reshape(b - a, -1).double().numpy() for x in (whole[:, part], local))
            local = torch.from_numpy(written_out(*flat, min(index, method.components))).float().view_as(local)
        total[:, part] += local
        count[a:b] += 1
    return total / count.repeat_interleave(TOKENS)[None, :, None, None]


@pytest.mark.parametrize("step, on", [(0, True), (7, True), (8, False), (9, False)])
def test_route_equals_windows_by_hand(step: int, on: bool) -> None:
    info = model_info(native=4)
    method = FreePca(until=0.75, components=2).fit(info)
    for frames in range(5, 17):
        q, k, v = random_qkv(frames * TOKENS, seed=frames)
        got = run_attention(method.patch(view_of(info, frames)), q, k, v, site_of(info, frames, step=step))
        assert torch.allclose(got, reference(method, q, k, v, frames, 4, 1, on), atol=1e-4), frames


def test_published_numbers() -> None:
    info = model_info(native=16)
    sized = FreePca().sizes(info)
    assert (sized.window, sized.stride) == (16, 4)
    assert sized.count(64) == 13
    assert math.sqrt(math.log(64) / math.log(16)) == pytest.approx(1.22, abs=0.005)  # the code's entropy factor
    assert FreePca(overlap_latents=8).sizes(info).stride == 8
