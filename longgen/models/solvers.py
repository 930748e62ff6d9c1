"""Step rules over diffusers' schedulers, made values: the schedule is a table, the memory holds tensors and numbers.

A scheduler object keeps its history in itself. Here it is put back from the memory before each step and read out after
it, so one solver serves any number of loops and a loop can stop and go on between any two steps.

Rules that draw noise in their steps (SDE-DPM-Solver++, ancestral Euler) take it from a function of (seed, row, latent),
so that a latent gets the same noise in a video of any length, in any window, and after a resume.

Knows schedulers. Does not know models: a step takes the clean estimate, whatever the network predicts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from torch import Tensor

from longgen.errors import BadInput, unknown
from longgen.types import Level, Schedule, add_noise

FLOW = ("default", "euler", "unipc", "dpm++", "sde-dpm++", "ancestral")
PRESERVING = ("default", "ddim", "sde-dpm++")  # for variance-preserving schedules
NAMES = tuple(dict.fromkeys((*FLOW, *PRESERVING)))
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
        name: "default" or None for the checkpoint's own rule, or one of `FLOW` for flow models, of `PRESERVING` for
            variance-preserving ones. "sde-dpm++" and "ancestral" draw noise: see `SchedulerSolver.seeded`.
        steps: rows of the schedule, ≥ 1.
        flow_shift: overrides the schedule's shift.
        table: passed to `set_timesteps` (sigmas, mu).
    """
    name = name or "default"
    if name not in NAMES:
        raise unknown("solver", name, NAMES)
    if steps < 1:
        raise BadInput(f"the number of inference steps must be at least 1, got {steps}")
    legal = FLOW if is_flow(scheduler) else PRESERVING
    if name not in legal:
        kind = "a variance-preserving schedule" if legal is FLOW else "a flow model"
        raise BadInput(f"solver {name!r} needs {kind}; this checkpoint's schedule takes only: {', '.join(legal)}")
    built = _build(scheduler, name, flow_shift)
    if isinstance(built, CogVideoXDPMScheduler):
        return TwoStepSDE(built, steps, name, **table)
    rule = Ancestral if built.config.get("stochastic_sampling") else SchedulerSolver
    return rule(built, steps, name, **table)


def shift_of(config: Mapping[str, Any]) -> float | None:
    """The timestep shift in a scheduler's config, whatever the scheduler calls it."""
    value = config.get("flow_shift", config.get("shift"))
    return None if value is None else float(value)


def _build(scheduler: SchedulerMixin, name: str, flow_shift: float | None) -> SchedulerMixin:
    """A fresh scheduler of the wanted rule that takes clean estimates where it can ("sample" prediction)."""
    config = dict(scheduler.config)
    config.pop("_use_default_values", None)  # from_config would put back the default of all that it names
    shift = shift_of(config) if flow_shift is None else flow_shift
    train = config.get("num_train_timesteps", 1000)
    if not is_flow(scheduler) and name != "default":
        kind = CogVideoXDDIMScheduler if name == "ddim" else CogVideoXDPMScheduler
        return kind.from_config({**config, "prediction_type": "sample"})
    if name in {"euler", "ancestral"}:
        return FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=train, shift=1.0 if shift is None else shift, stochastic_sampling=name == "ancestral"
        )
    if name in {"unipc", "dpm++", "sde-dpm++"}:
        kind = UniPCMultistepScheduler if name == "unipc" else DPMSolverMultistepScheduler
        sde = {"algorithm_type": "sde-dpmsolver++"} if name == "sde-dpm++" else {}
        return kind(
            num_train_timesteps=train, prediction_type="sample", use_flow_sigmas=True, flow_shift=shift or 1.0, **sde
        )
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


# fresh(tag, start, stop) → unit noise of latents [start, stop), [1, C, stop − start, H, W], as `Context.fresh`.
Fresh = Callable[[str, int, int], Tensor]


