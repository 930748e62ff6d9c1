"""LTX-Video: equal to its own pipeline, native shift at any length, exact decode, patches against references."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.pipelines.ltx.pipeline_ltx_condition import linear_quadratic_schedule
from models import tiny, tiny_ltx
from torch import Tensor

from longgen.errors import BadInput
from longgen.models import ltx
from longgen.models.ltx.info import linear_quadratic
from longgen.models.ltx.vae import reach, stream_decode
from longgen.protocols import Conditions
from longgen.types import Call, Dense, Patch

PROMPT, NEGATIVE = "a red circle moving left", "blurry gray"


@pytest.fixture
def model():
    made = ltx.from_pipeline(tiny_ltx.ltx())
    made.info = replace(made.info, native_frames=33, native_size=(32, 64))
    return made


def denoiser(model, fps=None, **prompts):
    conditions = Conditions(tiny.Prompts(**{"texts": (PROMPT,), "negatives": (NEGATIVE,), **prompts}), fps=fps)
    return model.denoiser(conditions, model.info.grid(33, 32, 64), 4)


def loop(model, x: Tensor, steps: int, scale: float, fps: float) -> Tensor:
    solver, made = model.solver(None, steps, None), denoiser(model, fps, scale=scale)
    memory, frames = solver.init(), tuple(range(x.shape[2]))
    for row in range(steps):
        clean = made.denoise(Call(x, solver.schedule[row], frames))
        x, memory = solver.step(memory, x, clean, row)
    return x


@pytest.mark.parametrize("fps", [25, 12.5])
@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("steps", [4, 7, 25])
def test_equals_the_pipeline_at_two_frame_rates(model, steps, scale, fps):
    x = tiny_ltx.latents()
    want = model.pipe(
        PROMPT, NEGATIVE, height=32, width=64, num_frames=33, frame_rate=fps, num_inference_steps=steps,
        guidance_scale=scale, latents=model.to_model(x), output_type="latent", max_sequence_length=12,
    ).frames  # fmt: skip
    got = loop(model, x, steps, scale, fps)
    assert (model.to_model(got) - want).abs().max() < 1e-5


def test_the_frame_rate_matters(model):
    call = Call(tiny_ltx.latents(), model.solver(None, 4, None).schedule[1], tuple(range(5)))
    one, other = (denoiser(model, fps).denoise(call) for fps in (25, 12.5))
    assert (one - other).abs().max() > 1e-4


def test_packing_round_trip(model):
    x = tiny_ltx.latents()
    assert torch.equal(model.from_model(model.to_model(x), model.info.grid(33, 32, 64)), x)


def test_the_schedule_is_that_of_the_native_length(model):
    """diffusers' own shift grows with the length until the schedule is NaN; this turns red when that is mended."""
    from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift

    scheduler = tiny_ltx.scheduler()
    with_eight_times_the_tokens = calculate_shift(56_672, 1024, 4096, 0.95, 2.05)
    scheduler.set_timesteps(50, sigmas=np.linspace(1.0, 1 / 50, 50), mu=with_eight_times_the_tokens)
    assert scheduler.sigmas.isnan().any(), "diffusers has mended LTX's shift: drop the note in docs/footguns.md"
    ours = model.solver(None, 50, None).schedule.table.sigma
    assert ours.isfinite().all() and (ours.diff() < 0).all()


@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 24])
@pytest.mark.parametrize("chunk", [1, 3])
def test_streamed_decode_is_exact(frames, chunk, conditioned):
    vae = tiny_ltx.vae(conditioned)
    z = tiny_ltx.latents(frames)
    temb = torch.zeros(1) if conditioned else None
    with torch.no_grad():
        mean, std = vae.latents_mean.view(1, -1, 1, 1, 1), vae.latents_std.view(1, -1, 1, 1, 1)
        want = (vae.decode(z * std + mean, temb).sample[0].transpose(0, 1) / 2 + 0.5).clamp(0, 1)
    got = torch.cat(list(stream_decode(vae, iter(z.split(1, dim=2)), chunk, torch.device("cpu"))))
    assert got.shape == want.shape == ((frames - 1) * 8 + 1, 3, 32, 64)
    assert (got - want).abs().max() < 1e-5
    assert reach(vae) < 11, "24 latents must take several pieces"


