"""Image-to-video: equal to the plain pipelines, by absolute index in any call, refused where it cannot be."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from models import tiny, tiny_cogvideox, tiny_hunyuan, tiny_images, tiny_ltx
from torch import Tensor

from longgen.core.noise import latent_noise
from longgen.errors import BadInput
from longgen.models import cogvideox, hunyuan, ltx, wan
from longgen.models.describe import read_folder
from longgen.models.wan.image import REACH
from longgen.protocols import Conditions
from longgen.types import Call, Dense, LoadOptions, Patch

PROMPT, NEGATIVE = "a red circle moving left", "blurry gray"
WAN = ("2.1", "a14b", "ti2v")


def words(kind: str) -> int:
    """Tokens that a prompt is padded to: attention beside an image encoder's tokens expects 512."""
    return 512 if kind == "2.1" else 12


def wan_model(kind, solver="unipc", **changes):
    made = wan.from_pipeline(tiny_images.wan_i2v(kind, solver, **changes))
    made.info = replace(made.info, native_frames=17, native_size=tiny.size(kind), text_tokens=words(kind))
    return made


def loop(model, conditions: Conditions, x: Tensor, steps: int, frames: int) -> Tensor:
    solver = model.solver(None, steps, None)
    height, width = conditions.image.shape[:2]
    denoiser = model.denoiser(conditions, model.info.grid(frames, height, width), steps)
    memory, indices = solver.init(), tuple(range(x.shape[2]))
    for row in range(steps):
        clean = denoiser.denoise(Call(x, solver.schedule[row], indices))
        x, memory = solver.step(memory, x, clean, row)
    return x


@pytest.mark.parametrize(("solver", "steps", "scale"), [("unipc", 4, 4.0), ("unipc", 7, 1.0), ("euler", 4, 4.0)])
@pytest.mark.parametrize("kind", WAN)
def test_wan_equals_its_image_pipeline(kind, solver, scale, steps):
    model, x = wan_model(kind, solver), tiny.latents()
    height, width = tiny.size(kind)
    picture = tiny_images.image(height, width)
    want = model.pipe(
        picture, PROMPT, NEGATIVE, height, width, 17, steps, scale, latents=x, output_type="latent",
        max_sequence_length=words(kind),
    ).frames  # fmt: skip
    prompts = tiny.Prompts((PROMPT,), (NEGATIVE,), scale)
    got = loop(model, Conditions(prompts, tiny_images.pixels(picture)), x, steps, 17)
    assert (got - want).abs().max() < 1e-5


@pytest.mark.parametrize("kind", WAN)
def test_the_image_matters_to_the_frames_after_it(kind):
    """Guards the test above: a model that ignored its image would pass it."""
    model = wan_model(kind)
    calls = [tiny.call(model)]
    one, other = (
        model.denoiser(
            Conditions(tiny.Prompts(), tiny_images.pixels(tiny_images.image(*tiny.size(kind), seed=seed))),
            model.info.grid(17, *tiny.size(kind)), 4,
        ).denoise_batch(calls)[0] for seed in (0, 1)
    )  # fmt: skip
    assert (one - other)[:, :, 1:].abs().max() > 1e-3