class SchedulerSolver:
    """`Solver` over one diffusers scheduler."""

    stochastic = False

    def __init__(self, scheduler: SchedulerMixin, steps: int, name: str, **table_options: Any) -> None:
        config = scheduler.config
        self.name = name
        self.order = int(config.get("solver_order", 1))
        self.stochastic = self.stochastic or str(config.get("algorithm_type")).startswith("sde")
        self._draw: Fresh | None = None
        scheduler.set_timesteps(steps, **table_options)
        self._scheduler = scheduler
        self._takes_clean = config.get("prediction_type") == "sample"
        self.schedule = Schedule(table(scheduler))
        if not self.schedule.table.sigma.isfinite().all():  # LTX-Video's is stretched, which one row cannot be
            raise BadInput(f"the checkpoint's schedule has no values at {steps} inference steps; use more")
        self._fresh = _read(scheduler)

    def seeded(self, fresh: Fresh) -> SchedulerSolver:
        """The same rule, taking the noise of its steps from `fresh`; of no consequence for rules that draw none."""
        seeded = copy.copy(self)
        seeded._draw = fresh
        return seeded

    def noise(self, x: Tensor, row: int, start: int) -> Tensor:
        """Noise of the step at `row` for latents [start, start + T) that x holds."""
        if self._draw is None:
            raise ValueError(f"solver {self.name!r} draws noise in its steps: give it some with seeded()")
        return self._draw(f"step{row}", start, start + x.shape[2]).to(x)

    def init(self, start: int = 0) -> Mapping[str, Any]:
        """Memory before the step at row `start`: no history."""
        if not 0 <= start < self.schedule.steps:
            raise BadInput(f"start row {start} lies outside 0 … {self.schedule.steps - 1}")
        return {key: start if key == "_step_index" else value for key, value in self._fresh.items()}

    def step(
        self, memory: Mapping[str, Any], x: Tensor, clean: Tensor, row: int, start: int = 0
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """From row to row + 1: x and clean [1, C, T, H, W] fp32, first latent `start` → (x at row + 1, memory)."""
        if memory.get("_step_index", row) != row:
            raise ValueError(f"the solver's memory stands at row {memory['_step_index']}, not at {row}")
        scheduler = self._scheduler
        _write(scheduler, memory)
        # Flow-matching Euler takes a velocity only: v = (x − z)/σ.
        output = clean if self._takes_clean else (x - clean) / self.schedule.table.sigma[row]
        drawn = {"variance_noise": self.noise(x, row, start)} if self.stochastic else {}
        then = scheduler.step(output, scheduler.timesteps[row], x, return_dict=False, **drawn)[0]
        return then, _read(scheduler)


class Ancestral(SchedulerSolver):
    """x' = α'·z + σ'·ε with fresh ε at every step: flow-matching Euler with `stochastic_sampling`."""

    stochastic = True

    def step(
        self, memory: Mapping[str, Any], x: Tensor, clean: Tensor, row: int, start: int = 0
    ) -> tuple[Tensor, Mapping[str, Any]]:
        then = add_noise(clean, self.noise(x, row, start), self.schedule[row + 1])
        return then, {**memory, "_step_index": row + 1}


class TwoStepSDE(SchedulerSolver):
    """CogVideoXDPMScheduler's rule, SDE-DPM-Solver++ (2M): with h and r the log-SNR steps that the scheduler computes,

    x' = (σ'/σ)·e^(−h)·x + α'·(1 − e^(−2h))·[(1 + 1/2r)·z − z_before/2r] + σ'·√(1 − e^(−2h))·ε.

    The scheduler's own `step` draws ε itself and ignores the noise that it is given.
    """

    stochastic = True

    def init(self, start: int = 0) -> Mapping[str, Any]:
        return {**super().init(start), "_step_index": start, "before": None}

    def step(
        self, memory: Mapping[str, Any], x: Tensor, clean: Tensor, row: int, start: int = 0
    ) -> tuple[Tensor, Mapping[str, Any]]:
        if memory["_step_index"] != row:
            raise ValueError(f"the solver's memory stands at row {memory['_step_index']}, not at {row}")
        rule, before = self._scheduler, memory["before"]
        t = int(rule.timesteps[row])
        then = t - rule.config.num_train_timesteps // rule.num_inference_steps
        now, last = rule.alphas_cumprod[t], then < 0
        after = rule.final_alpha_cumprod if last else rule.alphas_cumprod[then]
        back = None if before is None else rule.alphas_cumprod[int(rule.timesteps[row - 1])]
        h, r, _, _ = rule.get_variables(now, after, back)
        keep, pull, *second = rule.get_mult(h, r, now, after, back)
        estimate = clean if before is None or last else second[0] * clean - second[1] * before
        spread = ((1 - after) * (1 - (-2 * h).exp())).sqrt()
        x = keep * x - pull * estimate + spread * self.noise(x, row, start)
        return x, {"_step_index": row + 1, "before": clean}


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
