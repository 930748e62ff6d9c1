"""SkyReels-V2: equal to its own pipelines, also chunk after chunk; its mask at any length; patches leave no trace."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from diffusers import SkyReelsV2DiffusionForcingPipeline, UniPCMultistepScheduler
from models import tiny, tiny_skyreels
from torch import Tensor

from longgen.errors import BadInput
from longgen.methods.extend import Extend
from longgen.models import describe, skyreels
from longgen.models.common import files_of
from longgen.protocols import Conditions, Context
from longgen.runtime.matrix import refusal
from longgen.types import Call, Dense, Final, FrameWindow, LatentGrid, LoadOptions, Patch

PROMPT, NEGATIVE = "a red circle moving left", "blurry gray"
SIZE = {"height": 32, "width": 48, "output_type": "latent", "max_sequence_length": 12}


@functools.cache
def model(kind: str = "df", **changes):
    return skyreels.from_pipeline(tiny_skyreels.skyreels(kind, **changes))


def denoiser(made, fps=None, **prompts):
    conditions = Conditions(tiny.Prompts(**{"texts": (PROMPT,), "negatives": (NEGATIVE,), **prompts}), fps=fps)
    return made.denoiser(conditions, made.info.grid(17, 32, 48), 4)


def loop(made, x: Tensor, steps: int, scale: float, fps=None, rule=None) -> Tensor:
    solver, network = made.solver(rule, steps, None), denoiser(made, fps, scale=scale)
    memory, frames = solver.init(), tuple(range(x.shape[2]))
    for row in range(steps):
        clean = network.denoise(Call(x, solver.schedule[row], frames))
        x, memory = solver.step(memory, x, clean, row)
    return x


def plain(made, steps: int, scale: float, frames: int = 17, **options) -> tuple[Tensor, Tensor]:
    """The pipeline's own result, and the noise that it began with: diffusion forcing takes no latents."""
    shape = (1, 4, (frames - 1) // 4 + 1, 4, 6)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    video = made.pipe(
        PROMPT, NEGATIVE, num_frames=frames, num_inference_steps=steps, guidance_scale=scale,
        generator=torch.Generator().manual_seed(3), **SIZE, **options,
    ).frames  # fmt: skip
    return video, noise


@pytest.mark.parametrize("scale", [1.0, 6.0])
@pytest.mark.parametrize("steps", [4, 7, 25])
@pytest.mark.parametrize("kind", ["df", "t2v"])
def test_equals_the_pipeline(kind, steps, scale):
    want, noise = plain(model(kind), steps, scale)
    assert (loop(model(kind), noise, steps, scale) - want).abs().max() < 1e-5
    assert (want - noise).abs().max() > 1e-1


def test_the_first_correction_starts_from_the_wrong_sample(monkeypatch):
    """Diffusion forcing overwrites what UniPC remembers of its first step; turns red when mended. `unipc` is right."""
    made, step = model(), UniPCMultistepScheduler.step
    as_it_is, noise = plain(made, 4, 6.0)
    monkeypatch.setattr(
        UniPCMultistepScheduler,
        "step",
        lambda self, output, t, sample, **more: step(self, output, t, sample.clone(), **more),
    )
    mended, _ = plain(made, 4, 6.0)
    assert (as_it_is - mended).abs().max() > 1e-2, "diffusers has mended the first step: see docs/footguns.md"
    assert (loop(made, noise, 4, 6.0, rule="unipc") - mended).abs().max() < 1e-5


@pytest.mark.parametrize("fps", [16, 24])
def test_the_frame_rate_is_read_where_the_checkpoint_reads_it(fps):
    made = model("df", inject_sample_info=True)
    want, noise = plain(made, 4, 6.0, fps=fps)
    ours = {rate: loop(made, noise, 4, 6.0, rate) for rate in (16, 24)}
    assert (ours[fps] - want).abs().max() < 1e-5
    assert (ours[16] - ours[24]).abs().max() > 1e-3


