"""FreeNoise (arXiv 2310.15169): one pass with rescheduled noise and attention in fused windows.

Knows the noise of a video and the self-attention of one layer. Does not know loops or prompts.
"""

from __future__ import annotations

import copy
from functools import lru_cache

import torch
from torch import Tensor

from longgen.core.shuffle import shuffled_noise
from longgen.core.windows import SIZE_SETTINGS, Sizes, rounded, shares, sizes, window_weights
from longgen.protocols import Method, MethodInfo, Setting
from longgen.types import Attend, Dense, LatentGrid, ModelInfo, Patch, Rotate, Site, View


def spans(frames: int, window: int, stride: int, tail: str = "grid") -> list[tuple[int, int]]:
    """Attention windows [a, b) over T: [kS, kS + U), and one for the tail where (T − U) mod S ≠ 0.

    "grid" starts the tail window on the shuffle grid, shorter than U, so that its noises stay distinct; "full" takes
    the last U, off the grid, as public code does.
    """
    if frames <= window:
        return [(0, frames)]
    full = [(a, a + window) for a in range(0, frames - window + 1, stride)]
    if full[-1][1] == frames:
        return full
    return [*full, (full[-1][0] + stride if tail == "grid" else frames - window, frames)]


@lru_cache(maxsize=64)
def pyramids(windows: tuple[tuple[int, int], ...], frames: int) -> list[Tensor]:
    """w_j(i)/Σ_j w_j(i) for each window, fp32: its share of each of its frames."""
    bodies = [tuple(range(a, b)) for a, b in windows]
    return shares(bodies, [window_weights("pyramid", len(b), 0) for b in bodies], frames)


def window_attention(
    q: Tensor, k: Tensor, v: Tensor, windows: list[tuple[int, int]], tokens: int, attend: Attend
) -> Tensor:
    """F_i = Σ_j w_j(i)·F_i^j / Σ_j w_j(i) over windows j, w a pyramid (eq. 9), before the output projection.

    Windows of one length and step share a batch of zero-copy views; a tail window is a call of its own.

    Args:
        q, k, v: [B, T·P, N, D], rotated.
        windows: spans that cover all T frames.
    """
    q, k, v = (x.unflatten(1, (-1, tokens)) for x in (q, k, v))  # [B, T, P, N, D]
    frames = q.shape[1]
    weights = pyramids(tuple(windows), frames)
    out = torch.zeros(q.shape, dtype=torch.promote_types(v.dtype, torch.float32), device=q.device)
    length, step = windows[0][1], windows[1][0] if len(windows) > 1 else 1
    n = sum(w == (i * step, i * step + length) for i, w in enumerate(windows))  # all, or all but the tail
    for group, share in ((windows[:n], weights[:n]), (windows[n:], weights[n:])):
        if not group:
            continue
        length = group[0][1] - group[0][0]
        batched = (_batch(x, group[0][0], length, step, len(group)) for x in (q, k, v))
        attended = attend(*batched, Dense())[0].unflatten(0, (-1, len(group)))
        attended = attended.unflatten(2, (length, tokens)).to(out.dtype)  # [B, nW, U, P, N, D]
        for i, ((a, b), weight) in enumerate(zip(group, share, strict=True)):
            out[:, a:b] += attended[:, i] * weight.to(out)[:, None, None, None]
    return out.to(v.dtype).flatten(1, 2)


def _batch(x: Tensor, first: int, length: int, step: int, count: int) -> Tensor:
    """`count` windows of x [B, T, P, N, D] as [B·count, U·P, N, D], a view for B = 1."""
    windows = x[:, first : first + (count - 1) * step + length].unfold(1, length, step)  # [B, nW, P, N, D, U]
    return windows.permute(0, 1, 5, 2, 3, 4).flatten(2, 3).flatten(0, 1)


class FreeNoise(Method):
    """(a) noise: chunks of S latents repeat earlier ones in shuffled order; (b) route: windows of U latents, step S,
    fused at each frame. Windows start on the shuffle grid, so each sees U distinct noises."""

    info = MethodInfo(
        name="freenoise",
        title="Rescheduled noise and fused attention windows",
        slots=("noise", "route"),
        paper="2310.15169",
        needs=frozenset({"self_attention"}),
        settings={n: Setting(*row) for n, row in SIZE_SETTINGS.items()}
        | {"tail": Setting("grid", "1", "last window: on the shuffle grid, or the last U", choices=("grid", "full"))},
        cost="n · forward(T), attention over nW·U² instead of T² frame pairs",
        global_positions=True,
        laws={"unit_variance": {}, "random_access": {}, "deterministic": {}, "finite": {}, "stochastic": {}, "zero": {}}
        | {"no_op": {}, "beyond": {}, "removal": {}, "conflicts": {}},
    )
    sized: Sizes | None = None

    def fit(self, info: ModelInfo) -> FreeNoise:
        fitted = copy.copy(self)
        fitted.sized = sizes(self.settings, info)
        return fitted

    def _sizes(self) -> Sizes:
        if self.sized is None:
            raise ValueError("freenoise must be fitted to a model before use")
        return self.sized

    def noise(self, grid: LatentGrid, seed: int, start: int, stop: int) -> Tensor:
        sized = self._sizes()
        return shuffled_noise(grid, seed, start, stop, sized.window, sized.stride)

    def patch(self, view: View) -> Patch:
        sized = self._sizes()
        if view.frames <= sized.window:
            return Patch()

        def attention(site: Site, q: Tensor, k: Tensor, v: Tensor, rotate: Rotate, attend: Attend) -> Tensor:
            per = len(site.frames) // site.grid[0]  # latents per token frame
            windows = spans(site.grid[0], sized.window // per, sized.stride // per, self.tail)
            return window_attention(rotate(q), rotate(k), v, windows, site.tokens, attend)

        return Patch(attention=attention)

    def key_frames(self, frames: int, info: ModelInfo) -> float:
        sized = sizes(self.settings, info)
        return sum((b - a) ** 2 for a, b in spans(frames, sized.window, sized.stride, self.tail)) / frames

    def check(self, frames: int, info: ModelInfo) -> None:
        sizes(self.settings, info)

    def notes(self, frames: int, info: ModelInfo) -> list[str]:
        sized = sizes(self.settings, info)
        if frames <= sized.window:
            return [f"freenoise: one window covers the {frames} latents, so attention and noise are the plain ones"]
        count = len(spans(frames, sized.window, sized.stride, self.tail))
        return [*rounded(self.settings, sized, info), f"freenoise: {count} attention {sized.describe(info)}"]
