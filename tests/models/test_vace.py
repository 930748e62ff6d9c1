"""Wan-VACE against WanVACEPipeline: plain runs, the control branch's input, windows, patches, and descriptions."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKLWan
from models import tiny, tiny_vace
from PIL import Image

from longgen.core.noise import latent_noise
from longgen.errors import BadInput
from longgen.models import vace, wan
from longgen.models.describe import assets, read_folder
from longgen.models.images import at_one_level
from longgen.models.vace.denoiser import frame_mask
from longgen.models.wan.vae import memory, normalise, stream_encode
from longgen.protocols import Conditions
from longgen.shapes.grammar import parse
from longgen.shapes.render import draw, render, to_uint8
from longgen.types import Call, Dense, LatentGrid, Level, LoadOptions, Patch

PROMPT, NEGATIVE = "a red circle moving left", "blurry gray"
SIZE = (tiny.HEIGHT, tiny.WIDTH)


def pictures(frames):
    return [Image.fromarray(frame) for frame in frames.numpy()]


def denoiser_of(model, latents, control=None, steps=4, **prompts):
    grid = LatentGrid(latents, 4, 4, 6, 4, (1, 2, 2))
    return model.denoiser(Conditions(tiny.Prompts((PROMPT,), (NEGATIVE,), **prompts), control=control), grid, steps)


def loop(model, x, steps, control, scale):
    """x_T → x_0 over the checkpoint's own solver."""
    solver = model.solver(None, steps, None)
    denoiser = denoiser_of(model, x.shape[2], control, steps, scale=scale)
    memory_, frames = solver.init(), tuple(range(x.shape[2]))
    for row in range(steps):
        clean = denoiser.denoise(Call(x, solver.schedule[row], frames))
        x, memory_ = solver.step(memory_, x, clean, row)
    return x


@pytest.mark.parametrize("experts", [1, 2])
@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("solver", ["unipc", "euler"])
def test_equals_the_pipeline_with_and_without_control(solver, scale, experts):
    pipe, x, control = tiny_vace.vace(solver, experts), tiny.latents(), tiny_vace.depth(17)
    outcomes = []
    for shown in (control, None):
        video = None if shown is None else pictures(shown)
        want = pipe(
            PROMPT, NEGATIVE, video=video, height=SIZE[0], width=SIZE[1], num_frames=17, num_inference_steps=4,
            guidance_scale=scale, latents=x, output_type="latent", max_sequence_length=12,
        ).frames  # fmt: skip
        got = loop(vace.from_pipeline(pipe), x, 4, shown, scale)
        assert (got - want).abs().max() < 1e-5
        outcomes.append(got)
    assert (outcomes[0] - outcomes[1]).abs().max() > 1e-2  # the control matters


def test_folder_and_pipeline_in_hand_give_the_same_bits(tmp_path):
    pipe, x, control = tiny_vace.vace(), tiny.latents(), tiny_vace.depth(17)
    folder = tiny.save(pipe, tmp_path / "model")
    loaded = vace.load(vace.describe(read_folder(folder)), folder, LoadOptions())
    assert torch.equal(loop(loaded, x, 3, control, 4.0), loop(vace.from_pipeline(pipe), x, 3, control, 4.0))


# --------------------------------------------------------------------------------------------------- encoding a stream


@pytest.mark.parametrize("version", ["2.1", "2.2"])
@pytest.mark.parametrize("tiled", [False, True])
@torch.no_grad()
def test_streamed_encode_equals_the_vaes_own(version, tiled):
    vae = tiny.vae(version)
    side = vae.spatial_compression_ratio
    if tiled:  # 4×4 latents each, which diffusers counts in patchified frames
        tile = side // (vae.config.patch_size or 1)
        vae.enable_tiling(4 * tile, 4 * tile, 3 * tile, 2 * tile)
    for count in (1, 9):
        frames = torch.rand(count, 3, 6 * side, 5 * side, generator=torch.Generator().manual_seed(count)) * 2 - 1
        want = normalise(vae, vae.encode(frames.transpose(0, 1)[None]).latent_dist.mode())
        got = torch.cat(list(stream_encode(vae, frames)), dim=2)
        assert got.shape == want.shape and (got - want).abs().max() < 1e-5
    if tiled:
        whole = tiny.vae(version).encode(frames.transpose(0, 1)[None]).latent_dist.mode()
        assert (normalise(vae, whole) - want).abs().max() > 1e-4  # tiling did take place


def test_control_is_read_as_a_stream():
    model, read, alive = vace.from_pipeline(tiny_vace.vace()), [], []

    def source():
        for i, frame in enumerate(tiny_vace.depth(41)):
            read.append(i)
            yield frame

    pieces = stream_encode(model.pipe.vae, (f.permute(2, 0, 1) / 127.5 - 1 for f in source()))
    for _ in pieces:
        alive.append(len(read))
    assert alive == [1, *range(5, 42, 4)]  # never more frames than the latents so far need
    whole = model.encode_control(tiny_vace.depth(41))
    assert whole.shape == (1, 4, 11, 4, 6)


