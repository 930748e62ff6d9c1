"""Step rules over diffusers' schedulers, made values: the schedule is a table, the memory holds tensors and numbers.

A scheduler object keeps its history in itself. Here it is put back from the memory before each step and read out after
it, so one solver serves any number of loops and a loop can stop and go on between any two steps.

Knows schedulers. Does not know models: a step takes the clean estimate, whatever the network predicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from torch import Tensor

from longgen.errors import BadInput, unknown
from longgen.types import Level, Schedule

NAMES = ("default", "euler", "unipc", "dpm++")
# Everything that a step of a supported scheduler changes in the scheduler itself.
HISTORY = ("_step_index", "lower_order_nums", "this_order", "last_sample", "model_outputs", "timestep_list")


def is_flow(scheduler: SchedulerMixin) -> bool:
    """True for x = (1 − σ)·z + σ·ε, False for variance-preserving schedules."""
    config = scheduler.config
    return isinstance(scheduler, FlowMatchEulerDiscreteScheduler) or bool(config.get("use_flow_sigmas", False))


def make(
    scheduler: SchedulerMixin, name: str | None, steps: int, flow_shift: float | None = None, **table: Any
) -> SchedulerSolver:
    """A solver from a checkpoint's scheduler, which is left untouched.

    Args:
        name: "default" or None for the checkpoint's own rule; "euler", "unipc" and "dpm++" need a flow model.
        steps: rows of the schedule, ≥ 1.
        flow_shift: overrides the schedule's shift.
        table: passed to `set_timesteps` (sigmas, mu).
    """
    name = name or "default"
    if name not in NAMES:
        raise unknown("solver", name, NAMES)
    if steps < 1:
        raise BadInput(f"the number of inference steps must be at least 1, got {steps}")
    if name != "default" and not is_flow(scheduler):
        raise BadInput(f"solver {name!r} needs a flow model; this checkpoint's schedule takes only: default")
    return SchedulerSolver(_build(scheduler, name, flow_shift), steps, name, **table)


def shift_of(config: Mapping[str, Any]) -> float | None:
    """The timestep shift in a scheduler's config, whatever the scheduler calls it."""
    value = config.get("flow_shift", config.get("shift"))
    return None if value is None else float(value)


def _build(scheduler: SchedulerMixin, name: str, flow_shift: float | None) -> SchedulerMixin:
    """A fresh scheduler of the wanted rule that takes clean estimates where it can ("sample" prediction)."""
    config = dict(scheduler.config)
    shift = shift_of(config) if flow_shift is None else flow_shift
    train = config.get("num_train_timesteps", 1000)
    if name == "euler":
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=train, shift=1.0 if shift is None else shift)
    if name in {"unipc", "dpm++"}:
        kind = UniPCMultistepScheduler if name == "unipc" else DPMSolverMultistepScheduler
        return kind(num_train_timesteps=train, prediction_type="sample", use_flow_sigmas=True, flow_shift=shift or 1.0)
    if flow_shift is not None:
        config["shift" if "shift" in config else "flow_shift"] = flow_shift
    if "prediction_type" in config:
        config["prediction_type"] = "sample"
    return type(scheduler).from_config(config)


def table(scheduler: SchedulerMixin) -> Level:
    """σ, α, t of every row and of the clean end, read from a scheduler after `set_timesteps`."""
    t = torch.cat([scheduler.timesteps, scheduler.timesteps.new_zeros(1)]).cpu()
    step = torch.arange(len(t))
    if is_flow(scheduler):
        sigma = scheduler.sigmas.cpu().to(torch.float32)
        return Level(sigma, 1 - sigma, t, step)
    signal = scheduler.alphas_cumprod[scheduler.timesteps.cpu().long()].to(torch.float32)
    signal = torch.cat([signal, signal.new_ones(1)])
    return Level((1 - signal).sqrt(), signal.sqrt(), t, step)


class SchedulerSolver:
    """`Solver` over one diffusers scheduler."""

    def __init__(self, scheduler: SchedulerMixin, steps: int, name: str, **table_options: Any) -> None:
        config = scheduler.config
        self.name = name
        self.order = int(config.get("solver_order", 1))
        self.stochastic = bool(config.get("stochastic_sampling")) or str(config.get("algorithm_type")).startswith("sde")
        if self.stochastic:
            raise BadInput(f"{type(scheduler).__name__} draws noise in its steps; choose one of: euler, unipc, dpm++")
        scheduler.set_timesteps(steps, **table_options)
        self._scheduler = scheduler
        self._takes_clean = config.get("prediction_type") == "sample"
        self.schedule = Schedule(table(scheduler))
        self._fresh = _read(scheduler)

    def init(self, start: int = 0) -> Mapping[str, Any]:
        """Memory before the step at row `start`: no history."""
        if not 0 <= start < self.schedule.steps:
            raise BadInput(f"start row {start} lies outside 0 … {self.schedule.steps - 1}")
        return {key: start if key == "_step_index" else value for key, value in self._fresh.items()}

    def step(self, memory: Mapping[str, Any], x: Tensor, clean: Tensor, row: int) -> tuple[Tensor, Mapping[str, Any]]:
        """From row to row + 1: x and clean [1, C, T, H, W] fp32 → (x at row + 1, memory)."""
        if memory.get("_step_index", row) != row:
            raise ValueError(f"the solver's memory stands at row {memory['_step_index']}, not at {row}")
        scheduler = self._scheduler
        _write(scheduler, memory)
        # Flow-matching Euler takes a velocity only: v = (x − z)/σ.
        output = clean if self._takes_clean else (x - clean) / self.schedule.table.sigma[row]
        then = scheduler.step(output, scheduler.timesteps[row], x, return_dict=False)[0]
        return then, _read(scheduler)


def _read(scheduler: SchedulerMixin) -> dict[str, Any]:
    """The scheduler's history, lists flattened to `name.index`."""
    memory: dict[str, Any] = {}
    for name in HISTORY:
        value = getattr(scheduler, name, None)
        if isinstance(value, list):
            memory |= {f"{name}.{i}": item for i, item in enumerate(value)}
        elif hasattr(scheduler, name):
            memory[name] = value
    return memory


def _write(scheduler: SchedulerMixin, memory: Mapping[str, Any]) -> None:
    lists: dict[str, list[Any]] = {}
    for key, value in memory.items():
        name, dot, _ = key.partition(".")
        if dot:
            lists.setdefault(name, []).append(value)
        else:
            setattr(scheduler, name, value)
    for name, values in lists.items():
        setattr(scheduler, name, values)
