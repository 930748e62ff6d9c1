"""HunyuanVideo: equal to its own pipeline, one text stream beside the video, decode by its own tiles, patches."""

from __future__ import annotations

import json
import math

import pytest
import torch
from models import tiny, tiny_hunyuan
from torch import Tensor

from longgen.errors import BadInput
from longgen.models import describe, hunyuan
from longgen.models.hunyuan.info import parameters
from longgen.models.hunyuan.text import pack, unpack
from longgen.models.hunyuan.vae import stream_decode
from longgen.types import Call, Dense, FrameWindow, LoadOptions, Patch

PROMPT, OTHER, NEGATIVE = "a red circle moving left", "a blue star", "blurry gray"
FRAMES = tuple(range(5))


@pytest.fixture(scope="module")
def model():
    return hunyuan.from_pipeline(tiny_hunyuan.hunyuan())


def denoiser(model, **prompts):
    return tiny.denoiser(model, **{"texts": (PROMPT,), "negatives": (NEGATIVE,), "scale": 6.0, **prompts})


def call(model, row: int = 1, x: Tensor | None = None, frames=FRAMES) -> Call:
    x = tiny_hunyuan.latents(len(frames)) if x is None else x
    return Call(x, model.solver(None, 4, None).schedule[row], frames)


def loop(model, x: Tensor, steps: int, scale: float) -> Tensor:
    rule, made = model.solver(None, steps, None), denoiser(model, scale=scale)
    memory = rule.init()
    for row in range(steps):
        clean = made.denoise(Call(x, rule.schedule[row], FRAMES))
        x, memory = rule.step(memory, x, clean, row)
    return x


def plain(model, x: Tensor, steps: int, **options) -> Tensor:
    return model.pipe(
        PROMPT, height=32, width=48, num_frames=17, num_inference_steps=steps, latents=x, output_type="latent",
        max_sequence_length=12, **options,
    ).frames  # fmt: skip


@pytest.mark.parametrize(("steps", "scale"), [(2, 6.0), (4, 1.0), (4, 6.0), (7, 6.0)])
def test_equals_the_pipeline(model, steps, scale):
    x = tiny_hunyuan.latents()
    want = plain(model, x, steps, guidance_scale=scale)
    assert (loop(model, x, steps, scale) - want).abs().max() < 1e-5
    assert (want - x).abs().max() > 0.1


def test_without_a_guidance_input_there_are_two_sides():
    model = hunyuan.from_pipeline(tiny_hunyuan.hunyuan(guidance_embeds=False))
    x = tiny_hunyuan.latents()
    want = plain(model, x, 4, negative_prompt=NEGATIVE, true_cfg_scale=3.0)
    assert (loop(model, x, 4, 3.0) - want).abs().max() < 1e-5
    assert (loop(model, x, 4, 1.0) - want).abs().max() > 1e-3


def test_guidance_is_embedded_in_one_run_per_call(model):
    runs = []
    handle = model.pipe.transformer.register_forward_hook(lambda *_: runs.append(1))
    try:
        weak, strong = (denoiser(model, scale=scale).denoise(call(model)) for scale in (1.0, 9.0))
        spread = denoiser(model, scale=torch.tensor([1.0, 1.0, 9.0, 1.0, 1.0])).denoise(call(model))
    finally:
        handle.remove()
    assert len(runs) == 3
    assert (weak - strong).abs().max() > 1e-3
    assert torch.equal(spread, strong), "a call takes the scale of its middle latent"


def test_text_packs_and_unpacks(model):
    pooled, words, mask = torch.randn(1, 24), torch.randn(1, 12, 16), torch.tensor([[1] * 9 + [0] * 3])
    text = pack(pooled, words, mask)
    assert text.shape == (1, 2 + 12, 16)
    back = unpack(text, 24)
    assert torch.equal(back[0], pooled) and torch.equal(back[2], mask.bool())
    assert torch.equal(back[1][:, :9], words[:, :9]) and not back[1][:, 9:].any()
    assert unpack(model.encode(PROMPT), 24)[2].sum() not in (0, 12), "the fixture must pad its prompts"


def test_each_latent_has_its_text(model):
    """Texts that differ inside a call run once each; a text that all share runs once, blended or not."""
    one, other = (denoiser(model, texts=(text,)).denoise(call(model)) for text in (PROMPT, OTHER))
    assert (one - other).abs().max() > 1e-3
    parted = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 2)
    both = denoiser(model, texts=(PROMPT, OTHER), weights=parted).denoise(call(model))
    assert (both - torch.cat([one[:, :, :3], other[:, :, 3:]], dim=2)).abs().max() < 1e-6
    half = denoiser(model, texts=(PROMPT, OTHER), weights=torch.full((5, 2), 0.5)).denoise(call(model))
    assert min((half - one).abs().max(), (half - other).abs().max()) > 1e-3