@torch.no_grad()
def test_gray_settles_and_is_then_repeated():
    """Past the encoder's memory the gray of a longer video is the same to the bit."""
    model = vace.from_pipeline(tiny_vace.vace())
    span = memory(model.pipe.vae)
    frames = torch.zeros((span + 6) * 4 + 1, 3, 8, 8)
    whole = torch.cat(list(stream_encode(model.pipe.vae, frames)), dim=2)
    assert torch.equal(whole[:, :, span:], whole[:, :, span : span + 1].expand_as(whole[:, :, span:]))
    assert not torch.equal(whole[:, :, 0], whole[:, :, span])
    grid = LatentGrid(span + 7, 4, 1, 1, 4, (1, 1, 1))
    gray = model.encode_gray(grid)
    assert gray.shape[2] == span + 1 and torch.equal(gray, whole[:, :, : span + 1])


# ------------------------------------------------------------------------------------------------- the branch's input


def truth(pipe, video, mask):
    """[1, 72, T, 4, 6] as the pipeline builds it from frames and a mask of frames (1: to be made)."""
    video, mask, reference = pipe.preprocess_conditions(
        pictures(video), pictures(mask), None, 1, *video.shape[1:3], len(video), torch.float32, torch.device("cpu")
    )
    latents = pipe.prepare_video_latents(video, mask, reference, None, torch.device("cpu"))
    return torch.cat([latents, pipe.prepare_masks(mask, reference, None)], dim=1)


def masks(frames, known, size=SIZE):
    mask = torch.full((frames, *size, 3), 255, dtype=torch.uint8)
    mask[:known] = 0
    return mask


def prefix_call(model, z, latents):
    """A call whose first latents are z, clean, at level 0."""
    schedule = model.solver(None, 4, None).schedule
    k = z.shape[2]
    level = Level.cat([schedule[4].spread(k), schedule[1].spread(latents - k)])
    x = torch.cat([z, tiny.latents(latents - k)], dim=2)
    return Call(x, level, tuple(range(latents)))


def forgetful(pipe):
    """The VAE without memory: what a frame leaves of itself in later latents is nothing."""
    with torch.no_grad():
        for module in pipe.vae.modules():
            if isinstance(module, torch.nn.Conv3d) and module.kernel_size[0] == 3:
                module.weight[:, :, :2] = 0
    return pipe


@torch.no_grad()
@pytest.mark.parametrize("known", [1, 2, 3, 4])
def test_a_prefix_becomes_what_the_pipeline_makes_of_known_frames(known):
    """All of it where the VAE has no memory; else all but what follows the known part: their pictures were random."""
    frames = tiny_vace.depth(17)
    for pipe in (tiny_vace.vace(), forgetful(tiny_vace.vace())):
        model = vace.from_pipeline(pipe)
        z = model.encode_video(frames[: 4 * known - 3])
        want = truth(pipe, frames, masks(17, 4 * known - 3))
        got = denoiser_of(model, 5, frames).control(prefix_call(model, z, 5))
        assert got.shape == want.shape == (1, 72, 5, 4, 6)
        assert (got[:, :8, :known] - want[:, :8, :known]).abs().max() < 1e-5, "known latents"
        assert torch.equal(got[:, 8:], want[:, 8:]), "mask"
        later = (got[:, :8, known:] - want[:, :8, known:]).abs().max()
        assert later > 1e-4 or pipe.vae.encoder.conv_in.weight[:, :, 0].abs().max() == 0
    assert later < 1e-5, "after the known frames, VAE without memory"


@torch.no_grad()
def test_the_gray_after_known_latents_remembers_them():
    """With a trained VAE what follows the known part is nearly the pipeline's, too; plain gray is not."""
    trained = AutoencoderKLWan.from_pretrained(assets() / "shapes" / "vae")
    pipe = tiny_vace.vace()
    pipe = type(pipe)(**{
        **pipe.components, "vae": trained, "transformer": tiny_vace.transformer(channels=8, shown=2 * 8 + 16)
    })  # fmt: skip
    model = vace.from_pipeline(pipe)
    scene = draw([parse("a red circle drifting right on a black background")], torch.Generator().manual_seed(0))
    frames = to_uint8(render(scene, 17))[0]
    z, schedule = model.encode_video(frames[:9]), model.solver(None, 4, None).schedule
    level = Level.cat([schedule[4].spread(3), schedule[1].spread(2)])
    call = Call(torch.cat([z, torch.randn(1, 8, 2, 16, 16)], dim=2), level, tuple(range(5)))
    denoiser = model.denoiser(Conditions(tiny.Prompts()), LatentGrid(5, 8, 16, 16, 4, (1, 2, 2)), 4)
    got, want = denoiser.control(call)[:, :8, 3:], truth(pipe, frames, masks(17, 9, (64, 64)))[:, :8, 3:]
    error, plain = ((a - want).pow(2).mean().sqrt() for a in (got, denoiser.gray[:, :, 3:]))
    assert error < 0.2 * plain, (error, plain)
    encoded = []
    model.encode_after = lambda *_: encoded.append(1)
    denoiser.control(call)
    assert not encoded, "once for all steps of a chunk"


