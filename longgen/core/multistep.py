"""UniPC with a memory for each latent, so that latents at levels of their own can share a call (arXiv 2302.04867).

Knows levels and clean estimates. Does not know queues or models. A latent moves from rung r to r − 1 of one table, one
rung at a time, so the levels of its two estimates before are known from its rung, and the memory holds tensors alone:

    clean, before   its last two clean estimates [1, C, T, H, W]
    start           where its last step started, after correction [1, C, T, H, W]
    count           how many steps it has taken [T]
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from longgen.types import Level, per_latent

Memory = Mapping[str, Tensor]


def blank(x: Tensor) -> Memory:
    """The memory of latents x [1, C, T, H, W] that have taken no step."""
    none = torch.zeros_like(x)
    return {"clean": none, "before": none, "start": none, "count": torch.zeros(x.shape[2], dtype=torch.int64)}


def part(memory: Memory, start: int, stop: int | None = None) -> Memory:
    """The memory of latents [start, stop)."""
    return {n: v[start:stop] if v.ndim == 1 else v[:, :, start:stop] for n, v in memory.items()}


def join(*parts: Memory) -> Memory:
    """Memories of neighbouring latents as one; an empty first one stays empty."""
    return {n: torch.cat([p[n] for p in parts], 0 if v.ndim == 1 else 2) for n, v in parts[0].items()}


def choose(chosen: Tensor, memory: Memory, other: Memory) -> Memory:
    """`memory` for the chosen latents [T] bool, `other` for the rest."""
    wide = chosen[None, None, :, None, None]
    return {n: torch.where(chosen if v.ndim == 1 else wide.to(v.device), v, other[n]) for n, v in memory.items()}


def unipc(memory: Memory, x: Tensor, clean: Tensor, table: Level, rung: Tensor) -> tuple[Tensor, Memory]:
    """One rung down for latents x [1, C, T, H, W] with clean estimates of the same shape.

    UniPC-2 with B(h) = e^(−h) − 1 on clean estimates, as diffusers has it by default: x is first corrected by the
    estimate made from it, then predicted on. The first step of a latent and the step to rung 0 are of first order.

    Args:
        table: levels by rung, 0 clean.
        rung: [T] rung of each latent, ≥ 1.
    """
    count, top = memory["count"], len(table.sigma) - 1
    levels = [table[(rung + d).clamp(max=top)] for d in (-1, 0, 1, 2)]
    fixed = _correct(memory, clean, levels[1], levels[2], levels[3], count >= 2)
    x = torch.where((count > 0)[None, None, :, None, None].to(x.device), fixed, x)
    base, gain = _exponential(x, clean, levels[1], levels[0])
    ratio = (_half_log(levels[2]) - _half_log(levels[1])) / (_half_log(levels[0]) - _half_log(levels[1]))
    slope = torch.where((count >= 1) & (rung > 1), 0.5 / ratio, 0.0)
    moved = base - _times(gain * slope, memory["clean"] - clean)
    return moved, {"clean": clean, "before": memory["clean"], "start": x, "count": count + 1}


def _correct(memory: Memory, clean: Tensor, now: Level, then: Level, earlier: Level, second: Tensor) -> Tensor:
    """Where the last step, from level `then` to `now`, leads with the estimate made at its end."""
    base, gain = _exponential(memory["start"], memory["clean"], then, now)
    step = _half_log(now) - _half_log(then)
    ratio = (_half_log(earlier) - _half_log(then)) / step
    phi = torch.expm1(-step)
    first = phi / -step - 1  # ∫ of e^(−h)-weighted powers: φ_2 and φ_3 of the paper, without their factors
    b1, b2 = first / phi, 2 * (first / -step - 0.5) / phi
    rho = torch.where(second, (b2 - b1) / (ratio - 1), 0.0)
    end = torch.where(second, b1 - rho, 0.5)
    slope = torch.where(second, rho / ratio, 0.0)
    moved = base - _times(gain * end, clean - memory["clean"])
    return moved - _times(gain * slope, memory["before"] - memory["clean"])


def _exponential(x: Tensor, clean: Tensor, now: Level, then: Level) -> tuple[Tensor, Tensor]:
    """The first-order step (σ'/σ)·x − α'·(e^(−h) − 1)·z, and its factor α'·(e^(−h) − 1) [T]."""
    gain = then.alpha.double() * torch.expm1(_half_log(now) - _half_log(then))
    return _times(then.sigma.double() / now.sigma.double(), x) - _times(gain, clean), gain


def _half_log(level: Level) -> Tensor:
    """λ = log(α/σ) in fp64, ±∞ at the ends."""
    return level.alpha.double().log() - level.sigma.double().log()


def _times(factor: Tensor, x: Tensor) -> Tensor:
    return per_latent(factor.to(x.dtype), x) * x
