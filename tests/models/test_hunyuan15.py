"""HunyuanVideo-1.5: equal to its own pipeline, padding left out, quoted words, exact decode in pieces, patches."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import HunyuanVideo15Pipeline
from models import tiny, tiny_hunyuan15
from torch import Tensor

from longgen.errors import BadInput
from longgen.models import describe, hunyuan15
from longgen.models.common import files_of
from longgen.models.hunyuan15.vae import stream_decode
from longgen.types import Call, Dense, FrameWindow, LoadOptions, Patch

PROMPT, OTHER, NEGATIVE = "a red circle moving left", 'a blue star and "red right"', "blurry gray"
FRAMES = tuple(range(5))


@pytest.fixture(scope="module")
def model():
    pipe = tiny_hunyuan15.hunyuan15()
    pipe.tokenizer_max_length = 20  # the pipeline pads to 1,000; padding is masked, so the length cannot matter
    return hunyuan15.from_pipeline(pipe)


def denoiser(model, **prompts):
    return tiny.denoiser(model, **{"texts": (PROMPT,), "negatives": (NEGATIVE,), "scale": 6.0, **prompts})


def call(model, row: int = 1, frames=FRAMES) -> Call:
    return Call(tiny.latents(len(frames)), model.solver(None, 4, None).schedule[row], frames)


def loop(model, x: Tensor, steps: int, **prompts) -> Tensor:
    rule, made = model.solver(None, steps, None), denoiser(model, **prompts)
    memory = rule.init()
    for row in range(steps):
        clean = made.denoise(Call(x, rule.schedule[row], FRAMES))
        x, memory = rule.step(memory, x, clean, row)
    return x


@pytest.mark.parametrize(
    ("steps", "scale", "prompt"), [(2, 6.0, PROMPT), (4, 1.0, OTHER), (4, 6.0, OTHER), (7, 6.0, PROMPT)]
)
def test_equals_the_pipeline(model, steps, scale, prompt):
    x, guider = tiny.latents(), model.pipe.guider
    guider.guidance_scale = scale
    want = model.pipe(
        prompt, NEGATIVE, height=64, width=96, num_frames=17, num_inference_steps=steps, latents=x, output_type="latent"
    ).frames
    assert (loop(model, x, steps, scale=scale, texts=(prompt,)) - want).abs().max() < 1e-5
    assert (want - x).abs().max() > 0.1


def test_texts_quotes_and_levels_matter(model):
    one = denoiser(model).denoise(call(model))
    said, quoted = (denoiser(model, texts=(text,)).denoise(call(model)) for text in ("red star", 'red "star"'))
    assert (said - one).abs().max() > 1e-2
    assert (said - quoted).abs().max() > 1e-3
    assert (denoiser(model).denoise(call(model, 3)) - one).abs().max() > 1e-2


def test_the_own_mask_holds_every_pair_of_tokens(model, monkeypatch):
    """Why our processors serve plain calls too; turns red when diffusers masks words alone."""
    from diffusers.models.transformers import transformer_hunyuan_video15 as upstream

    masks, attend = [], upstream.dispatch_attention_fn
    monkeypatch.setattr(
        upstream,
        "dispatch_attention_fn",
        lambda *qkv, attn_mask, **more: masks.append(attn_mask) or attend(*qkv, attn_mask=attn_mask, **more),
    )
    model.pipe(PROMPT, height=64, width=96, num_frames=17, num_inference_steps=1, output_type="latent")
    assert masks and all(mask.shape[-2] == mask.shape[-1] > 5 * 24 for mask in masks), "see docs/footguns.md"
    masks.clear()
    denoiser(model).denoise(call(model))
    assert not masks


def test_calls_of_one_shape_share_forwards(model):
    made = denoiser(model, texts=(PROMPT, OTHER), weights=torch.eye(2)[[0] * 5 + [1] * 5])
    calls = [call(model), call(model, frames=tuple(range(5, 10)))]
    for one, alone in zip(made.denoise_batch(calls), calls, strict=True):
        assert (one - made.denoise(alone)).abs().max() < 1e-5


def test_each_latent_has_its_text(model):
    """Texts that differ inside a call run once each; penalties, levels per latent and text attention are refused."""
    one, other = (denoiser(model, texts=(text,)).denoise(call(model)) for text in (PROMPT, OTHER))
    weights = torch.tensor([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 3)
    both = denoiser(model, texts=(PROMPT, OTHER), weights=weights).denoise(call(model))
    assert (both - torch.cat([one[:, :, :2], other[:, :, 2:]], dim=2)).abs().max() < 1e-5
    with pytest.raises(BadInput, match="one text stream"):
        denoiser(model, texts=(PROMPT, OTHER), weights=weights, space="bias").denoise(call(model))
    levels = model.solver(None, 4, None).schedule[torch.tensor([0, 1, 2, 3, 3])]
    with pytest.raises(BadInput, match="one timestep per call"):
        denoiser(model).denoise(Call(tiny.latents(), levels, FRAMES))
    with pytest.raises(BadInput, match="no text attention"), denoiser(model).patched(Patch(cross=lambda *_: None)):
        pass


# ------------------------------------------------------------------------------------------------------------- patches


def test_patches_that_change_nothing_leave_nothing(model):
    made, one = denoiser(model), call(model)
    want, kept = made.denoise(one), {n: id(p) for n, p in model.pipe.transformer.attn_processors.items()}
    for patch in (
        Patch(attention=lambda site, q, k, v, rotate, attend: attend(rotate(q), rotate(k), v, Dense())[0]),
        Patch(freqs=lambda theta: theta, positions=lambda positions: positions),
    ):
        with made.patched(patch):
            assert (made.denoise(one) - want).abs().max() < 1e-5
    with pytest.raises(RuntimeError, match="planted"), made.patched(Patch(freqs=lambda theta: theta / 2)):
        assert (made.denoise(one) - want).abs().max() > 1e-4
        raise RuntimeError("planted")
    assert kept == {n: id(p) for n, p in model.pipe.transformer.attn_processors.items()}
    assert torch.equal(made.denoise(one), want)


def test_one_windowed_layer_equals_a_dense_mask_with_text(model, monkeypatch):
    """The words stay in every query's softmax, and see all: the model's own processor with a mask of pairs for one."""
    from diffusers.models.transformers import transformer_hunyuan_video15 as upstream

    spans = ((0, 2), (0, 3), (1, 4), (2, 5), (3, 5))
    low, high = torch.tensor(spans).T
    frame = torch.arange(5 * 24) // 24
    visible = (frame[None] >= low[frame][:, None]) & (frame[None] < high[frame][:, None])
    calls, attend = [], upstream.dispatch_attention_fn

    def masked(q, k, v, attn_mask, **more):
        calls.append(1)
        if len(calls) % 2:  # layer 0 of 2
            attn_mask = attn_mask.clone()
            attn_mask[:, :, :120, :120] &= visible
        return attend(q, k, v, attn_mask=attn_mask, **more)

    def windowed(site, q, k, v, rotate, attend):
        return attend(rotate(q), rotate(k), v, FrameWindow(site.tokens, spans) if site.layer == 0 else Dense())[0]

    made, one, transformer = denoiser(model, scale=1.0), call(model), model.pipe.transformer
    monkeypatch.setattr(upstream, "dispatch_attention_fn", masked)
    words, mask, glyphs, marked = model.pipe.encode_prompt(PROMPT)
    with torch.no_grad():
        v = transformer(
            torch.cat([one.x, torch.zeros(1, 5, 5, 4, 6)], 1), one.level.t[None], words, mask,
            encoder_hidden_states_2=glyphs, encoder_attention_mask_2=marked, image_embeds=torch.zeros(1, 729, 8),
            return_dict=False,
        )[0]  # fmt: skip
    assert len(calls) == 2
    with made.patched(Patch(attention=windowed)):
        got = made.denoise(one)
    assert (got - (one.x - one.level.sigma * v)).abs().max() < 1e-5
    assert (got - made.denoise(one)).abs().max() > 1e-3


# -------------------------------------------------------------------------------------------------------------- decoder


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize(("frames", "chunk"), [(1, 1), (2, 1), (5, 2), (5, 9)])
def test_streamed_decode_is_exact(frames, chunk, tiled):
    vae, z = tiny_hunyuan15.vae(), tiny.latents(frames)[..., :2, :3]
    if tiled:
        vae.enable_tiling(32, 32, 2, 2, 0.5)
    with torch.no_grad():
        want = (vae.decode(z / 1.3).sample[0].transpose(0, 1) / 2 + 0.5).clamp(0, 1)
    got = torch.cat(list(stream_decode(vae, iter(z.split(3, dim=2)), chunk, torch.device("cpu"))))
    assert got.shape == want.shape == ((frames - 1) * 4 + 1, 3, 32, 48)
    assert (got - want).abs().max() < 1e-5


# ---------------------------------------------------------------------------------------------------------------- files


def test_folder_and_pipeline_in_hand_give_the_same_bits(model, tmp_path):
    folder = tiny.save(model.pipe, tmp_path / "model", **tiny_hunyuan15.OVERRIDES)
    info = describe.describe(folder)
    loaded = hunyuan15.load(info, folder, LoadOptions())
    assert info.text_tokens == 12 and info.native_latents == 5
    in_hand = hunyuan15.from_pipeline(HunyuanVideo15Pipeline.from_pretrained(folder))
    assert torch.equal(loop(loaded, tiny.latents(), 2), loop(in_hand, tiny.latents(), 2))
    assert (loop(loaded, tiny.latents(), 2) - loop(model, tiny.latents(), 2)).abs().max() < 1e-5  # padded to 1,000
    assert info.parameters == sum(p.numel() for p in model.pipe.transformer.parameters())


def test_what_the_files_say():
    infos = {info.id: info for info in describe.catalogue() if info.family == "hunyuan15"}
    small = infos["hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v"]
    assert (small.native_latents, small.native_size, small.spatial, small.guidance) == (31, (480, 848), 16, 6.0)
    assert small.parameters == pytest.approx(8.3e9, rel=0.02)  # as the model card has it


def test_the_pipeline_cannot_be_built_without_a_vae(model):
    """Why one is loaded to read texts; turns red when mended: see docs/footguns.md."""
    with pytest.raises(AttributeError, match="NoneType"):
        HunyuanVideo15Pipeline(**{**model.pipe.components, "vae": None})


def test_what_is_not_supported():
    files = files_of(tiny_hunyuan15.hunyuan15())
    assert hunyuan15.describe(files).guidance == 6.0
    guider = dict(files.configs["guider"])
    for told, message in (({"guidance_rescale": 0.7}, "guidance_rescale=0.7"), ({"start": 0.2}, "start=0.2")):
        files.configs["guider"] = guider | told
        with pytest.raises(BadInput, match=message):
            hunyuan15.describe(files)
    files.configs["guider"] = guider | {"enabled": False}
    assert math.isclose(hunyuan15.describe(files).guidance, 1.0)
    with pytest.raises(BadInput, match="takes 8 channels"):
        hunyuan15.from_pipeline(tiny_hunyuan15.hunyuan15(in_channels=8))
