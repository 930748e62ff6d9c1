"""LTX-2's video: equal to its own pipeline with the sound cut off; levels and texts per latent, patches, decode."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import pytest
import torch
from models import tiny, tiny_ltx, tiny_ltx2
from torch import Tensor

from longgen.errors import BadInput
from longgen.models import describe, ltx2
from longgen.models.common import files_of
from longgen.models.ltx.vae import reach
from longgen.protocols import Conditions
from longgen.types import Call, Dense, FrameWindow, LoadOptions, Patch

PROMPT, NEGATIVE = "a red circle moving left", "blurry gray"
FRAMES = tuple(range(5))
KINDS = {"2.0": {}, "interleaved": {"rope_type": "interleaved"}, "2.3": {"newer": True}}


@functools.cache
def model(kind: str = "2.0"):
    made = ltx2.from_pipeline(tiny_ltx2.ltx2(**KINDS[kind]))
    made.info = replace(made.info, native_frames=33, native_size=(32, 64), text_tokens=12)
    return made


def denoiser(made, fps=None, **prompts):
    conditions = Conditions(tiny.Prompts(**{"texts": (PROMPT,), "negatives": (NEGATIVE,), **prompts}), fps=fps)
    return made.denoiser(conditions, made.info.grid(33, 32, 64), 4)


def call(made, row=1) -> Call:
    schedule = made.solver(None, 4, None).schedule
    return Call(tiny_ltx.latents(), schedule[row if isinstance(row, int) else torch.tensor(row)], FRAMES)


def loop(made, x: Tensor, steps: int, scale: float, fps=None) -> Tensor:
    solver, network = made.solver(None, steps, None), denoiser(made, fps, scale=scale)
    memory = solver.init()
    for row in range(steps):
        clean = network.denoise(Call(x, solver.schedule[row], FRAMES))
        x, memory = solver.step(memory, x, clean, row)
    return x


def plain(made, x: Tensor, steps: int, scale: float, fps: float, modality: float) -> Tensor:
    """The pipeline's own latents, in the transformer's scale; guidance by a negative prompt alone."""
    video = made.pipe(
        PROMPT, NEGATIVE, height=32, width=64, num_frames=33, frame_rate=fps, num_inference_steps=steps,
        guidance_scale=scale, stg_scale=0.0, audio_stg_scale=0.0, modality_scale=modality, audio_modality_scale=1.0,
        guidance_rescale=0.0, audio_guidance_rescale=0.0, latents=made.to_model(x), output_type="latent",
        max_sequence_length=12, return_dict=False, generator=torch.Generator().manual_seed(1),
    )[0]  # fmt: skip
    return made.normalise(video)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "scale", "fps"), [(4, 1.0, 24), (4, 3.0, 24), (7, 3.0, 12.5)])
def test_equals_the_pipeline_without_sound(kind, steps, scale, fps):
    """The whole pipeline, sound and all, with its own switch between the two on."""
    made, x = model(kind), tiny_ltx.latents()
    hook = made.pipe.transformer.register_forward_pre_hook(
        lambda _, args, told: (args, {**told, "isolate_modalities": True}), with_kwargs=True
    )
    try:
        want = plain(made, x, steps, scale, fps, modality=1.0)
    finally:
        hook.remove()
    assert (loop(made, x, steps, scale, fps) - want).abs().max() < 1e-5
    assert (want - x).abs().max() > 1e-1
    assert (plain(made, x, steps, scale, fps, modality=1.0) - want).abs().max() > 1e-4, "sound reaches the picture"


def test_what_the_pipeline_calls_isolated_is_what_we_run():
    """With a modality scale of 0 its own guidance is the isolated estimate, nothing hooked."""
    made, x = model(), tiny_ltx.latents()
    made.pipe.__class__.do_modality_isolation_guidance, kept = (
        property(lambda _: True), made.pipe.__class__.do_modality_isolation_guidance,
    )  # fmt: skip
    try:
        want = plain(made, x, 4, 1.0, 24, modality=0.0)
    finally:
        made.pipe.__class__.do_modality_isolation_guidance = kept
    assert (loop(made, x, 4, 1.0) - want).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_patches_that_change_nothing_leave_nothing(kind):
    made = model(kind)
    network, one = denoiser(made), call(made)
    want, kept = network.denoise(one), {n: id(p) for n, p in made.pipe.transformer.attn_processors.items()}
    for near, patch in (
        (1e-5, Patch(attention=lambda site, q, k, v, rotate, attend: attend(rotate(q), rotate(k), v, Dense())[0])),
        (1e-5, Patch(cross=lambda site, q, k, v, attend: attend(q, k, v, Dense()))),
        (1e-3, Patch(freqs=lambda theta: theta, positions=lambda positions: positions)),  # 1,000 rad in fp32 and fp64
    ):
        with network.patched(patch):
            assert (network.denoise(one) - want).abs().max() < near
    with pytest.raises(RuntimeError, match="planted"), network.patched(Patch(freqs=lambda theta: theta / 2)):
        slowed = network.denoise(one)
        raise RuntimeError("planted")
    assert (slowed - want).abs().max() > 1e-4
    assert kept == {n: id(p) for n, p in made.pipe.transformer.attn_processors.items()}
    assert torch.equal(network.denoise(one), want)


@pytest.mark.parametrize("kind", KINDS)
def test_one_windowed_layer_equals_a_dense_mask(kind):
    """The model's own processor with a mask of pairs in layer 0."""
    spans = ((0, 2), (0, 3), (1, 4), (2, 5), (3, 5))
    low, high = torch.tensor(spans).T
    frame = torch.arange(5 * 32) // 32
    hidden = ~((frame[None] >= low[frame][:, None]) & (frame[None] < high[frame][:, None]))
    made = model(kind)
    network, one, attn = denoiser(made, scale=1.0), call(made), made.pipe.transformer.transformer_blocks[0].attn1
    hook = attn.register_forward_pre_hook(
        lambda _, args, told: (args, {**told, "attention_mask": hidden[None] * -10_000.0}), with_kwargs=True
    )
    try:
        want = network.denoise(one)
    finally:
        hook.remove()

    def windowed(site, q, k, v, rotate, attend):
        return attend(rotate(q), rotate(k), v, FrameWindow(site.tokens, spans) if site.layer == 0 else Dense())[0]

    with network.patched(Patch(attention=windowed)):
        got = network.denoise(one)
    assert (got - want).abs().max() < 1e-5
    assert (got - network.denoise(one)).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["2.0", "2.3"])
