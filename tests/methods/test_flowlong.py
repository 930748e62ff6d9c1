"""FlowLong: its two step rules against diffusers' own scheduler and against co-denoising."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers import scheduling_flow_match_euler_discrete as scheduling
from fakes import bench, flow_schedule, mixing, model_info, vp_schedule
from torch import Tensor

from longgen.core.noise import latent_noise
from longgen.methods.direct import Direct
from longgen.methods.flowlong import FlowLong, noise_share
from longgen.methods.windows import Windows
from longgen.types import Call

INFO = model_info(3)


def test_without_a_stochastic_phase_it_is_co_denoising() -> None:
    for frames in range(1, 14):
        ours, _ = bench(mixing, frames, 6).run(FlowLong(switch=2.0))
        theirs, _ = bench(mixing, frames, 6).run(Windows(weights="linear"))
        assert torch.equal(ours, theirs)


def test_one_window_without_stochastic_phase_is_direct() -> None:
    for schedule in (flow_schedule(7, 3.0), vp_schedule(7)):
        ours, _ = bench(mixing, 3, schedule=schedule).run(FlowLong(switch=2.0))
        assert torch.equal(ours, bench(mixing, 3, schedule=schedule).run(Direct())[0])


def test_early_step_equals_diffusers_stochastic_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlowMatchEulerDiscreteScheduler with stochastic_sampling, scalar path, given the same noise."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)
    scheduler.set_timesteps(5)
    schedule = flow_schedule(5)
    table = schedule.table
    sigma = scheduler.sigmas.float()
    schedule = type(schedule)(type(table)(sigma, 1 - sigma, 1000 * sigma, table.step))
    made = bench(mixing, 9, schedule=schedule, info=INFO)
    method, ctx = FlowLong(switch=0.0, anchor=0), made.context()
    state = method.init(ctx)
    x = state.x
    for row in range(5):
        clean = whole(method, x, schedule, row)
        noise = latent_noise(made.grid, made.seed, 0, 9, f"flowlong/{row}")
        monkeypatch.setattr(scheduling, "randn_tensor", lambda *a, n=noise, **k: n)
        x = scheduler.step((x - clean) / sigma[row], scheduler.timesteps[row], x, return_dict=False)[0]
        monkeypatch.undo()
        state, _ = method.step(ctx, state)
        assert torch.allclose(state.x, x, atol=1e-5)


def whole(method: FlowLong, x: Tensor, schedule: object, row: int) -> Tensor:
    """Fused clean estimates with ramps over the overlap, latent by latent."""
    total, weights = torch.zeros_like(x), torch.zeros(x.shape[2])
    for start in (0, 2, 4, 6):
        frames = tuple(range(start, start + 3))
        y = mixing(Call(x[:, :, start : start + 3], schedule[row], frames))  # type: ignore[index]
        for j, w in enumerate((0.5, 1.0, 0.5)):
            total[:, :, start + j] += w * y[:, :, j]
            weights[start + j] += w
    return total / weights[None, None, :, None, None]


def test_the_phase_changes_at_the_switch() -> None:
    """Below s* a step is deterministic given x; at and above it the noise is drawn for the step and latent."""
    for schedule in (flow_schedule(10), vp_schedule(10)):
        stochastic = [noise_share(schedule[row]) >= 0.6 for row in range(10)]
        assert stochastic == sorted(stochastic, reverse=True) and 0 < sum(stochastic) < 10
        first, second = (bench(mixing, 9, schedule=schedule).run(FlowLong())[0] for _ in range(2))
        assert torch.equal(first, second)
        made = bench(mixing, 9, schedule=schedule)
        drawn: list[str] = []
        ctx = made.context()
        fresh = ctx.fresh

        def counted(tag: str, a: int, b: int, fresh: object = fresh, drawn: list[str] = drawn) -> Tensor:
            drawn.append(tag)
            return fresh(tag, a, b)  # type: ignore[operator]

        object.__setattr__(ctx, "fresh", counted)
        state = FlowLong().init(ctx)
        while not state.done:
            state, _ = FlowLong().step(ctx, state)
        assert len(set(drawn)) == len(drawn) == sum(stochastic)


def test_flow_terms_of_a_level() -> None:
    level = vp_schedule(10)[4]
    assert noise_share(level) == pytest.approx(float(level.sigma / (level.sigma + level.alpha)))
    assert noise_share(flow_schedule(10)[4]) == pytest.approx(0.6)


def test_the_last_step_gives_the_clean_estimate_in_both_phases() -> None:
    for switch in (0.0, 2.0):
        made = bench(mixing, 7, 3)
        method, ctx = FlowLong(switch=switch), made.context()
        state = method.init(ctx)
        for _ in range(2):
            state, _ = method.step(ctx, state)
        last = state.x
        final, _ = method.step(ctx, state)
        again, _ = FlowLong(switch=2.0 - switch).step(ctx, state)
        assert torch.allclose(final.x, again.x, atol=1e-6) and not torch.equal(final.x, last)