def test_own_temporal_tiling_is_late():
    """diffusers' tiled decode drops the last frame of later tiles for the first; turns red when mended."""
    vae, z = tiny_ltx.vae(), tiny_ltx.latents(12)
    with torch.no_grad():
        whole = vae.decode(z).sample
        vae.use_framewise_decoding = True
        vae.tile_sample_min_num_frames, vae.tile_sample_stride_num_frames = 48, 32
        tiled = vae.decode(z).sample
    late = (tiled[:, :, 41:80] - whole[:, :, 40:79]).abs().mean()
    right = (tiled[:, :, 41:80] - whole[:, :, 41:80]).abs().mean()
    assert late < right, "diffusers has mended LTX's temporal tiling: drop the note in docs/footguns.md"


def test_a_patch_that_only_attends_is_the_plain_model(model):
    made = denoiser(model)
    call = Call(tiny_ltx.latents(), model.solver(None, 4, None).schedule[1], tuple(range(5)))
    plain, calls = made.denoise(call), []

    def attention(site, q, k, v, rotate, attend):
        calls.append((site.layer, site.branch))
        return attend(rotate(q), rotate(k), v, Dense())[0]

    kept = {n: id(p) for n, p in model.pipe.transformer.attn_processors.items()}
    with made.patched(Patch(attention=attention)):
        hooked = made.denoise(call)
    assert (hooked - plain).abs().max() < 1e-5
    assert sorted(calls) == [(0, "cond"), (0, "uncond"), (1, "cond"), (1, "uncond")]
    with pytest.raises(RuntimeError), made.patched(Patch(attention=attention)):
        raise RuntimeError
    assert kept == {n: id(p) for n, p in model.pipe.transformer.attn_processors.items()}
    assert torch.equal(made.denoise(call), plain)


def test_unchanged_frequencies_and_positions_change_nothing(model):
    made = denoiser(model, fps=12.5)
    call = Call(tiny_ltx.latents(), model.solver(None, 4, None).schedule[1], tuple(range(5)))
    plain = made.denoise(call)
    near = 5e-4  # the model turns by angles of over 1,000 rad in fp32, we by fp64
    with made.patched(Patch(freqs=lambda theta: theta, positions=lambda p: p)):
        assert (made.denoise(call) - plain).abs().max() < near
    with made.patched(Patch(positions=lambda p: p + 3)):  # attention is relative
        assert (made.denoise(call) - plain).abs().max() < near
    with made.patched(Patch(freqs=lambda theta: theta * 0.5)):
        slowed = made.denoise(call)
    assert (slowed - plain).abs().max() > 10 * near
    # Half the frequency is twice the frame rate.
    assert (slowed - denoiser(model, fps=25).denoise(call)).abs().max() < near


def test_one_level_per_latent_equals_the_common_one(model):
    made, schedule = denoiser(model), model.solver(None, 4, None).schedule
    frames = tuple(range(5))
    common = made.denoise(Call(tiny_ltx.latents(), schedule[1], frames))
    spread = made.denoise(Call(tiny_ltx.latents(), schedule[1].spread(5), frames))
    assert (common - spread).abs().max() < 1e-5
    mixed = made.denoise(Call(tiny_ltx.latents(), schedule[torch.tensor([0, 1, 2, 3, 3])], frames))
    assert (mixed - common).abs().max() > 1e-3


def test_texts_per_latent(model):
    """Equal texts change nothing; of two texts each latent sees its own, padding never."""
    call = Call(tiny_ltx.latents(), model.solver(None, 4, None).schedule[1], tuple(range(5)))
    texts = (PROMPT, "a blue star")
    weights = torch.tensor([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 3)
    one = denoiser(model, scale=1.0).denoise(call)
    same = denoiser(model, scale=1.0, texts=(PROMPT, PROMPT), weights=weights).denoise(call)
    assert (same - one).abs().max() < 1e-5
    both = denoiser(model, scale=1.0, texts=texts, weights=weights).denoise(call)
    assert (both - one).abs().max() > 1e-3


@pytest.mark.parametrize("steps", [7, 30, 50])
def test_the_condition_pipelines_schedule(steps):
    want = linear_quadratic_schedule(steps).tolist()
    assert linear_quadratic(steps) == pytest.approx((*want, 0.0), abs=1e-6)


def test_one_step_has_no_schedule(model):
    """diffusers stretches the last level to `shift_terminal`; with a single row that is 0/0."""
    with pytest.raises(BadInput, match="no values at 1 inference steps; use more"):
        model.solver(None, 1, None)