def test_a_pipeline_that_is_refused_its_latents():
    """Upstream unpacks four values from one tensor; turns red when mended, then `plain` can pass its noise."""
    with pytest.raises(ValueError, match="unpack"):
        model().pipe(PROMPT, NEGATIVE, num_frames=17, num_inference_steps=2, latents=tiny.latents(), **SIZE)


# ---------------------------------------------------------------------------------------------------- diffusion forcing


def test_one_level_per_latent_is_what_the_network_does():
    """Against the transformer called by hand with its own [B, T] timesteps; text-to-video follows, untrained."""
    for kind in ("df", "t2v"):
        made = model(kind)
        call, network = tiny.call(made, [0, 3, 1, 2, 3]), denoiser(made, scale=1.0)
        with torch.no_grad():
            v = made.pipe.transformer(
                call.x, call.level.t[None], network.encode(PROMPT), enable_diffusion_forcing=True, return_dict=False
            )[0]
        want = call.x - call.level.sigma[None, None, :, None, None] * v
        assert (network.denoise(call) - want).abs().max() < 1e-6
        common, spread = (network.denoise(tiny.call(made, row)) for row in (2, [2] * 5))
        assert (common - spread).abs().max() < 1e-5 < (common - want).abs().max()


def chunks(made, noise: Tensor, steps: int, **settings) -> Tensor:
    """extend over windows of 5 latents that overlap by 2, from given noise."""
    solver, network = made.solver(None, steps, None), denoiser(made, scale=6.0)
    method = Extend(window_latents=5, overlap_latents=2, condition="native", **settings).fit(made.info)
    grid = LatentGrid(noise.shape[2], 4, 4, 6, 4)
    context = Context(
        denoise=lambda calls: [network.denoise(call) for call in calls], solver=solver, schedule=solver.schedule,
        grid=grid, info=made.info, seed=0, noise=lambda a, b: noise[:, :, a:b],
        fresh=lambda tag, a, b: tiny.latents(b - a, seed=a), device=torch.device("cpu"),
    )  # fmt: skip
    state, finals = method.init(context), []
    while not state.done:
        state, events = method.step(context, state)
        finals += [event.x for event in events if isinstance(event, Final)]
    return torch.cat(finals, dim=2)


def test_native_extension_is_the_pipelines_long_mode():
    """11 latents: a whole window, then two that continue two clean latents each."""
    made, generator = model(), torch.Generator().manual_seed(3)
    draws = [torch.randn(1, 4, 5, 4, 6, generator=generator) for _ in range(3)]
    noise = torch.cat([draws[0], draws[1][:, :, 2:], draws[2][:, :, 2:]], dim=2)
    long = {"base_num_frames": 17, "overlap_history": 5}
    want, _ = plain(made, 4, 6.0, 41, **long)
    assert want.shape[2] == 11
    got = chunks(made, noise, 4)
    assert (got - want).abs().max() < 1e-5
    assert (got - chunks(made, noise, 4, condition_noise=0.02)).abs().max() > 1e-3


# --------------------------------------------------------------------------------------------------------- block-causal


@pytest.mark.parametrize("frames", [17, 21])
def test_a_block_causal_mask_at_any_length(frames):
    """Six latents are three blocks of two and equal the pipeline; five are two and a half, which it cannot run."""
    made = model("df", num_frame_per_block=2)
    want, noise = plain(made, 4, 6.0, frames)
    got = loop(made, noise, 4, 6.0)
    assert made.pipe.transformer.config.num_frame_per_block == 2
    if frames == 17:
        assert torch.equal(want[:, :, 4:], noise[:, :, 4:]), "diffusers has mended the tail: see docs/footguns.md"
        with pytest.raises(RuntimeError, match="invalid for input of size"):  # neither can the network's own mask
            made.pipe.transformer(noise, torch.tensor([1]), torch.zeros(1, 12, 16))
        # A causal first part does not know how long the video is, so a longer one with whole blocks is the truth.
        longer = torch.cat([noise, tiny.latents(1)], dim=2)
        assert (loop(made, longer, 4, 6.0)[:, :, :4] - got[:, :, :4]).abs().max() < 1e-5
        assert (got[:, :, 4:] - noise[:, :, 4:]).abs().max() > 1e-1
    else:
        assert (got - want).abs().max() < 1e-5
        assert (got - loop(model("df"), noise, 4, 6.0)).abs().max() > 1e-3


