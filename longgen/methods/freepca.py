"""FreePCA (arXiv 2505.01172): consistent components from attention over all frames, motion from local windows.

Knows the self-attention of one layer and its noise level. Does not know loops or noise.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from longgen.core.windows import SIZE_SETTINGS, Sizes, rounded, sizes, starts
from longgen.protocols import Method, MethodInfo, Setting
from longgen.types import Attend, Dense, Interval, ModelInfo, Patch, Rotate, Site, View

SIZES = ("window", "stride", "overlap", "window_latents", "stride_latents", "overlap_latents")


def combine(coarse: Tensor, fine: Tensor, k: int) -> Tensor:
    """G + (I − A)(w_c − G_c): `coarse` G in the k principal components where both agree most, `fine` w in the rest.

    U are the eigenvectors of the n × n temporal covariance of G_c; components are ordered by the cosine of the
    projections of G_c and w_c; A = U_k·U_kᵀ. The mean over frames is G's. Everything is n × n but two products.

    Args:
        coarse, fine: [B, n, M], n frames of M values each.
        k: components taken from `coarse`, 0 … n.
    """
    coarse, fine = coarse.float(), fine.float()
    mean = coarse.mean(1, keepdim=True)
    g, w = coarse - mean, fine - fine.mean(1, keepdim=True)
    u = torch.linalg.eigh(g @ g.mT).eigenvectors  # [B, n, n], a component per column
    own, cross, other = (((u.mT @ a @ b.mT) * u.mT).sum(-1) for a, b in ((g, g), (g, w), (w, w)))  # [B, n]
    cosine = cross / (own * other).clamp(min=1e-30).sqrt()
    empty = own <= 1e-6 * own.amax(-1, keepdim=True)  # the constant direction, left by centring
    chosen = torch.zeros_like(own).scatter(1, cosine.masked_fill(empty, -2.0).topk(k, dim=1).indices, 1.0)
    taken = u * chosen[:, None, :] @ u.mT  # A
    return mean + taken @ g + w - taken @ w


class FreePca(Method):
    """Window j of n frames: k = min(j, components) components from the global pass, the rest from its own attention;
    windows are averaged uniformly, the first stays local. In the first `until` of the steps; later windows alone."""

    info = MethodInfo(
        name="freepca",
        title="Global and local attention combined by principal components over time",
        slots=("route", "logits"),
        paper="2505.01172",
        needs=frozenset({"self_attention"}),
        settings={n: Setting(*SIZE_SETTINGS[n]) for n in SIZES}
        | {
            "components": Setting(3, "1", "most components taken from the global pass", 0, 64),
            "until": Setting(0.75, "1", "share of the steps that combine; later ones average windows", 0.0, 1.0),
            "entropy": Setting(True, "1", "scale the global logits by √(log_n T), against thin attention"),
        },
        cost="n · forward(T), attention over T² + nW·U² frame pairs",
        global_positions=True,
        mixes_heads=True,  # components are of all channels together
        laws={n: {} for n in ("stochastic", "zero", "finite", "no_op", "beyond", "removal", "conflicts")},
    )
    sized: Sizes | None = None

    def fit(self, info: ModelInfo) -> FreePca:
        fitted = copy.copy(self)
        fitted.sized = self.sizes(info)
        return fitted

    def sizes(self, info: ModelInfo) -> Sizes:
        """U and S; the default step is a quarter of the window, as published (4 of 16)."""
        given = any(self.settings[n] is not None for n in SIZES if not n.startswith("window"))
        window = sizes({n: self.settings[n] for n in ("window", "window_latents")}, info).window
        return sizes(self.settings if given else {**self.settings, "stride_latents": max(1, window // 4)}, info)

    def patch(self, view: View) -> Patch:
        sized = self.sized
        if sized is None:
            raise ValueError("freepca must be fitted to a model before use")
        if view.frames <= sized.window:
            return Patch()
        combining = Interval(low=view.schedule.sigma_at(self.until)) if self.until else Interval(low=float("inf"))

        def attention(site: Site, q: Tensor, k: Tensor, v: Tensor, rotate: Rotate, attend: Attend) -> Tensor:
            frames, per = site.grid[0], len(site.frames) // site.grid[0]  # token frames, latents in each
            own = Sizes(sized.window // per, max(1, sized.stride // per))
            spans = [(a, min(a + own.window, frames)) for a in starts(frames, own, "clamp")]
            q, k = rotate(q), rotate(k)
            whole = None
            if site.level in combining:
                scale = math.sqrt(math.log(frames) / math.log(own.window)) if self.entropy and own.window > 1 else 1.0
                whole = attend(q, k, v, Dense(), scale)[0]
            return self._averaged((q, k, v), whole, spans, site.tokens, attend)

        return Patch(attention=attention)

    def _averaged(
        self,
        qkv: tuple[Tensor, Tensor, Tensor],
        whole: Tensor | None,
        spans: list[tuple[int, int]],
        tokens: int,
        attend: Attend,
    ) -> Tensor:
        """Windows [a, b), each combined with the global pass if there is one, averaged at each frame."""
        v = qkv[2]
        out = torch.zeros(v.shape, dtype=torch.float32, device=v.device)
        count = torch.zeros(v.shape[1], device=v.device)
        for index, (a, b) in enumerate(spans):
            part = slice(a * tokens, b * tokens)
            local = attend(*(x[:, part] for x in qkv), Dense())[0]
            if whole is not None and index:
                coarse, fine = (x.unflatten(1, (b - a, tokens)).flatten(2) for x in (whole[:, part], local))
                local = combine(coarse, fine, min(index, int(self.components), b - a)).view_as(local)
            out[:, part] += local
            count[part] += 1
        return (out / count[:, None, None]).to(v.dtype)

    def key_frames(self, frames: int, info: ModelInfo) -> float:
        sized = self.sizes(info)
        if frames <= sized.window:
            return float(frames)
        return self.until * frames + sized.count(frames) * sized.window**2 / frames

    def check(self, frames: int, info: ModelInfo) -> None:
        self.sizes(info)

    def notes(self, frames: int, info: ModelInfo) -> list[str]:
        sized = self.sizes(info)
        if frames <= sized.window:
            return [f"freepca: no-op, {frames} latents are within one window of {sized.window}"]
        return [
            *rounded(self.settings, sized, info),
            f"freepca: {sized.count(frames)} attention {sized.describe(info)}",
        ]