@pytest.fixture
def mean_of_the_posterior(monkeypatch):
    """Some pipelines draw an image's latents; we take their mean, and here so do they."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())


def cogvideox_model(kind="5b", **changes):
    made = cogvideox.from_pipeline(tiny_images.cogvideox_i2v(kind, **changes))
    made.info = replace(made.info, native_frames=17, native_size=(32, 48))
    return made


@pytest.mark.parametrize(("steps", "scale"), [(4, 6.0), (7, 1.0)])
@pytest.mark.parametrize(("kind", "invert"), [("5b", False), ("1.5", True)])
def test_cogvideox_equals_its_image_pipeline(mean_of_the_posterior, kind, invert, steps, scale):
    model, picture = cogvideox_model(kind, invert=invert), tiny_images.image()
    frames = 17  # of five latents, to which 1.5 adds one in front
    x = tiny_cogvideox.latents(model.info.latents_for(frames))
    want = model.pipe(
        picture, PROMPT, NEGATIVE, 32, 48, frames, steps, guidance_scale=scale, latents=x.transpose(1, 2),
        output_type="latent", max_sequence_length=12,
    ).frames.transpose(1, 2)  # fmt: skip
    prompts = tiny.Prompts((PROMPT,), (NEGATIVE,), scale)
    got = loop(model, Conditions(prompts, tiny_images.pixels(picture)), x, steps, frames)
    assert (got - want).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["5b", "1.5"])
def test_cogvideox_image_and_its_place_matter(kind):
    model = cogvideox_model(kind)
    grid = model.info.grid(81, 32, 48)
    one, other = (
        model.denoiser(Conditions(tiny.Prompts(), tiny_images.pixels(tiny_images.image(seed=seed))), grid, 4)
        for seed in (0, 1)
    )
    head = Call(tiny_cogvideox.latents(4), model.solver(None, 4, None).schedule[1], (0, 1, 2, 3))
    later = replace(head, frames=(10, 11, 12, 13))
    assert (one.denoise(head) - other.denoise(head))[:, :, 1:].abs().max() > 1e-4
    assert torch.equal(one.denoise(later), other.denoise(later))


@pytest.mark.parametrize("kind", ["5b", "1.5"])
def test_cogvideox_described_from_json_alone(kind, tmp_path):
    pipe = tiny_images.cogvideox_i2v(kind)
    info = cogvideox.describe(read_folder(tiny.save(pipe, tmp_path / kind, **tiny_cogvideox.OVERRIDES)))
    assert info.needs_image and "image" in info.capabilities and info.channels == 4
    assert info.variant == {"5b": "cogvideox-i2v", "1.5": "cogvideox-1.5-i2v"}[kind]
    assert info.parameters == sum(p.numel() for p in pipe.transformer.parameters())
    assert info.learned_positions == (kind == "5b") and info.native_size == (32, 48)
    assert type(cogvideox.load(info, tmp_path / kind, LoadOptions()).pipe) is type(pipe)


def ltx_model(condition):
    made = ltx.from_pipeline(tiny_images.ltx_i2v(condition))
    made.info = replace(made.info, native_frames=33, native_size=(32, 64))
    return made


def noise(model, seed=5):
    """What the pipelines draw of a generator for five latents, and the generator before that."""
    return torch.randn(1, 8, 5, 4, 8, generator=torch.Generator().manual_seed(seed)), torch.Generator().manual_seed(
        seed
    )


@pytest.mark.parametrize(("fps", "steps", "scale"), [(25, 4, 3.0), (12.5, 4, 3.0), (12.5, 7, 1.0)])
@pytest.mark.parametrize("condition", [False, True])
def test_ltx_equals_its_image_pipelines(mean_of_the_posterior, condition, steps, scale, fps):
    model, picture = ltx_model(condition), tiny_images.image(32, 64)
    x, generator = noise(model)
    more = {"image_cond_noise_scale": 0.0} if condition else {}
    want = model.pipe(
        image=picture, prompt=PROMPT, negative_prompt=NEGATIVE, height=32, width=64, num_frames=33, frame_rate=fps,
        num_inference_steps=steps, guidance_scale=scale, generator=generator, output_type="latent",
        max_sequence_length=12, **more,
    ).frames  # fmt: skip
    conditions = Conditions(tiny.Prompts((PROMPT,), (NEGATIVE,), scale), tiny_images.pixels(picture), fps=fps)
    got = loop(model, conditions, x, steps, 33)
    assert (got - (want if condition else model.from_model(want, model.info.grid(33, 32, 64)))).abs().max() < 1e-5
    assert (got[:, :, :1] - model.encode_video(tiny_images.pixels(picture)[None])).abs().max() < 1e-6


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_ltx_native_prefix_equals_a_conditioning_video(mean_of_the_posterior, scale):
    """What extend's native condition shows the model is what LTXConditionPipeline makes of a video at frame 0."""
    model, steps, known = ltx_model(True), 4, 2
    pictures = [tiny_images.image(32, 64, seed) for seed in range(9)]
    x, generator = noise(model)
    want = model.pipe(
        video=[pictures], prompt=PROMPT, negative_prompt=NEGATIVE, height=32, width=64, num_frames=33, frame_rate=25,
        num_inference_steps=steps, guidance_scale=scale, generator=generator, output_type="latent",
        max_sequence_length=12, image_cond_noise_scale=0.0,
    ).frames  # fmt: skip
    held = model.encode_video(torch.stack([tiny_images.pixels(picture) for picture in pictures]))
    assert held.shape[2] == known
    solver = model.solver(None, steps, None)
    prompts = tiny.Prompts((PROMPT,), (NEGATIVE,), scale)
    made = model.denoiser(Conditions(prompts, fps=25), model.info.grid(33, 32, 64), steps)
    memory = solver.init()
    for row in range(steps):
        x = torch.cat([held, x[:, :, known:]], dim=2)
        rows = torch.tensor([steps] * known + [row] * 3)
        clean = made.denoise(Call(x, solver.schedule[rows], tuple(range(5))))
        x, memory = solver.step(memory, x, clean, row)
    assert (torch.cat([held, x[:, :, known:]], dim=2) - want).abs().max() < 1e-5


