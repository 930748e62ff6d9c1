"""What each loop does to video whose truth is known: its output covariance, exactly and without sampling.

The model is the exact denoiser of a stationary Gaussian AR(1) sequence, Σ_ij = ρ^|i−j|. It is linear, so a loop on it
is a linear map of the noises that it draws; pushing every basis vector through at once (one per channel) gives that map
M, and M·Mᵀ is the covariance of its output. The gap to Σ at each lag is what the method costs in correlation.

Knows methods and loops. Does not know real models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from longgen.bench.rows import RESULTS, Rows
from longgen.core.euler import Euler
from longgen.core.shuffle import sources
from longgen.protocols import CAPABILITIES, Context
from longgen.runtime.compose import Composition, compose
from longgen.types import Call, Final, LatentGrid, Level, ModelInfo, Rope, Schedule

CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("direct", {}),
    ("windows", {}),
    ("windows", {"windows.plan": "uniform"}),
    ("flowlong", {}),
    ("freenoise.noise,windows", {}),
    ("freeinit,windows", {}),
    ("fifo", {}),
    ("miga", {}),
    ("extend", {}),
)
LAGS = (0, 1, 2, 4, 8, 16, 32)


# ----------------------------------------------------------------------------------------------------------- the oracle


def covariance(frames: int, rho: float) -> Tensor:
    """Σ_ij = ρ^|i−j|, [T, T] fp64."""
    i = torch.arange(frames, dtype=torch.float64)
    return rho ** (i[:, None] - i).abs()


def estimate(level: Level, frames: int, rho: float) -> Tensor:
    """E [T, T] fp64 with E[z | x] = E·x: ΣA·(AΣA + D)⁻¹, A = diag(α), D = diag(σ²)."""
    level = level.spread(frames)
    a, sigma, cov = level.alpha.double(), level.sigma.double(), covariance(frames, rho)
    return torch.linalg.solve(a[:, None] * cov * a + torch.diag(sigma.square()), a[:, None] * cov).T


def denoiser(rho: float) -> Callable[[Sequence[Call]], list[Tensor]]:
    """Calls → clean estimates. As a real model does, it knows places within a call, not absolute ones."""

    def one(call: Call) -> Tensor:
        e = estimate(call.level, call.x.shape[2], rho).to(call.x.dtype)
        return torch.einsum("ij,bcjhw->bcihw", e, call.x)

    return lambda calls: [one(call) for call in calls]


def schedule(steps: int) -> Schedule:
    """Flow levels, σ evenly from 1 to 0."""
    sigma = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return Schedule(Level(sigma, 1 - sigma, 1000 * sigma, torch.arange(steps + 1)))


def info(native: int) -> ModelInfo:
    """A model of T0 = `native` latents with every capability and one channel."""
    return ModelInfo(
        id="oracle", family="oracle", variant="oracle", channels=1, stride=4, spatial=1, patch=(1, 1, 1),
        native_frames=(native - 1) * 4 + 1, native_size=(1, 1), fps=8.0, steps=50, guidance=1.0, flow_shift=None,
        layers=1, heads=1, head_dim=1, ffn_dim=1, text_tokens=1, rope=Rope(), capabilities=frozenset(CAPABILITIES),
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- pushing the basis


@dataclass
class Draws:
    """Unit Gaussians by name. Draw (tag, i) is basis vector number index[tag, i] of `size`, laid along channels; a
    first pass with size 0 only finds out which draws there are."""

    index: dict[tuple[str, int], int] = field(default_factory=dict)
    size: int = 0

    def __call__(self, tag: str, start: int, stop: int) -> Tensor:
        x = torch.zeros(1, max(self.size, 1), stop - start, 1, 1, dtype=torch.float64)
        for j, i in enumerate(range(start, stop)):
            at = self.index.setdefault((tag, i), len(self.index))
            if self.size:
                x[0, at, j] = 1.0
        return x


def push(made: Composition, frames: int, native: int, steps: int, rho: float) -> Tensor:
    """M [T, draws] fp64: the composition's result as a linear map of all that it draws."""
    draws = Draws()
    _run(made, draws, frames, native, steps, rho)
    return _run(made, Draws(draws.index, len(draws.index)), frames, native, steps, rho)[0, :, :, 0, 0].T


