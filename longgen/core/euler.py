"""The first-order deterministic step as a solver without memory: Euler for flow models, DDIM for the others.

For loops that run on no checkpoint: rehearsals, exact Gaussian models, laws. Knows levels. Does not know schedulers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from longgen.types import Schedule, ode_step


@dataclass
class Euler:
    """`protocols.Solver` over a given schedule."""

    schedule: Schedule
    name: str = "euler"
    order: int = 1
    stochastic: bool = False

    def seeded(self, fresh: Callable[[str, int, int], Tensor]) -> Euler:
        return self

    def init(self, start: int = 0) -> Mapping[str, Any]:
        return {}

    def step(
        self, memory: Mapping[str, Any], x: Tensor, clean: Tensor, row: int, start: int = 0
    ) -> tuple[Tensor, Mapping[str, Any]]:
        return ode_step(x, clean, self.schedule[row], self.schedule[row + 1]), memory