def test_clean_estimates_of_two_texts_mix_exactly(model):
    weights = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.25, 0.75], [0.0, 1.0], [0.0, 1.0]])
    one, other = (denoiser(model, texts=(text,)).denoise(call(model)) for text in (PROMPT, OTHER))
    mixed = denoiser(model, texts=(PROMPT, OTHER), weights=weights, space="output").denoise(call(model))
    w = weights[:, 0].view(1, 1, 5, 1, 1)
    assert (mixed - (w * one + (1 - w) * other)).abs().max() < 1e-5


def test_what_one_text_stream_cannot_do_is_refused(model):
    both = {"texts": (PROMPT, OTHER), "weights": torch.eye(2).repeat(3, 1)[:5]}
    with pytest.raises(BadInput, match="cannot hold several prompts apart by penalties"):
        denoiser(model, **both, space="bias").denoise(call(model))
    with pytest.raises(BadInput, match="early layers cannot have another prompt"):
        denoiser(model, **both, early=both["weights"]).denoise(call(model))
    levels = model.solver(None, 4, None).schedule[torch.tensor([0, 1, 2, 3, 3])]
    with pytest.raises(BadInput, match="one timestep per call"):
        denoiser(model).denoise(Call(tiny_hunyuan.latents(), levels, FRAMES))
    with (
        pytest.raises(BadInput, match="no text attention to change"),
        denoiser(model).patched(Patch(cross=lambda site, q, k, v, attend: attend(q, k, v, Dense()))),
    ):
        pass


def test_the_schedule_takes_a_solver_and_a_shift(model):
    own, euler, shifted = (
        model.solver(*a).schedule.table.sigma for a in ((None, 4, None), ("euler", 4, None), (None, 4, 3.0))
    )
    assert torch.equal(own, euler)
    s = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
    assert (own - 7 * s / (1 + 6 * s)).abs().max() < 1e-6
    assert (shifted - 3 * s / (1 + 2 * s)).abs().max() < 1e-6
    assert model.solver("unipc", 4, None).schedule.steps == 4