@pytest.mark.parametrize("condition", [False, True])
def test_ltx_positions_can_be_patched(condition):
    """Unchanged ones change nothing, in either pipeline's coordinates."""
    model = ltx_model(condition)
    made = model.denoiser(Conditions(tiny.Prompts(scale=1.0), fps=12.5), model.info.grid(33, 32, 64), 4)
    call = Call(tiny_ltx.latents(), model.solver(None, 4, None).schedule[1], tuple(range(5)))
    plain = made.denoise(call)
    with made.patched(Patch(freqs=lambda theta: theta, positions=lambda p: p)):
        assert (made.denoise(call) - plain).abs().max() < 5e-4  # angles of over 1,000 rad, in fp32 and in fp64
    with made.patched(Patch(freqs=lambda theta: theta * 0.5)):
        assert (made.denoise(call) - plain).abs().max() > 5e-3


@pytest.mark.parametrize("condition", [False, True])
def test_ltx_described_from_json_alone(condition, tmp_path):
    pipe = tiny_images.ltx_i2v(condition)
    info = ltx.describe(read_folder(tiny.save(pipe, tmp_path / "ltx", **tiny_ltx.OVERRIDES)))
    assert not info.needs_image and {"image", "prefix_condition"} <= info.capabilities
    assert ltx.load(info, tmp_path / "ltx", LoadOptions()).conditions == condition


def seeing(model, frames=17, **prompts):
    size = model.info.native_size
    conditions = Conditions(tiny.Prompts(**prompts), tiny_images.pixels(tiny_images.image(*size)))
    return model.denoiser(conditions, model.info.grid(frames, *size), 4)


@pytest.mark.parametrize("kind", WAN)
def test_a_call_shows_the_image_where_latent_0_is(kind):
    """A window that retains latent 0 sees it as a clip of its own would; one without it sees none."""
    model = wan_model(kind)
    made = seeing(model, 81)
    whole, retained, later = (
        made.denoise(tiny.call(model, 1, frames=frames)) for frames in (range(5), (0, 17, 18, 19, 20), range(16, 21))
    )
    if kind == "ti2v":  # positions and levels are all that a call knows of its place
        assert torch.equal(whole, retained)
        assert (retained - later)[:, :, 1:].abs().max() > 1e-3
        unseen = model.denoiser(Conditions(tiny.Prompts()), model.info.grid(81, *model.info.native_size), 4)
        assert torch.equal(later, unseen.denoise(tiny.call(model, 1, frames=range(16, 21))))
    else:
        beside = made._seen.of(tiny.call(model, 1, frames=(0, 17, 18, 19, 20)))
        assert beside[:, :4, 0].eq(1).all() and not beside[:, :4, 1:].any()
        assert not made._seen.of(tiny.call(model, 1, frames=range(16, 21)))[:, :4].any()
        assert (retained - later).abs().max() > 1e-3


@torch.no_grad()
def test_grey_latents_stop_changing():
    """What stands beside latents past the encoder's reach is what it makes of a longer clip, at the depth of Wan's."""
    torch.manual_seed(0)
    vae = AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 2, 4, 4], num_res_blocks=2).eval().double()
    clip = torch.zeros(1, 3, 4 * REACH + 1, 16, 16, dtype=torch.float64)
    clip[:, :, 0] = torch.randn(1, 3, 16, 16)
    latents = vae.encode(clip).latent_dist.mode()
    apart = (latents - latents[:, :, -1:]).abs().amax(dim=(0, 1, 3, 4))
    assert not apart[REACH - 1 :].any() and apart[: REACH - 1].all()


@pytest.mark.parametrize("kind", ["2.1", "a14b"])
def test_known_latents_enter_beside_the_noise(kind):
    """extend's native prefix against the transformer called by hand, as the checkpoint takes a clip that goes on."""
    model = wan_model(kind)
    made, frames, known = seeing(model, 81, scale=1.0), tuple(range(8, 13)), 2
    call = tiny.call(model, [4, 4, 1, 1, 1], frames=frames)
    level, x = model.solver(None, 4, None).schedule[1], call.x
    got = made.denoise(call)
    assert torch.equal(got[:, :, :known], x[:, :, :known])
    noise = torch.cat([latent_noise(model.info.grid(81, 32, 48), 0, i, i + 1) for i in frames], dim=2)
    noisy = torch.where(torch.arange(5)[:, None, None] < known, (1 - level.sigma) * x + level.sigma * noise, x)
    shown = made._seen.beside[:, :, list(frames)].clone()
    shown[:, :4, :known], shown[:, 4:, :known] = 1, x[:, :, :known]
    clip = None
    if kind == "2.1":
        clip = model.pipe.encode_image(tiny_images.image(), "cpu")
    expert = model.experts[0 if kind == "2.1" or float(level.t) >= 875 else 1]
    out = expert(torch.cat([noisy, shown], 1), level.t[None], model.encode(made.prompts.texts[0]), clip).sample
    assert (got - (x - level.sigma * out))[:, :, known:].abs().max() < 1e-5


