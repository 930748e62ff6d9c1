"""Solvers against diffusers' own schedulers, fed what the network predicts; memory as a value."""

import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers import scheduling_dpm_cogvideox, scheduling_flow_match_euler_discrete
from models import tiny

from longgen.core.noise import latent_noise
from longgen.errors import BadInput
from longgen.models import solvers
from longgen.types import LatentGrid, ode_step

STEPS = (1, 2, 4, 7, 25)


def dpm():
    return DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def ddim(kind=CogVideoXDDIMScheduler):
    return kind(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", snr_shift_scale=3.0,
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", set_alpha_to_one=True,
    )  # fmt: skip


def sde():
    return DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, algorithm_type="sde-dpmsolver++"
    )


def ancestral():
    return FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)


NOISY = {"sde": sde, "ancestral": ancestral, "cogvideox-dpm": lambda: ddim(CogVideoXDPMScheduler)}
SCHEDULERS = {"unipc": tiny.unipc, "euler": tiny.euler, "dpm++": dpm, "ddim": ddim}
X = torch.randn(1, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))


def estimate(x, level):
    """A clean estimate that bends with x and σ."""
    return torch.tanh(x * 0.7 + level.sigma) * 1.3


def run(solver, x=X, start=0, memory=None, stop=None, first=0):
    memory = solver.init(start) if memory is None else memory
    for row in range(start, solver.schedule.steps if stop is None else stop):
        x, memory = solver.step(memory, x, estimate(x, solver.schedule[row]), row, first)
    return x, memory


def fresh(tag, start, stop):
    """Noise of the run with seed 7."""
    return latent_noise(LatentGrid(4, 3, 2, 2, stride=4), 7, start, stop, tag)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_equals_the_scheduler_on_network_outputs(name, steps):
    solver = solvers.make(SCHEDULERS[name](), "default", steps)
    own, want = SCHEDULERS[name](), X
    own.set_timesteps(steps)
    for row, t in enumerate(own.timesteps):
        level = solver.schedule[row]
        clean = estimate(want, level)
        if name == "ddim":  # v = (α·x − z)/σ
            output = (level.alpha * want - clean) / level.sigma
        else:
            output = (want - clean) / level.sigma
        want = own.step(output, t, want, return_dict=False)[0]
    assert (run(solver)[0] - want).abs().max() < 1e-5


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_table_is_one(name, steps):
    schedule = solvers.make(SCHEDULERS[name](), None, steps).schedule
    table = schedule.table
    assert schedule.steps == steps and len(table.t) == len(table.alpha) == steps + 1
    assert bool((table.sigma.diff() < 0).all()) and float(table.sigma[-1]) == 0 and float(table.alpha[-1]) == 1
    norm = table.alpha**2 + table.sigma**2 if name == "ddim" else table.alpha + table.sigma
    assert (norm - 1).abs().max() < 1e-6
    assert table.step.tolist() == list(range(steps + 1))


@pytest.mark.parametrize("name", ["euler", "unipc", "dpm++"])
def test_named_rules_keep_the_checkpoints_shift(name):
    solver = solvers.make(tiny.unipc(5.0), name, 7)
    want = {"euler": tiny.euler, "unipc": tiny.unipc}.get(name, lambda shift: None)(5.0)
    if want is not None:
        want.set_timesteps(7)
        assert torch.equal(solver.schedule.table.sigma, want.sigmas)
        assert torch.equal(solver.schedule.table.t[:-1], want.timesteps)
    shifted = solvers.make(tiny.unipc(3.0), name, 7, flow_shift=5.0)
    assert torch.equal(shifted.schedule.table.sigma, solver.schedule.table.sigma)


def test_a_shift_replaces_a_default_too():
    """diffusers remembers which values of a config were defaults, and would put them back."""
    solver = solvers.make(FlowMatchEulerDiscreteScheduler(), None, 7, flow_shift=3.0)
    want = FlowMatchEulerDiscreteScheduler(shift=3.0)
    want.set_timesteps(7)
    assert torch.equal(solver.schedule.table.sigma, want.sigmas)


@pytest.mark.parametrize("name", ["euler", "ddim"])
def test_first_order_rules_are_the_ode_step(name):
    steps = 25  # divides 1000: elsewhere diffusers' DDIM steps to a timestep beside the one that it then calls
    solver = solvers.make(SCHEDULERS[name](), None, steps)
    x = X
    for row in range(steps):
        x = ode_step(x, estimate(x, solver.schedule[row]), solver.schedule[row], solver.schedule[row + 1])
    assert (run(solver)[0] - x).abs().max() < 1e-5


@pytest.mark.parametrize("split", range(8))
@pytest.mark.parametrize("name", SCHEDULERS)
def test_memory_can_be_saved_between_any_two_steps(name, split, tmp_path):
    """Written to disk and read in a fresh solver, it ends with the same bits; other loops in between do no harm."""
    solver = solvers.make(SCHEDULERS[name](), None, 7)
    want, _ = run(solver)
    x, memory = run(solver, stop=split)
    run(solver, x=X + 1)
    torch.save({"x": x, "memory": dict(memory)}, tmp_path / "state")
    saved = torch.load(tmp_path / "state", weights_only=True)
    fresh = solvers.make(SCHEDULERS[name](), None, 7)
    assert torch.equal(run(fresh, saved["x"], split, saved["memory"])[0], want)
    assert torch.equal(run(solver, x, split, memory)[0], want)