def test_levels_matter(model):
    """The velocity depends on the timestep, not on the latents alone."""
    made, x, schedule = denoiser(model), tiny_hunyuan.latents(), model.solver(None, 4, None).schedule
    one, other = ((x - made.denoise(call(model, row, x))) / schedule[row].sigma for row in (0, 2))
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("patch", [None, Patch(logits=lambda site, attend: attend)])
def test_a_batch_of_texts_of_two_lengths_equals_single_calls(model, patch):
    """Latents 0 … 4 speak of one text, 5 … 9 of another with fewer words."""
    weights = torch.tensor([[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 5)
    made = denoiser(model, texts=(PROMPT, OTHER), weights=weights)
    calls = [call(model, 1), call(model, 2, tiny_hunyuan.latents(seed=8), tuple(range(5, 10)))]
    with made.patched(patch or Patch()):
        both, single = made.denoise_batch(calls), [made.denoise(c) for c in calls]
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(both, single, strict=True))


def dense(site, q, k, v, rotate, attend):
    return attend(rotate(q), rotate(k), v, Dense())[0]


HARMLESS = {
    "attention": Patch(attention=dense),
    "logits": Patch(logits=lambda site, attend: attend),
    "kv": Patch(kv=lambda site, k, v: (k, v)),
    "freqs": Patch(freqs=lambda theta: theta),
    "positions": Patch(positions=lambda positions: positions),
}


def processors(model):
    return {name: id(processor) for name, processor in model.pipe.transformer.attn_processors.items()}


@pytest.mark.parametrize("name", HARMLESS)
def test_a_patch_that_changes_nothing(model, name):
    made, kept = denoiser(model), processors(model)
    want = made.denoise(call(model))
    with made.patched(HARMLESS[name]):
        got = made.denoise(call(model))
        assert processors(model) != kept
    assert (got - want).abs().max() < 1e-5
    assert processors(model) == kept
    assert torch.equal(made.denoise(call(model)), want)


def test_hooks_see_every_layer_once_and_come_off_after_an_exception(model):
    made, sites, kept = denoiser(model), [], processors(model)

    def record(site, q, k, v, rotate, attend):
        assert q.shape == k.shape == (1, 30, 2, 16)
        sites.append(site)
        return dense(site, q, k, v, rotate, attend)

    def fails(site, q, k, v, rotate, attend):
        raise RuntimeError("planted")

    with made.patched(Patch(attention=record)):
        made.denoise(call(model))
    words = int(unpack(model.encode(PROMPT), 24)[2].sum())
    assert [site.layer for site in sites] == [0, 1, 2, 3] and model.info.layers == 4
    assert all(site.grid == (5, 2, 3) and site.text == words and site.branch == "cond" for site in sites)
    with pytest.raises(RuntimeError, match="planted"), made.patched(Patch(attention=fails)):
        made.denoise(call(model))
    assert processors(model) == kept


def test_positions_and_frequencies_reach_the_rotation(model):
    made, outcomes = denoiser(model), {}
    want = made.denoise(call(model))
    for name, patch in {
        "shifted": Patch(positions=lambda positions: positions + 7),
        "stretched": Patch(positions=lambda positions: positions * 0.5),
        "slower": Patch(freqs=lambda theta: theta * 0.5),
    }.items():
        with made.patched(patch):
            outcomes[name] = made.denoise(call(model))
    # Words do not turn, so moving the video moves it against them: attention is relative among video tokens alone.
    assert (outcomes["stretched"] - want).abs().max() > 1e-3
    assert (outcomes["slower"] - outcomes["stretched"]).abs().max() < 1e-5  # θ·(p/2) = (θ/2)·p
    assert (outcomes["shifted"] - want).abs().max() > 1e-6


def test_rotate_takes_other_positions(model):
    errors = []

    def check(site, q, k, v, rotate, attend):
        two, three = q[:, : 2 * site.tokens], 3 * site.tokens
        placed = torch.cat([q[:, :three], two], dim=1)  # the first two frames at the places 3 and 4
        errors.append((rotate(two, torch.tensor([3, 4])) - rotate(placed)[:, three:]).abs().max())
        assert (rotate(two, torch.tensor([30, 40])) - rotate(two, torch.tensor([3, 4]))).abs().max() > 1e-2
        return dense(site, q, k, v, rotate, attend)

    made = denoiser(model)
    with made.patched(Patch(attention=check)):
        made.denoise(call(model))
    assert errors and max(errors) < 1e-5


SPANS = ((0, 2), (0, 3), (1, 4), (2, 5), (3, 5))


def reference(attn, hidden, words, mask, rotary, sees: Tensor):
    """HunyuanVideo's attention written out: video [S] then text [L], one softmax under an explicit mask [S, S + L]."""
    from diffusers.models.embeddings import apply_rotary_emb

    def qkv(x, names, norms):
        q, k, v = (getattr(attn, n)(x).unflatten(2, (attn.heads, -1)) for n in names)
        return getattr(attn, norms[0])(q), getattr(attn, norms[1])(k), v

    own = (("to_q", "to_k", "to_v"), ("norm_q", "norm_k"))
    added = (("add_q_proj", "add_k_proj", "add_v_proj"), ("norm_added_q", "norm_added_k"))
    q, k, v = qkv(hidden, *own)
    tq, tk, tv = qkv(words, *(own if attn.add_q_proj is None else added))
    q, k = (torch.cat([apply_rotary_emb(x, rotary, sequence_dim=1), t], 1) for x, t in ((q, tq), (k, tk)))
    video = hidden.shape[1]
    visible = torch.cat([sees, torch.ones(words.shape[1], sees.shape[1], dtype=torch.bool)]) & mask[0, 0, 0]
    logits = torch.einsum("bqnd,bknd->bnqk", q, k) / math.sqrt(q.shape[-1])
    out = torch.einsum("bnqk,bknd->bqnd", logits.masked_fill(~visible, -torch.inf).softmax(-1), torch.cat([v, tv], 1))
    seen, said = out[:, :video].flatten(2), out[:, video:].flatten(2)
    if attn.to_out is not None:
        seen = attn.to_out[0](seen)
    return seen, said if attn.to_add_out is None else attn.to_add_out(said)


class Reference:
    """A processor that attends by `reference`."""

    def __init__(self, windowed: bool) -> None:
        self.windowed = windowed

    def __call__(self, attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb):
        frame = torch.arange(30) // 6
        low, high = torch.tensor(SPANS if self.windowed else ((0, 5),) * 5).T
        sees = (frame[None] >= low[frame][:, None]) & (frame[None] < high[frame][:, None])
        sees = torch.cat([sees, torch.ones(30, encoder_hidden_states.shape[1], dtype=torch.bool)], dim=1)
        return reference(attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb, sees)


@pytest.mark.parametrize("layer", [1, 3])  # a dual-stream and a single-stream one
def test_one_windowed_layer_equals_a_dense_mask_with_text(model, layer):
    def windowed(site, q, k, v, rotate, attend):
        plan = FrameWindow(site.tokens, SPANS) if site.layer == layer else Dense()
        return attend(rotate(q), rotate(k), v, plan)[0]

    made, net = denoiser(model), model.pipe.transformer
    with made.patched(Patch(attention=windowed)):
        got = made.denoise(call(model))
    blocks = [*net.transformer_blocks, *net.single_transformer_blocks]
    kept = [block.attn.processor for block in blocks]
    try:
        for i, block in enumerate(blocks):
            block.attn.processor = Reference(i == layer)
        want = made.denoise(call(model))
    finally:
        for block, processor in zip(blocks, kept, strict=True):
            block.attn.processor = processor
    assert (got - want).abs().max() < 1e-5
    assert (got - made.denoise(call(model))).abs().max() > 1e-4


@pytest.mark.parametrize("frames", [1, 4, 5, 7, 8, 13])
def test_streamed_decode_is_the_vaes_own(model, frames):
    vae, z = model.pipe.vae, tiny_hunyuan.latents(frames)[..., :2, :2]
    with torch.no_grad():
        want = (vae.decode(z / vae.config.scaling_factor).sample[0].transpose(0, 1) / 2 + 0.5).clamp(0, 1)
    for sizes in (1, 6):
        got = torch.cat(list(stream_decode(vae, iter(z.split(sizes, dim=2)), torch.device("cpu"))))
        assert got.shape == want.shape == ((frames - 1) * 4 + 1, 3, 16, 16)
        assert (got - want).abs().max() < 1e-6


@pytest.mark.parametrize("switch", ["use_tiling", "use_framewise_decoding"])
def test_streamed_decode_follows_the_vaes_switches(switch):
    vae, z = tiny_hunyuan.vae(), tiny_hunyuan.latents(6)[..., :2, :4]
    before = torch.cat(list(stream_decode(vae, [z], torch.device("cpu"))))
    setattr(vae, switch, not getattr(vae, switch))
    vae.tile_sample_min_height = vae.tile_sample_min_width = 24
    vae.tile_sample_stride_height = vae.tile_sample_stride_width = 16
    with torch.no_grad():
        want = (vae.decode(z / vae.config.scaling_factor).sample[0].transpose(0, 1) / 2 + 0.5).clamp(0, 1)
    got = torch.cat(list(stream_decode(vae, z.split(1, dim=2), torch.device("cpu"))))
    assert (got - want).abs().max() < 1e-6
    assert (got - before).abs().max() > 1e-5


def test_frames_come_before_the_latents_have_ended():
    taken = []

    def feed():
        for i, piece in enumerate(tiny_hunyuan.latents(11)[..., :2, :2].split(1, dim=2)):
            taken.append(i)
            yield piece

    stream = stream_decode(tiny_hunyuan.vae(), feed(), torch.device("cpu"))
    assert len(next(stream)) == 13 and len(taken) == 5
    assert len(next(stream)) == 12 and len(taken) == 8


def test_the_plan_counts_one_run_per_call_and_says_that_negatives_do_nothing():
    from longgen.config import Request
    from longgen.runtime.plan import make

    info = describe.describe("hunyuanvideo-community/HunyuanVideo")
    assert (info.native_latents, info.native_size, info.layers) == (33, (720, 1280), 60)
    plan = make(Request(prompt=PROMPT, negative_prompt=NEGATIVE), info)
    assert (plan.cost.branches, plan.guidance) == (1, 6.0)
    assert any("negative prompt has no effect" in note for note in plan.notes)
    assert not any("negative" in note for note in make(Request(prompt=PROMPT), info).notes)


def test_described_from_json_and_loaded_from_a_folder(model, tmp_path):
    folder = tiny.save(model.pipe, tmp_path / "model", **tiny_hunyuan.OVERRIDES)
    info = hunyuan.describe(describe.read_folder(folder))
    assert (info.native_latents, info.layers, info.flow_shift, info.guidance) == (5, 4, 7.0, 6.0)
    assert (info.rope.dim, info.rope.base, info.text_tokens, info.patch) == (4, 256.0, 12, (1, 2, 2))
    assert info.parameters == sum(p.numel() for p in model.pipe.transformer.parameters())
    assert parameters({}) == pytest.approx(12.82e9, rel=1e-3)
    loaded = hunyuan.load(info, folder, LoadOptions())
    want = denoiser(model).denoise(call(model))
    assert (denoiser(loaded).denoise(call(loaded)) - want).abs().max() < 1e-5
    assert torch.equal(loaded.from_model(loaded.to_model(want), None), want)
    index = json.loads((folder / "transformer/config.json").read_text())
    (folder / "transformer/config.json").write_text(json.dumps(index | {"in_channels": 9}))
    with pytest.raises(BadInput, match="expects an image"):
        hunyuan.describe(describe.read_folder(folder))
