"""What both training stages share: state folder, loss log, progress and learning rate. Knows no model."""

from __future__ import annotations

import json
import math
import os
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Budget:
    """How long a stage trains: it ends at `steps` or after `minutes` of wall time, whichever comes first."""

    steps: int
    minutes: float


@dataclass
class Log:
    """Loss curve and wall time of one stage, kept through interruptions."""

    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)

    def note(self, losses: list[float]) -> None:
        """Add the mean of the losses since the last point to the curve."""
        mean = sum(losses) / len(losses)
        self.curve.append({"step": self.step, "seconds": round(self.seconds, 1), "loss": round(mean, 5)})


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that `path` is never half-written."""
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(part, path)


def save_state(folder: Path, stage: str, tensors: dict[str, Any], log: Log) -> None:
    """Store a stage's tensors and log atomically under `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{stage}.pt.part"
    torch.save({"tensors": tensors, "log": asdict(log)}, part)
    os.replace(part, folder / f"{stage}.pt")
    write_json(folder / f"{stage}-loss.json", asdict(log))


def load_state(folder: Path, stage: str) -> tuple[dict[str, Any], Log] | None:
    """What `save_state` stored, or None at a fresh start."""
    path = folder / f"{stage}.pt"
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True)
    return state["tensors"], Log(**state["log"])


class Clock:
    """Progress of a stage, 0 to 1, by steps or wall time, whichever is further; and its learning-rate factor."""

    def __init__(self, budget: Budget, log: Log, warmup: int) -> None:
        self.budget, self.log, self.warmup = budget, log, warmup
        self._mark = time.monotonic()

    def tick(self) -> None:
        """Count one step and the wall time since the last tick."""
        now = time.monotonic()
        self.log.step += 1
        self.log.seconds += now - self._mark
        self._mark = now

    def skip(self) -> None:
        """Leave the time since the last tick out of the budget (validation, checkpoints)."""
        self._mark = time.monotonic()

    @property
    def progress(self) -> float:
        """Share of the budget used."""
        return min(1.0, max(self.log.step / self.budget.steps, self.log.seconds / (60 * self.budget.minutes)))

    def rate(self) -> float:
        """Linear warm-up, then a cosine from 1 to 0.02 over the budget."""
        warm = min(1.0, (self.log.step + 1) / self.warmup)
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.progress)))


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024, "Muon"), for weights seen as matrices [out, everything else].

    The update of a matrix is its Nesterov momentum with all singular values pushed towards 1 by five Newton-Schulz
    iterations. On this VAE it reaches in 60 steps what AdamW needs several hundred for.
    """

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every weight; matrices of one shape are orthogonalised together, which is several times faster."""
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
            for weight in group["params"]:
                alike[weight.shape[0], weight[0].numel()].append(weight)
            for (rows, columns), weights in alike.items():
                updates = orthogonal(torch.stack([self._momentum(w, group["momentum"]) for w in weights]))
                rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                for weight, update in zip(weights, updates):
                    weight.sub_(update.view(weight.shape), alpha=rate)

    def _momentum(self, weight: nn.Parameter, decay: float) -> Tensor:
        """Nesterov momentum as a matrix."""
        assert weight.grad is not None
        momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
        momentum.mul_(decay).add_(weight.grad)
        return torch.add(weight.grad, momentum, alpha=decay).flatten(1)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrices, roughly: quintic Newton-Schulz with the coefficients of Muon."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


def optimisers(model: nn.Module, hidden: list[nn.Parameter], muon: float, adamw: float) -> list[torch.optim.Optimizer]:
    """Muon for the `hidden` matrices, AdamW without decay for the rest; `initial_lr` holds each peak rate."""
    chosen = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    built: list[torch.optim.Optimizer] = [
        Muon(hidden, muon),
        torch.optim.AdamW(rest, lr=adamw, betas=(0.9, 0.99), weight_decay=0.0),
    ]
    for group in (g for o in built for g in o.param_groups):
        group["initial_lr"] = group["lr"]
    return built


def set_rate(built: list[torch.optim.Optimizer], factor: float) -> None:
    """Scale every peak learning rate by `factor`."""
    for group in (g for o in built for g in o.param_groups):
        group["lr"] = group["initial_lr"] * factor


@torch.no_grad()
def average(ema: dict[str, Tensor], model: nn.Module, step: int, decay: float) -> None:
    """Exponential moving average of a model's state, shorter at the beginning."""
    decay = min(decay, (1 + step) / (10 + step))
    for name, value in model.state_dict().items():
        ema[name].lerp_(value, 1 - decay)