def test_block_causal_masks_leave_attention_to_no_method():
    info = model("df", num_frame_per_block=2).info
    assert "already says which keys" in refusal("freenoise", info)
    assert refusal("fifo", info) is None and refusal("riflex", info) is None
    made, texts = model("df", num_frame_per_block=2), (PROMPT, "a blue star")
    weights = torch.tensor([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 3)
    call, kept = tiny.call(made), traces(made)
    both = denoiser(made, texts=texts, weights=weights)
    outside = both.denoise(call)
    with both.patched(Patch(freqs=lambda theta: theta)):
        assert (both.denoise(call) - outside).abs().max() < 1e-5
    assert traces(made) == kept


def test_the_block_of_one_call_stays_for_the_next():
    """Upstream writes it into the transformer's config; turns red when mended."""
    pipe = tiny_skyreels.skyreels()
    pipe(PROMPT, num_frames=21, num_inference_steps=2, causal_block_size=2, **SIZE)
    assert pipe.transformer.config.num_frame_per_block == 2


# -------------------------------------------------------------------------------------------------------------- patches


def traces(made):
    transformer = made.pipe.transformer
    tables = (id(transformer.rope.freqs_cos), id(transformer.rope.freqs_sin), transformer.config.num_frame_per_block)
    return [id(b.attn1.processor) for b in transformer.blocks] + [
        id(b.attn2.processor) for b in transformer.blocks
    ], tables


@pytest.mark.parametrize("kind", ["df", "t2v"])
def test_patches_that_change_nothing(kind):
    made = model(kind)
    network, call, kept = denoiser(made), tiny.call(made), traces(made)
    want = network.denoise(call)
    for patch in (
        Patch(attention=lambda site, q, k, v, rotate, attend: attend(rotate(q), rotate(k), v, Dense())[0]),
        Patch(cross=lambda site, q, k, v, attend: attend(q, k, v, Dense()), freqs=lambda theta: theta),
        Patch(positions=lambda positions: positions + 7),  # rotary attention is relative
    ):
        with network.patched(patch):
            assert (network.denoise(call) - want).abs().max() < 1e-5
    with pytest.raises(RuntimeError, match="planted"), network.patched(Patch(freqs=lambda theta: theta / 2)):
        assert (network.denoise(call) - want).abs().max() > 1e-3
        raise RuntimeError("planted")
    assert traces(made) == kept and torch.equal(network.denoise(call), want)


@pytest.mark.parametrize("rows", [1, [0, 3, 1, 2, 3]])
def test_one_windowed_layer_equals_a_dense_mask(rows):
    spans = ((0, 2), (0, 3), (1, 4), (2, 5), (3, 5))
    low, high = torch.tensor(spans).T
    frame = torch.arange(30) // 6
    visible = (frame[None] >= low[frame][:, None]) & (frame[None] < high[frame][:, None])

    def windowed(site, q, k, v, rotate, attend):
        return attend(rotate(q), rotate(k), v, FrameWindow(site.tokens, spans) if site.layer == 0 else Dense())[0]

    def masked(site, q, k, v, rotate, attend):
        logits = torch.einsum("bqnd,bknd->bnqk", rotate(q), rotate(k)) / math.sqrt(q.shape[-1])
        logits = logits.masked_fill(~visible, -torch.inf) if site.layer == 0 else logits
        return torch.einsum("bnqk,bknd->bqnd", logits.softmax(-1), v)

    network, call, outcomes = denoiser(model()), tiny.call(model(), rows), []
    for hook in (windowed, masked):
        with network.patched(Patch(attention=hook)):
            outcomes.append(network.denoise(call))
    assert (outcomes[0] - outcomes[1]).abs().max() < 1e-5
    assert (outcomes[0] - network.denoise(call)).abs().max() > 1e-3


def test_texts_and_levels_matter():
    made = model()
    call, texts = tiny.call(made), (PROMPT, "a blue star on black")
    one = denoiser(made).denoise(call)
    weights = torch.tensor([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 3)
    both = denoiser(made, texts=texts, weights=weights).denoise(call)
    assert (both - one).abs().max() > 1e-2
    assert (denoiser(made).denoise(tiny.call(made, 3)) - one).abs().max() > 1e-2


# ---------------------------------------------------------------------------------------------------- files and decoder


@pytest.mark.parametrize("kind", ["df", "t2v"])
def test_folder_and_pipeline_in_hand_give_the_same_bits(kind, tmp_path):
    made = model(kind)
    folder = tiny.save(made.pipe, tmp_path / "model", **tiny_skyreels.OVERRIDES)
    info = describe.describe(folder)
    loaded = skyreels.load(info, folder, LoadOptions())
    assert type(loaded.pipe) is type(made.pipe)
    assert torch.equal(loop(loaded, tiny.latents(), 4, 6.0), loop(made, tiny.latents(), 4, 6.0))
    z = tiny.latents(4)
    mean, std = (
        torch.tensor(v).view(1, -1, 1, 1, 1)
        for v in (made.pipe.vae.config.latents_mean, made.pipe.vae.config.latents_std)
    )
    with torch.no_grad():
        want = (made.pipe.vae.decode(z * std + mean).sample[0].transpose(0, 1) / 2 + 0.5).clamp(0, 1)
    assert (torch.cat(list(loaded.decode(iter(z.split(1, dim=2)), 2))) - want).abs().max() < 1e-5
    frames = (torch.rand(5, 32, 48, 3) * 255).byte()
    with torch.no_grad():
        latent = made.pipe.vae.encode(frames.permute(3, 0, 1, 2)[None] / 127.5 - 1).latent_dist.mode()
    assert (loaded.encode_video(frames) - (latent - mean) / std).abs().max() < 1e-5


def test_what_the_files_say():
    infos = {info.id: info for info in describe.catalogue() if info.family == "skyreels"}
    small = infos["Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers"]
    assert (small.native_latents, small.native_size, small.flow_shift, small.fps) == (25, (544, 960), 8.0, 24)
    large = infos["Skywork/SkyReels-V2-DF-14B-720P-Diffusers"]
    assert (large.native_latents, large.native_size) == (31, (720, 1280))
    assert large.parameters == pytest.approx(14.29e9, rel=1e-3)
    for changes in ({}, {"inject_sample_info": True}):
        made = model("df", **changes)
        assert made.info.parameters == sum(p.numel() for p in made.pipe.transformer.parameters())
    assert "prefix_condition" in model("df").info.capabilities
    assert "diffusion-forcing" in model("t2v").info.refusals["prefix_condition"]


def test_the_shift_is_the_authors_unless_the_scheduler_has_one():
    shifts = {told: skyreels.describe(files_of(tiny_skyreels.skyreels(shift=told))).flow_shift for told in (1.0, 5.0)}
    assert shifts == {1.0: 8.0, 5.0: 5.0}


def test_what_is_not_supported():
    pipe = tiny_skyreels.skyreels(in_channels=8)
    with pytest.raises(BadInput, match="takes 8 channels"):
        skyreels.from_pipeline(pipe)
    files = files_of(model().pipe)
    files.index["_class_name"] = "SkyReelsV2ImageToVideoPipeline"
    with pytest.raises(BadInput, match=SkyReelsV2DiffusionForcingPipeline.__name__):
        skyreels.describe(files)