@torch.no_grad()
def test_masks_at_every_length_are_the_pipelines():
    pipe = tiny_vace.vace()
    for latents in range(1, 34):
        for known in range(latents):
            made = torch.arange(latents) >= known
            frames = 4 * latents - 3
            mask = torch.ones(1, 3, frames, 8, 8)
            mask[:, :, : 4 * known - 3 if known else 0] = 0
            want = pipe.prepare_masks(torch.nn.functional.interpolate(mask, size=(frames, 16, 16)), [[]])
            got = frame_mask(made[:, None, None], 4).flatten()
            assert torch.equal(got, want[0, 0, :, 0, 0]), (latents, known)
    short = frame_mask((torch.arange(21) >= 3)[:, None, None], 4).flatten()
    assert short.tolist() == [0.0, 0.0] + [1.0] * 19  # upstream: the last of three known latents counts as unknown


def test_a_first_image_is_a_known_latent():
    model, image = vace.from_pipeline(tiny_vace.vace()), tiny_vace.depth(1)[0]
    grid = LatentGrid(5, 4, 4, 6, 4, (1, 2, 2))
    denoiser = model.denoiser(Conditions(tiny.Prompts((PROMPT,), (NEGATIVE,)), image=image), grid, 4)
    call, z = tiny.call(model), model.encode_video(image[None])
    held = prefix_call(model, z, 5)
    held = replace(held, x=torch.cat([z, call.x[:, :, 1:]], dim=2))
    clean = denoiser.denoise(call)
    assert torch.equal(clean, denoiser_of(model, 5).denoise(held))
    assert torch.equal(clean[:, :, :1], z)


@torch.no_grad()
def test_every_call_gets_the_slice_of_the_control_that_its_frames_name():
    model = vace.from_pipeline(tiny_vace.vace())
    control = tiny_vace.depth(49)
    whole = model.encode_video(control)  # by the VAE's own encode
    denoiser = denoiser_of(model, 13, control)
    level = model.solver(None, 4, None).schedule[1]
    for frames in [(0, 1, 2, 3, 4), (6, 7, 8, 9, 10), (12,), (0, 7, 8, 9, 12)]:
        call = Call(tiny.latents(len(frames)), level, frames)
        got = denoiser.control(call)
        assert (got[:, 4:8] - whole[:, :, list(frames)]).abs().max() < 1e-5
        assert (got[:, 8:] == 1).all()
    one, other = (denoiser.denoise(Call(tiny.latents(), level, tuple(range(a, a + 5)))) for a in (0, 7))
    assert (one - other).abs().max() > 1e-2


@torch.no_grad()
def test_known_latents_are_shown_at_the_level_of_the_others():
    """Their content enters through the branch; the model's x is α·z + σ·ε there."""
    model = vace.from_pipeline(tiny_vace.vace())
    denoiser, z = denoiser_of(model, 5), tiny.latents(2, seed=8)
    call = prefix_call(model, z, 5)
    shown, level = at_one_level(call, denoiser._noise), model.solver(None, 4, None).schedule[1]
    noise = latent_noise(denoiser.grid, 0, 0, 5)
    assert shown.level.uniform and torch.equal(shown.level.t, level.t)
    want = level.alpha * z + level.sigma * noise[:, :, :2]
    assert torch.allclose(shown.x[:, :, :2], want) and torch.equal(shown.x[:, :, 2:], call.x[:, :, 2:])
    assert torch.equal(denoiser.denoise(call)[:, :, :2], z)  # a known latent is its own clean estimate
    other = prefix_call(model, tiny.latents(2, seed=9), 5)
    assert (denoiser.denoise(other) - denoiser.denoise(call))[:, :, 2:].abs().max() > 1e-2
    mixed = replace(call, level=model.solver(None, 4, None).schedule[torch.tensor([4, 1, 2, 3, 3])])
    with pytest.raises(ValueError, match="one level"):
        denoiser.denoise(mixed)