def test_memory_is_flat_tensors_and_plain_values():
    _, memory = run(solvers.make(tiny.unipc(), None, 7), stop=5)
    assert memory["_step_index"] == 5
    assert all(value is None or isinstance(value, torch.Tensor | int | float) for value in memory.values())


def test_a_row_that_does_not_follow_is_refused():
    solver = solvers.make(tiny.unipc(), None, 7)
    x, memory = run(solver, stop=3)
    with pytest.raises(ValueError, match="stands at row 3"):
        solver.step(memory, x, x, 5)


@pytest.mark.parametrize("name", ["euler", "unipc", "dpm++"])
def test_a_start_in_the_middle_has_no_history(name):
    solver = solvers.make(tiny.unipc(), name, 7)
    run(solver)
    x, _ = run(solver, start=4)
    assert torch.isfinite(x).all()
    assert torch.equal(x, run(solvers.make(tiny.unipc(), name, 7), start=4)[0])


def test_bad_input():
    with pytest.raises(BadInput, match="unknown solver 'eular'; did you mean 'euler'"):
        solvers.make(tiny.unipc(), "eular", 4)
    with pytest.raises(BadInput, match="at least 1"):
        solvers.make(tiny.unipc(), None, 0)
    with pytest.raises(BadInput, match="needs a flow model"):
        solvers.make(ddim(), "unipc", 4)
    with pytest.raises(BadInput, match="needs a variance-preserving schedule"):
        solvers.make(tiny.unipc(), "ddim", 4)


# ------------------------------------------------------------------------------------------- rules that draw noise


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", NOISY)
def test_equals_the_scheduler_that_is_fed_the_same_noise(name, steps, monkeypatch):
    own, want, row, before = NOISY[name](), X, 0, None
    for module in (scheduling_dpm_cogvideox, scheduling_flow_match_euler_discrete):
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: fresh(f"step{row}", 0, 4))
    own.set_timesteps(steps)
    solver = solvers.make(NOISY[name](), "default", steps).seeded(fresh)
    for row, t in enumerate(own.timesteps):
        level = solver.schedule[row]
        clean = estimate(want, level)
        if name == "cogvideox-dpm":
            v = (level.alpha * want - clean) / level.sigma
            back = int(own.timesteps[row - 1]) if row else None
            want, before = own.step(v, before, int(t), back, want)
            continue
        more = {"variance_noise": fresh(f"step{row}", 0, 4)} if name == "sde" else {}
        want = own.step((want - clean) / level.sigma, t, want, return_dict=False, **more)[0]
    assert (run(solver)[0] - want).abs().max() < 1e-5


@pytest.mark.parametrize("name", NOISY)
def test_noise_belongs_to_seed_latent_and_step(name):
    """The same for a latent in any stretch of any video; other for every latent, step and seed."""
    solver = solvers.make(NOISY[name](), None, 7)
    ours = solver.seeded(fresh)
    whole, _ = run(ours)
    for a, b in ((0, 2), (1, 3), (3, 4)):
        assert (run(ours, X[:, :, a:b], first=a)[0] - whole[:, :, a:b]).abs().max() < 1e-6
    assert torch.equal(run(solvers.make(NOISY[name](), None, 7).seeded(fresh))[0], whole)
    same = torch.zeros_like(X)
    drawn = ours.step(ours.init(3), same, same, 3)[0]
    assert (drawn[:, :, 0] - drawn[:, :, 1]).abs().min() > 0
    assert (ours.step(ours.init(4), same, same, 4)[0] - drawn).abs().min() > 0
    other = solver.seeded(lambda tag, start, stop: fresh("other" + tag, start, stop))
    assert not torch.equal(run(other)[0], whole)


@pytest.mark.parametrize("split", range(8))
@pytest.mark.parametrize("name", NOISY)
def test_noisy_rules_can_be_saved_between_any_two_steps(name, split, tmp_path):
    solver = solvers.make(NOISY[name](), None, 7).seeded(fresh)
    want, _ = run(solver)
    x, memory = run(solver, stop=split)
    torch.save({"x": x, "memory": dict(memory)}, tmp_path / "state")
    saved = torch.load(tmp_path / "state", weights_only=True)
    assert torch.equal(
        run(solvers.make(NOISY[name](), None, 7).seeded(fresh), saved["x"], split, saved["memory"])[0], want
    )


def test_noisy_rules_by_name():
    for scheduler, names in ((tiny.unipc(), ("sde-dpm++", "ancestral")), (ddim(), ("sde-dpm++",))):
        for name in names:
            solver = solvers.make(scheduler, name, 5)
            assert solver.stochastic and torch.isfinite(run(solver.seeded(fresh))[0]).all()
            with pytest.raises(ValueError, match="give it some with seeded"):
                run(solver)
    assert not solvers.make(ddim(CogVideoXDPMScheduler), "ddim", 5).stochastic
