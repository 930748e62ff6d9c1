"""Noise levels between the rows of a solver's table.

Knows schedules alone. A row that is asked for exactly comes back exactly; between two rows σ and t are interpolated
together on the same line, so a level never pairs a σ with a timestep that the table does not imply.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from longgen.types import Level, Schedule

Spacing = Literal["uniform", "solver"]


def at_rows(schedule: Schedule, rows: Tensor) -> Level:
    """Levels at fractional rows [k] of the table, 0 (noisiest) … n (clean).

    σ and t are linear between rows; α is 1 − σ where the table says so (flow), else √(1 − σ²); `step` is the nearest
    row.
    """
    table = schedule.table
    low = rows.floor().long().clamp(0, schedule.steps)
    high = (low + 1).clamp(max=schedule.steps)
    share = (rows - low).double()

    def between(values: Tensor) -> Tensor:
        line = values.double()
        mixed = line[low] + share * (line[high] - line[low])
        return torch.where(share == 0, line[low], mixed)

    sigma = between(table.sigma)
    flow = torch.allclose(table.alpha + table.sigma, torch.ones_like(table.sigma), atol=1e-4)
    alpha = 1 - sigma if flow else (1 - sigma.square()).clamp(min=0).sqrt()
    alpha = torch.where(share == 0, table.alpha.double()[low], alpha)
    kind = torch.promote_types(table.t.dtype, torch.float32)
    step = (low + (share >= 0.5)).to(table.step.dtype)
    return Level(sigma.to(table.sigma.dtype), alpha.to(table.alpha.dtype), between(table.t).to(kind), step)


def at_sigmas(schedule: Schedule, sigmas: Tensor) -> Level:
    """Levels at the given σ [k], which must lie within the table's range."""
    known = schedule.table.sigma.double()
    low = (known[None, :] > sigmas.double()[:, None]).sum(1).sub(1).clamp(0, schedule.steps - 1)  # σ_low > σ ≥ σ_low+1
    gap = (known[low] - known[low + 1]).clamp(min=1e-12)
    return at_rows(schedule, low + ((known[low] - sigmas.double()) / gap).clamp(0, 1))


def ladder(schedule: Schedule, rungs: int, spacing: Spacing) -> Level:
    """K + 1 levels for a queue: rung 0 is clean, rung K the table's noisiest row.

    Args:
        spacing: "solver" takes equal steps along the table (its own rows when K = n); "uniform" takes equal steps in σ,
            which bounds the range of σ inside one window whatever the table's timestep shift.
    """
    rung = torch.arange(rungs + 1, dtype=torch.float64)
    if spacing == "solver":
        return at_rows(schedule, schedule.steps * (rungs - rung) / rungs)
    return at_sigmas(schedule, float(schedule.table.sigma[0]) * rung / rungs)