def test_levels_texts_and_rates(kind):
    made = model(kind)
    one = denoiser(made).denoise(call(made))
    assert (denoiser(made).denoise(call(made, [1] * 5)) - one).abs().max() < 1e-5
    assert (denoiser(made).denoise(call(made, [0, 1, 2, 3, 3])) - one).abs().max() > 1e-3
    assert (denoiser(made, fps=12.5).denoise(call(made)) - one).abs().max() > 1e-5
    weights = torch.tensor([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 3)
    same = denoiser(made, texts=(PROMPT, PROMPT), weights=weights).denoise(call(made))
    both = denoiser(made, texts=(PROMPT, "a blue star"), weights=weights).denoise(call(made))
    assert (same - one).abs().max() < 1e-5 < 1e-4 < (both - one).abs().max()


@pytest.mark.parametrize(("frames", "chunk"), [(1, 1), (2, 1), (24, 3)])
def test_streamed_decode_is_exact(frames, chunk):
    made, z = model(), tiny_ltx.latents(frames)
    vae = made.pipe.vae
    with torch.no_grad():
        mean, std = vae.latents_mean.view(1, -1, 1, 1, 1), vae.latents_std.view(1, -1, 1, 1, 1)
        want = (vae.decode(z * std + mean).sample[0].transpose(0, 1) / 2 + 0.5).clamp(0, 1)
    got = torch.cat(list(made.decode(iter(z.split(1, dim=2)), chunk)))
    assert got.shape == want.shape == ((frames - 1) * 8 + 1, 3, 32, 64)
    assert (got - want).abs().max() < 1e-5 and reach(vae) < 11


def test_folder_and_pipeline_in_hand_give_the_same_bits(tmp_path):
    folder = tiny.save(model().pipe, tmp_path / "model", **tiny_ltx2.OVERRIDES)
    loaded = ltx2.load(describe.describe(folder), folder, LoadOptions())
    assert torch.equal(loop(loaded, tiny_ltx.latents(), 2, 3.0), loop(model(), tiny_ltx.latents(), 2, 3.0))


def test_what_makes_sound_is_not_loaded(tmp_path):
    folder = tiny.save(model().pipe, tmp_path / "model", **tiny_ltx2.OVERRIDES)
    for part in ("audio_vae", "vocoder"):
        for weights in (folder / part).glob("*.safetensors"):
            weights.unlink()
    loaded = ltx2.load(describe.describe(folder), folder, LoadOptions())
    assert loop(loaded, tiny_ltx.latents(), 2, 3.0).isfinite().all()
    assert loaded.pipe.audio_vae is None and loaded.pipe.vocoder is None


def test_what_the_files_say():
    for kind in KINDS:
        made = model(kind)
        assert made.info.parameters == sum(p.numel() for p in made.pipe.transformer.parameters())
    known = next(info for info in describe.catalogue() if info.family == "ltx2")
    assert (known.native_latents, known.stride, known.spatial, known.layers) == (16, 8, 32, 48)
    assert known.parameters == pytest.approx(19e9, rel=0.05) and math.isclose(known.fps, 24)
    files = files_of(tiny_ltx2.ltx2(rope_theta=500.0))
    with pytest.raises(BadInput, match="other frequencies"):
        ltx2.describe(files)