def test_text_patches_leave_the_image_encoder_alone():
    """Attention to the image stands beside that to the text, whatever stands in for the latter."""
    model = wan_model("2.1")
    call = tiny.call(model)
    made, texts = seeing(model), (PROMPT, "a blue star on black")
    plain = made.denoise(call)
    with made.patched(Patch(cross=lambda site, q, k, v, attend: attend(q, k, v, Dense()))):
        assert (made.denoise(call) - plain).abs().max() < 1e-5
    weights = torch.eye(2)[[0, 0, 1, 1, 1]]
    split = seeing(model, texts=texts, weights=weights)
    same = seeing(model, texts=(texts[0], texts[0]), weights=weights, negatives=made.prompts.negatives)
    again = seeing(model, texts=(texts[0],), negatives=made.prompts.negatives).denoise(call)
    assert (same.denoise(call) - again).abs().max() < 1e-5
    assert (split.denoise(call) - again).abs().max() > 1e-3


@pytest.mark.parametrize("kind", WAN)
def test_described_from_json_alone(kind, tmp_path):
    pipe = tiny_images.wan_i2v(kind)
    files = read_folder(tiny.save(pipe, tmp_path / kind, native_size=list(tiny.size(kind))))
    info = wan.describe(files)
    assert info.needs_image == (kind != "ti2v") and "image" in info.capabilities
    assert info.variant == {"2.1": "wan2.1-i2v", "a14b": "wan2.2-a14b-i2v", "ti2v": "wan2.2-ti2v"}[kind]
    assert info.parameters == sum(p.numel() for p in pipe.transformer.parameters())
    loaded = wan.load(info, tmp_path / kind, LoadOptions())
    assert type(loaded.pipe).__name__ == ("WanPipeline" if kind == "ti2v" else "WanImageToVideoPipeline")


def test_what_is_refused():
    needy, text_only = wan_model("2.1"), wan.from_pipeline(tiny.wan())
    grid, prompts = text_only.info.grid(17, 32, 48), tiny.Prompts()
    picture = tiny_images.pixels(tiny_images.image())
    with pytest.raises(BadInput, match="from an image"):
        needy.denoiser(Conditions(prompts), grid, 4)
    with pytest.raises(BadInput, match="takes no image"):
        text_only.denoiser(Conditions(prompts, picture), grid, 4)
    with pytest.raises(BadInput, match="32×48"):
        needy.denoiser(Conditions(prompts, picture.repeat(2, 1, 1)), grid, 4)
    with pytest.raises(BadInput, match="first and a last image"):
        wan.from_pipeline(tiny_images.wan_i2v("2.1", pos_embed_seq_len=10))
    with pytest.raises(BadInput, match="image-to-video checkpoints"):
        wan.from_pipeline(tiny_images.wan_i2v("a14b", in_channels=9))


@pytest.mark.parametrize("kind", WAN)
def test_a_batch_is_its_single_calls(kind):
    model = wan_model(kind)
    made = seeing(model, 81)
    calls = [tiny.call(model, 1, frames=frames) for frames in (range(5), range(8, 13), (0, 17, 18, 19, 20))]
    for one, other in zip(made.denoise_batch(calls), [made.denoise(call) for call in calls], strict=True):
        assert (one - other).abs().max() < 1e-5


def test_hunyuanvideo_from_an_image_is_refused(tmp_path):
    pipe = tiny_hunyuan.hunyuan()
    folder = tiny.save(pipe, tmp_path / "model", **tiny_hunyuan.OVERRIDES)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "HunyuanVideoImageToVideoPipeline"}))
    with pytest.raises(BadInput, match="not supported: only its text-to-video"):
        hunyuan.describe(read_folder(folder))


@torch.no_grad()
def test_attention_beside_an_image_counts_on_512_words():
    """Turns red when diffusers (0.42.1) no longer takes all tokens but the last 512 for the image's."""
    model, seen = wan_model("2.1"), []
    network = model.pipe.transformer
    network.blocks[0].attn2.add_k_proj.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    clip = model.pipe.encode_image(tiny_images.image(), "cpu")
    for length in (512, 12):
        words = model.encode(PROMPT)[:, :length]
        network(torch.zeros(1, 12, 1, 4, 6), torch.tensor([500]), words, clip)
    assert seen == [clip.shape[1], 0]