def _run(made: Composition, draws: Draws, frames: int, native: int, steps: int, rho: float) -> Tensor:
    ctx = Context(
        denoise=denoiser(rho),
        solver=Euler(schedule(steps)),
        schedule=schedule(steps),
        grid=LatentGrid(frames, max(draws.size, 1), 1, 1, 4, (1, 1, 1)),
        info=info(native),
        seed=0,
        noise=_noise(made, draws),
        fresh=draws,
        device=torch.device("cpu"),
    )
    x = _loop(made, ctx)
    for round in range(1, made.wrapper.rounds() if made.wrapper else 1):
        assert made.wrapper is not None
        start, row = made.wrapper.refine(ctx, x, round)
        x = _loop(made, replace(ctx, noise=lambda a, b, start=start: start[:, :, a:b], start=row))  # type: ignore[misc]
    return x


def _loop(made: Composition, ctx: Context) -> Tensor:
    state, finals = made.loop.init(ctx), list[Tensor]()
    while not state.done:
        state, events = made.loop.step(ctx, state)
        finals += [e.x for e in events if isinstance(e, Final)]
    return torch.cat(finals, 2)


def _noise(made: Composition, draws: Draws) -> Callable[[int, int], Tensor]:
    """Independent noises, or FreeNoise's: the first U of them, repeated in its order for seed 0."""
    sized = getattr(made.noise, "sized", None)
    if made.noise is None or sized is None:
        return lambda a, b: draws("noise", a, b)

    def shuffled(a: int, b: int) -> Tensor:
        index = sources(0, a, b, sized.window, sized.stride)
        return torch.cat([draws("noise", i, i + 1) for i in index], 2)

    return shuffled


# ---------------------------------------------------------------------------------------------------------------- bench


def by_lag(cov: Tensor) -> list[float]:
    """Mean of cov[i, i + k] over i, for each lag k."""
    return [float(cov.diagonal(k).mean()) for k in range(len(cov))]


def run(rows: Rows, native: int = 9, frames: int = 36, steps: int = 50, rho: float = 0.95) -> None:
    """Record each loop's covariance by lag and its gap to the truth, and write the docs page from the rows."""
    for text, settings in CASES:
        made = compose(text, settings).fit(info(native))
        m = push(made, frames, native, steps, rho)
        lags = by_lag(m @ m.T)
        told = "".join(f" ({k.partition('.')[2]} {v})" for k, v in settings.items())
        rows.add(
            {"method": text + told, "native": native, "frames": frames, "steps": steps, "rho": rho},
            {"covariance": lags, "gap": [c - rho**k for k, c in enumerate(lags)]},
        )
    if rows.folder == RESULTS:
        (RESULTS.parent / "methods" / "oracle.md").write_text(page(list(rows.rows.values())), encoding="utf-8")


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """docs/methods/oracle.md, out of the recorded rows."""
    first = rows[0]
    lines = [INTRODUCTION.format(**first).strip(), ""]
    lags = [k for k in LAGS if k < first["frames"]]
    lines.append("| method | " + " | ".join(f"lag {k}" for k in lags) + " | largest gap |")
    lines.append("|---" * (len(lags) + 2) + "|")
    lines.append("| *truth* | " + " | ".join(f"{first['rho'] ** k:.3f}" for k in lags) + " | |")
    for row in rows:
        worst = max(row["gap"], key=abs)
        at = row["gap"].index(worst)
        cells = " | ".join(f"{row['covariance'][k]:.3f}" for k in lags)
        lines.append(f"| {row['method']} | {cells} | {worst:+.3f} at lag {at} |")
    return "\n".join(lines) + "\n\n" + READING.strip() + "\n"


INTRODUCTION = """
# Oracle: what each loop does to long-range correlation

The model here is exact: the denoiser of a stationary Gaussian AR(1) sequence with correlation ρ^lag, ρ = {rho}. On it a
loop is a linear map, so the covariance of its output is computed without sampling, by pushing basis vectors through.
{frames} latents from a model of {native}, {steps} Euler steps (queue methods take their own number of levels). Each
cell is the mean covariance of two latents at that distance; lag 0 is the variance. All gaps, at every lag, are in
`docs/results/oracle.jsonl`; `longgen bench oracle` writes both.
"""

READING = """
`direct` differs from the truth only by its number of steps; the gap halves as they double. It is what a model that
could attend to the whole video would do, at a cost that grows with T². The oracle sees what a call holds and nothing
else, so methods whose windows share no latents beyond their overlap lose correlation with distance; methods that
continue from finished latents keep it in steps of one window. A real model differs in one way that matters: beyond its
native length it is no longer exact, which is why the other methods exist.
"""
