"""UltraViCo: attention logits decay outside the trained distance, so that a longer call neither thins out nor repeats.

Knows rotated queries and keys, and frame distances. Does not know which keys a route shows (it runs inside a route's
windows), nor text: pairs with text keep scale 1, and the text joins outside, by log-sum-exp.
"""

from __future__ import annotations

import torch
from torch import Tensor

from longgen.core.decay import Decay, split
from longgen.errors import BadInput
from longgen.protocols import Method, MethodInfo, Setting
from longgen.types import Attend, Dense, ModelInfo, Patch, Plan, Site, TokenDecay, View

# family → (up to which stretch T/T0, decay). Paper and public branches ultra-wan, ultra-hunyuan; the period of
# CogVideoX is RIFLEx's N_2 (19.9 latents), that of HunyuanVideo its N_4 (50.3).
PUBLISHED: dict[str, tuple[tuple[float, Decay], ...]] = {
    "hunyuan": (
        (2.0, Decay(0.95, 0.6, 4, 50)),
        (3.0, Decay(0.9, 0.6, 4, 50)),
        (float("inf"), Decay(0.9, 0.8, 4, 50)),
    ),
    "cogvideox": ((3.0, Decay(0.9, 0.6, 1, 20)), (float("inf"), Decay(0.85, 0.6, 1, 20))),
}
MODES = ("merge", "exact")
OTHERS = ((float("inf"), Decay(0.9, 0.9)),)  # Wan's values


def published(family: str, stretch: float) -> Decay:
    """The decay published for a model family at T/T0; Wan's for families without values."""
    rows = next((rows for name, rows in PUBLISHED.items() if family.startswith(name)), OTHERS)
    return next(decay for limit, decay in rows if stretch <= limit)


def centred(attend: Attend, q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float) -> tuple[Tensor, Tensor]:
    """Attention with k − k̄ for k. The log-sum-exp is returned as if keys were not centred, so that whatever is merged
    with it afterwards (text) keeps its share."""
    mean = k.mean(1, keepdim=True, dtype=torch.promote_types(k.dtype, torch.float32))  # [B, 1, N, D]
    out, lse = attend(q, (k - mean).to(k.dtype), v, plan, scale)
    shift = torch.einsum("bqnd,bknd->bnq", q.to(mean.dtype), mean)
    return out, lse + shift * (scale * q.shape[-1] ** -0.5)


class UltraViCo(Method):
    """λ_ij·q_i·(k_j − k̄)/√D with λ = 1 within the trained window, α or β outside (arXiv 2511.20123).

    Keys are centred by their mean over the sequence before scaling, as in the public code; without it the result is a
    different method. `mode` "exact" counts distances in tokens and leaves negative logits alone, as that code does, on
    engines that can change single logits. "merge" counts frames and scales all, which any engine can merge by
    log-sum-exp; the sign test changes next to nothing once keys are centred.
    """

    info = MethodInfo(
        name="ultravico",
        title="Attention decay outside the trained distance",
        slots=("logits",),
        paper="2511.20123",
        needs=frozenset({"self_attention"}),
        settings={
            "alpha": Setting(None, "1", "factor outside the trained window; default: published", low=0.0, high=1.0),
            "beta": Setting(None, "1", "factor near repetition distances; default: published", low=0.0, high=1.0),
            "gamma": Setting(None, "latents", "half-width of those zones; default: published", low=0, high=64),
            "period": Setting(None, "latents", "repetition period, 0: no zones; default: published", low=0, high=4096),
            "mode": Setting("merge", "1", "parts merged, on any engine; or the public token form", choices=MODES),
            "first_frame": Setting(None, "1", "hide far keys from latent 0; default: on Wan models"),
        },
        cost="T² of attention, as dense",
        laws={n: {} for n in ("finite", "stochastic", "zero", "no_op", "beyond", "removal", "conflicts")},
    )
    NAMES = ("alpha", "beta", "gamma", "period")
    family, unit = "", 1  # of the model: whose published values, and latents per token

    def fit(self, info: ModelInfo) -> UltraViCo:
        fitted = UltraViCo(**self.settings)
        fitted.family, fitted.unit = info.family, info.patch[0]
        return fitted

    def decay(self, stretch: float) -> Decay:
        """The published decay in token frames, with the settings given in its place."""
        base = published(self.family, stretch)
        values = {n: getattr(base, n) if self.settings[n] is None else self.settings[n] for n in self.NAMES}
        return Decay(values["alpha"], values["beta"], values["gamma"] // self.unit, values["period"] // self.unit)

    def key_frames(self, frames: int, info: ModelInfo) -> float:
        """All, but that latent 0 does not see those beyond the trained length."""
        hides = info.family.startswith("wan") if self.first_frame is None else bool(self.first_frame)
        return frames - (max(frames - info.native_latents, 0) / frames if hides else 0)

    def check(self, frames: int, info: ModelInfo) -> None:
        if self.beta is not None and self.decay(frames / info.native_latents).period == 0:
            raise BadInput(f"ultravico.beta needs ultravico.period on {info.variant}, which has no published one")
        if self.first_frame not in (None, True, False):
            raise BadInput(f"ultravico.first_frame must be true or false (got {self.first_frame!r})")

    def patch(self, view: View) -> Patch:
        if view.frames <= view.native:
            return Patch()
        first = self.family.startswith("wan") if self.first_frame is None else bool(self.first_frame)

        def logits(site: Site, attend: Attend) -> Attend:
            rows = -(-view.native // self.unit)  # trained length in token frames

            def decayed(
                q: Tensor, k: Tensor, v: Tensor, plan: Plan | None = None, scale: float = 1.0
            ) -> tuple[Tensor, Tensor]:
                frames = q.shape[1] // site.tokens
                if frames <= rows or k.shape[1] != q.shape[1]:  # a window within the trained length; text keys
                    return attend(q, k, v, plan or Dense(), scale)
                if not isinstance(plan or Dense(), Dense):
                    raise BadInput(f"ultravico weighs dense attention among the frames of a call, not {plan}")
                whole = frames == site.grid[0]  # frame 0 of a later window is an ordinary frame
                weighed = self._plan(frames, rows, site.tokens, first and whole)
                return centred(attend, q, k, v, weighed, scale)

            return decayed

        return Patch(logits=logits)

    def _plan(self, frames: int, rows: int, tokens: int, first: bool) -> Plan:
        """All pairs of a call with their factors: frame by frame as parts, or token by token (L/2 = T0·P/2)."""
        decay = self.decay(frames / rows)
        if self.mode == "merge":
            return split(frames, rows, tokens, decay, first)
        zones = (decay.gamma, decay.period)
        return TokenDecay(tokens, rows * tokens // 2, decay.alpha, decay.beta, *zones, hidden=rows if first else 0)

    def notes(self, frames: int, info: ModelInfo) -> list[str]:
        if frames <= info.native_latents:
            return [f"ultravico: no-op, {frames} latents are within the native {info.native_latents}"]
        decay = self.decay(frames / info.native_latents)
        zones = f", {decay.beta} within {decay.gamma} of multiples of {decay.period} latents" if decay.period else ""
        return [f"ultravico: logits × {decay.alpha} beyond ±{info.native_latents // 2} latents{zones}"]
