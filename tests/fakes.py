"""Models, solvers and attention whose right answer is known, for tests without weights.

Denoisers are functions Call → clean estimate. `Bench` runs a loop on one; `run_attention` runs a patch on a single
attention layer that is written as one dense masked softmax, sharing no line with the engines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from longgen.core.euler import Euler
from longgen.core.noise import generator, latent_noise
from longgen.protocols import CAPABILITIES, Context, Method
from longgen.types import (
    Attend,
    Call,
    Dense,
    Event,
    Final,
    FrameGather,
    FrameWindow,
    LatentGrid,
    Level,
    ModelInfo,
    Patch,
    Plan,
    Rope,
    Schedule,
    Site,
    State,
    Union,
    View,
    ode_step,
    per_latent,
)

Denoise = Callable[[Call], Tensor]

# ------------------------------------------------------------------------------------------------ geometry and levels


def model_info(native: int = 3, stride: int = 4, patch_t: int = 1, **changes: Any) -> ModelInfo:
    """A model that can do everything, with T0 = `native` latents."""
    values: dict[str, Any] = {
        "id": "fake",
        "family": "fake",
        "variant": "fake",
        "channels": 2,
        "stride": stride,
        "spatial": 8,
        "patch": (patch_t, 1, 1),
        "native_frames": (native - 1) * stride + 1,
        "native_size": (8, 16),
        "fps": 8.0,
        "steps": 4,
        "guidance": 1.0,
        "flow_shift": None,
        "layers": 2,
        "heads": 2,
        "head_dim": 8,
        "ffn_dim": 16,
        "text_tokens": 4,
        "rope": Rope("table", 4, 10_000.0, None),
        "capabilities": frozenset(CAPABILITIES),
    }
    return ModelInfo(**(values | changes))


def grid_of(info: ModelInfo, frames: int) -> LatentGrid:
    """A grid of `frames` latents of 1 × 2 positions."""
    return LatentGrid(frames, info.channels, 1, 2, info.stride, info.patch)


def flow_schedule(steps: int, shift: float = 1.0) -> Schedule:
    """σ from 1 to 0 with the timestep shift; α = 1 − σ; t = 1000·σ."""
    u = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    sigma = (shift * u / (1 + (shift - 1) * u)).float()
    return Schedule(Level(sigma, 1 - sigma, 1000 * sigma, torch.arange(steps + 1)))


def vp_schedule(steps: int) -> Schedule:
    """Variance-preserving levels, α² + σ² = 1, from nearly pure noise to clean."""
    angle = torch.linspace(0.999, 0, steps + 1, dtype=torch.float64) * math.pi / 2
    return Schedule(Level(angle.sin().float(), angle.cos().float(), 999 * angle.sin().float(), torch.arange(steps + 1)))


@dataclass
class TwoStep(Euler):
    """A multistep rule with a memory: extrapolates the clean estimate from the last two."""

    name: str = "twostep"
    order: int = 2

    def step(
        self, memory: Mapping[str, Any], x: Tensor, clean: Tensor, row: int, start: int = 0
    ) -> tuple[Tensor, Mapping[str, Any]]:
        used = 1.5 * clean - 0.5 * memory["last"] if "last" in memory else clean
        return ode_step(x, used, self.schedule[row], self.schedule[row + 1]), {"last": clean}


# ----------------------------------------------------------------------------------------------------------- denoisers


def frame_local(call: Call) -> Tensor:
    """A non-linear estimate that mixes no latents: each depends on itself, its index and its level alone."""
    index = torch.tensor(call.frames, dtype=torch.float32)[None, None, :, None, None]
    return torch.tanh(call.x + 0.3 * torch.sin(index)) * (1 - 0.5 * per_latent(call.level.sigma, call.x))


def constant_velocity(call: Call) -> Tensor:
    """z = x − σ·v with one v for all: every window agrees with the whole."""
    return call.x - per_latent(call.level.sigma, call.x) * 0.7


def mixing(call: Call) -> Tensor:
    """A bounded non-linear estimate in which every latent of the call depends on every other, positions included."""
    frames = call.x.shape[2]
    place = torch.linspace(-1, 1, frames)[None, None, :, None, None] if frames > 1 else 0.0
    blurred = 0.5 * call.x + 0.3 * call.x.mean(2, keepdim=True) + 0.2 * call.x.roll(1, 2) + 0.1 * place
    return torch.tanh(blurred) * (1 - 0.3 * per_latent(call.level.sigma, call.x))


def ar1_covariance(frames: int, rho: float) -> Tensor:
    """Σ_ij = ρ^|i−j| of a unit-variance AR(1) sequence, [T, T] fp64."""
    i = torch.arange(frames, dtype=torch.float64)
    return rho ** (i[:, None] - i[None, :]).abs()


def ar1_estimate(level: Level, frames: int, rho: float) -> Tensor:
    """E with E[z | x] = E·x for AR(1) video, [T, T] fp64: ΣA(AΣA + D)⁻¹, A = diag α, D = diag σ²."""
    level = level.spread(frames)
    alpha, sigma = level.alpha.double(), level.sigma.double()
    cov = ar1_covariance(frames, rho)
    seen = alpha[:, None] * cov * alpha[None, :] + torch.diag(sigma.square())
    return torch.linalg.solve(seen, alpha[:, None] * cov).T


def oracle(rho: float = 0.9) -> Denoise:
    """The exact denoiser of AR(1) Gaussian video: every position is an independent sequence in time.

    Like a real model it knows places in its call, not absolute ones. Linear in x, computed in the dtype of x.
    """

    def denoise(call: Call) -> Tensor:
        e = ar1_estimate(call.level, call.x.shape[2], rho).to(call.x.dtype)
        return torch.einsum("ij,bcjhw->bcihw", e, call.x)

    return denoise


# --------------------------------------------------------------------------------------------------------------- loops


def _alike(a: Call, b: Call) -> bool:
    return a.x.shape == b.x.shape and torch.equal(a.level.sigma, b.level.sigma)


@dataclass
class Bench:
    """Runs one loop on a fake model and keeps what happened.

    Args:
        reverse: evaluate the calls of a step last to first, to show that their order does not matter.
        stacked: evaluate calls of one shape and level as one batch; for models that do not look at `frames`.
        noise: noise(start, stop) instead of the default keyed noise.
        dtype: of the noise; the loop's own arithmetic follows its rules.
    """

    denoise: Denoise
    info: ModelInfo
    grid: LatentGrid
    schedule: Schedule
    seed: int = 0
    solver: Any = None
    reverse: bool = False
    stacked: bool = False
    noise: Callable[[int, int], Tensor] | None = None
    start: int = 0
    calls: list[Call] = field(default_factory=list)
    per_step: list[int] = field(default_factory=list)

    def _denoise(self, calls: Sequence[Call]) -> list[Tensor]:
        self.calls += calls
        self.per_step.append(len(calls))
        if self.stacked:
            return self._together(calls)
        order = reversed(range(len(calls))) if self.reverse else range(len(calls))
        done = {i: self.denoise(calls[i]) for i in order}
        return [done[i] for i in range(len(calls))]

    def _together(self, calls: Sequence[Call]) -> list[Tensor]:
        """One evaluation for all calls of one shape and level, as batch-mates."""
        done: dict[int, Tensor] = {}
        while len(done) < len(calls):
            first = calls[next(i for i in range(len(calls)) if i not in done)]
            mates = [i for i, c in enumerate(calls) if i not in done and _alike(c, first)]
            batch = self.denoise(replace(first, x=torch.cat([calls[i].x for i in mates])))
            done |= dict(zip(mates, batch.split(1), strict=True))
        return [done[i] for i in range(len(calls))]

    def context(self) -> Context:
        grid, seed = self.grid, self.seed
        return Context(
            denoise=self._denoise,
            solver=self.solver or Euler(self.schedule),
            schedule=self.schedule,
            grid=grid,
            info=self.info,
            seed=seed,
            noise=self.noise or (lambda start, stop: latent_noise(grid, seed, start, stop)),
            fresh=lambda tag, start, stop: latent_noise(grid, seed, start, stop, tag),
            device=torch.device("cpu"),
            start=self.start,
        )

    def run(self, loop: Method, between: Callable[[State], State] = lambda state: state) -> tuple[Tensor, list[Event]]:
        """All steps; `between` is applied to the state after each. Returns the final latents and all events."""
        ctx = self.context()
        state, events = loop.init(ctx), list[Event]()
        while not state.done:
            state, new = loop.step(ctx, state)
            events += new
            state = between(state)
        finals = [e for e in events if isinstance(e, Final)]
        return torch.cat([f.x for f in finals], 2), events


def bench(denoise: Denoise, frames: int, steps: int = 4, info: ModelInfo | None = None, **options: Any) -> Bench:
    """A Bench over `frames` latents with a flow schedule."""
    info = info or model_info()
    return Bench(denoise, info, grid_of(info, frames), options.pop("schedule", flow_schedule(steps)), **options)


# ----------------------------------------------------------------------------------------------------------- attention


def seen(plan: Plan, queries: int, keys: int) -> tuple[Tensor, Tensor]:
    """[Sq, Sk] bool visibility and the factor on each logit, written out token by token in terms of frames."""
    if isinstance(plan, Union):
        masks = [seen(part, queries, keys) for part in plan.parts]
        visible = torch.stack([m for m, _ in masks])
        assert int(visible.sum(0).max()) <= 1, "parts of a union must be disjoint"
        factor = sum(m * f * s for (m, f), s in zip(masks, plan.scales))
        return visible.any(0), torch.as_tensor(factor)
    mask = torch.ones(queries, keys, dtype=torch.bool)
    if isinstance(plan, FrameWindow):
        frame = torch.arange(keys) // plan.tokens
        rows = [(frame >= a) & (frame < b) for a, b in plan.spans]
        mask = torch.stack(rows).repeat_interleave(plan.tokens, 0)
    elif isinstance(plan, FrameGather):
        frame = torch.arange(keys) // plan.tokens
        rows = [torch.isin(frame, torch.tensor(sorted(s))) for s in plan.sets]
        mask = torch.stack(rows).repeat_interleave(plan.tokens, 0)
    assert mask.shape == (queries, keys)
    return mask, torch.ones(queries, keys)


@dataclass
class Layer:
    """One attention layer over video tokens, optionally in one sequence with text keys.

    `attend` is a masked softmax over all logits in fp64. It counts its calls and the largest number of logits in one.
    """

    text: tuple[Tensor, Tensor] | None = None
    attends: int = 0
    largest: int = 0
    plans: list[Plan] = field(default_factory=list)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        self.attends += 1
        self.plans.append(plan)
        mask, factor = seen(plan, q.shape[1], k.shape[1])
        self.largest = max(self.largest, int(mask.sum()) * q.shape[0])
        factor = factor * scale
        if self.text is not None:
            tk, tv = (t.repeat_interleave(q.shape[0] // t.shape[0], 0) for t in self.text)  # B-major windows
            k, v = torch.cat([k, tk], 1), torch.cat([v, tv], 1)
            mask = torch.cat([mask, torch.ones(q.shape[1], tk.shape[1], dtype=torch.bool)], 1)
            factor = torch.cat([factor, torch.ones(q.shape[1], tk.shape[1])], 1)
        logits = torch.einsum("bqnd,bknd->bnqk", q.double(), k.double()) / math.sqrt(q.shape[-1]) * factor
        logits = logits.masked_fill(~mask, -math.inf)
        lse = logits.logsumexp(-1)
        weights = torch.where(lse[..., None].isinf(), 0.0, (logits - lse[..., None]).exp())
        return torch.einsum("bnqk,bknd->bqnd", weights, v.double()).to(v.dtype), lse.float()


def frequencies(rope: Rope) -> Tensor:
    """θ_j = base^(−2j/dim), j = 0 … dim/2 − 1."""
    j = torch.arange(rope.dim // 2, dtype=torch.float64)
    return rope.base ** (-2 * j / rope.dim)


def rotation(rope: Rope, own: Tensor, tokens: int, freqs: Tensor) -> Callable[..., Tensor]:
    """rotate(x [B, T·P, N, D], positions [T] | None): the first `dim` channels turn in neighbouring pairs."""

    def rotate(x: Tensor, positions: Tensor | None = None) -> Tensor:
        place = own if positions is None else positions
        angle = (place.double()[:, None] * freqs[None, :]).repeat_interleave(tokens, 0)[None, :, None, :]
        head, tail = x[..., : rope.dim].double(), x[..., rope.dim :]
        a, b = head[..., 0::2], head[..., 1::2]
        turned = torch.stack([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)
        return torch.cat([turned.flatten(-2).to(x.dtype), tail], -1)

    return rotate


def view_of(
    info: ModelInfo, frames: int, schedule: Schedule | None = None, total: int | None = None, tokens: int = 2
) -> View:
    """The view of a loop whose longest call holds `frames` latents."""
    return View(
        frames=frames,
        native=info.native_latents,
        total=frames if total is None else total,
        tokens=tokens,
        layers=info.layers,
        rope=info.rope,
        schedule=schedule or flow_schedule(10),
        seconds_per_latent=info.stride / info.fps,
    )


def site_of(info: ModelInfo, frames: int, size: tuple[int, int] = (1, 2), step: int = 0, **changes: Any) -> Site:
    """Layer 0 of a call on `frames` latents at row `step` of ten."""
    site = Site(
        layer=0,
        layers=info.layers,
        branch="cond",
        expert=0,
        level=flow_schedule(10)[step],
        frames=tuple(range(frames)),
        grid=(frames // info.patch[0], *size),
        key=None,
        step=step,
        steps=10,
    )
    return replace(site, **changes)


def random_qkv(tokens: int, batch: int = 1, heads: int = 2, dim: int = 8, seed: int = 0) -> tuple[Tensor, ...]:
    """q, k, v [B, S, N, D], unit Gaussian, fp32."""
    return tuple(torch.randn(batch, tokens, heads, dim, generator=generator(seed, n)) for n in "qkv")


def run_attention(
    patch: Patch,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    site: Site,
    rope: Rope | None = None,
    text: tuple[Tensor, Tensor] | None = None,
    layer: Layer | None = None,
) -> Tensor:
    """Self-attention of one layer under a patch, as an adapter does it: kv → positions → route or dense → out.

    Args:
        q, k, v: [B, T·P, N, D] before rotation.
        rope: temporal rotation; None turns nothing.
        text: text keys and values [B, L, N, D] of a joint sequence, visible to every query.
        layer: the Layer to count in.
    """
    layer = layer or Layer(text)
    rope = rope or Rope("table", 0)
    own, freqs = torch.arange(site.grid[0], dtype=torch.float64), frequencies(rope) if rope.dim else torch.zeros(0)
    own = patch.positions(own) if patch.positions else own
    freqs = patch.freqs(freqs) if patch.freqs and rope.dim else freqs
    rotate = rotation(rope, own, site.tokens, freqs)
    if patch.kv:
        k, v = patch.kv(site, k, v)
    attend: Attend = patch.logits(site, layer.attend) if patch.logits else layer.attend
    if patch.attention:
        return patch.attention(site, q, k, v, rotate, attend)
    return attend(rotate(q), rotate(k), v, Dense())[0]