def test_a_known_prefix_runs_one_expert():
    model = vace.from_pipeline(tiny_vace.vace(experts=2))
    denoiser, ran = denoiser_of(model, 5), []
    for i, expert in enumerate(model.experts):
        expert.register_forward_hook(lambda *_, i=i: ran.append(i))
    schedule = model.solver(None, 4, None).schedule
    for row in (0, 3):
        level = Level.cat([schedule[4].spread(2), schedule[row].spread(3)])
        denoiser.denoise(Call(tiny.latents(), level, (0, 1, 2, 3, 4)))
    assert ran == [0, 0, 1, 1]  # both sides of guidance, one expert each


# -------------------------------------------------------------------------------------------------------------- patches


def test_patches_act_in_the_control_blocks_too():
    model = vace.from_pipeline(tiny_vace.vace())
    denoiser, seen, shared = denoiser_of(model, 5, tiny_vace.depth(17)), [], []
    call = tiny.call(model)
    want = denoiser.denoise(call)

    def record(site, q, k, v, rotate, attend):
        seen.append(site.layer)
        return attend(rotate(q), rotate(k), v, Dense())[0]

    def share(site, k, v):
        shared.append(site.layer)
        return k, v

    before = [id(b.attn1.processor) for b in model.pipe.transformer.vace_blocks]
    with denoiser.patched(Patch(attention=record, kv=share, cross=lambda s, q, k, v, attend: attend(q, k, v, Dense()))):
        got = denoiser.denoise(call)
    assert (got - want).abs().max() < 1e-5
    assert seen == [0, 2, 0, 1, 2] * 2  # control blocks come first, as the layers that they feed
    assert shared == [0, 1, 2] * 2
    assert [id(b.attn1.processor) for b in model.pipe.transformer.vace_blocks] == before
    assert torch.equal(denoiser.denoise(call), want)


def test_a_route_in_the_control_blocks_alone_changes_the_result():
    model = vace.from_pipeline(tiny_vace.vace())
    denoiser, call, count = denoiser_of(model, 5, tiny_vace.depth(17)), tiny.call(model), [0]

    def own_frame(site, q, k, v, rotate, attend):
        count[0] += 1
        if (count[0] - 1) % 5 >= 2:  # the main blocks
            return attend(rotate(q), rotate(k), v, Dense())[0]
        frames = zip(*(t.split(site.tokens, 1) for t in (rotate(q), rotate(k), v)), strict=True)
        return torch.cat([attend(*frame, Dense())[0] for frame in frames], 1)

    want = denoiser.denoise(call)
    with denoiser.patched(Patch(attention=own_frame)):
        assert (denoiser.denoise(call) - want).abs().max() > 1e-4


def test_texts_per_latent_reach_the_control_blocks():
    """Two equal texts, half the latents each, are one text."""
    model = vace.from_pipeline(tiny_vace.vace())
    grid, control = LatentGrid(5, 4, 4, 6, 4, (1, 2, 2)), tiny_vace.depth(17)
    weights = torch.tensor([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 3)
    outcomes = [
        model.denoiser(Conditions(tiny.Prompts(texts, weights=w), control=control), grid, 4).denoise(tiny.call(model))
        for texts, w in (((PROMPT,), None), ((PROMPT, PROMPT), weights), ((PROMPT, "a blue star"), weights))
    ]
    assert (outcomes[0] - outcomes[1]).abs().max() < 1e-5
    assert (outcomes[0] - outcomes[2]).abs().max() > 1e-3


# --------------------------------------------------------------------------------------------------------- descriptions


def test_described_from_json_alone(tmp_path):
    pipe = tiny_vace.vace()
    folder = tiny.save(pipe, tmp_path / "model")
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    info = vace.describe(read_folder(folder))
    assert info.variant == "wan2.1-vace" and info.family == "wan" and info.control_layers == 2
    assert {"control", "prefix_condition", "windows"} <= info.capabilities
    assert "per_latent_level" not in info.capabilities and "timestep" in info.refusals["per_latent_level"]
    assert info.parameters == sum(p.numel() for p in pipe.transformer.parameters())
    assert vace.from_pipeline(tiny_vace.vace(experts=2)).info.variant == "wan2.2-vace"


def test_what_is_no_vace_is_refused(tmp_path):
    folder = tiny.save(tiny_vace.vace(), tmp_path / "model")
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (folder / "transformer" / "config.json").write_text(json.dumps(config | {"vace_in_channels": 96}))
    with pytest.raises(BadInput, match="takes 96 channels"):
        vace.describe(read_folder(folder))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "WanPipeline"}))
    with pytest.raises(BadInput, match="supported: WanVACEPipeline"):
        vace.describe(read_folder(folder))


def test_a_checkpoint_without_control_refuses_it():
    model = wan.from_pipeline(tiny.wan())
    with pytest.raises(BadInput, match="Wan-VACE does"):
        denoiser_of(model, 5, tiny_vace.depth(17))
