"""Loading options equal the plain run within their tolerance, or are refused with the reason."""

import dataclasses

import pytest
import torch
from models import tiny
from safetensors.torch import save_file

from longgen.errors import BadInput
from longgen.models import describe, options, wan
from longgen.models.files import stored_dtype
from longgen.types import Dense, LoadOptions, Patch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save(tiny.wan(), tmp_path_factory.mktemp("models") / "tiny")


def load(folder, **changes):
    return wan.load(describe.describe(folder), folder, dataclasses.replace(LoadOptions(), **changes))


def walk(model, rows=(0, 1, 2, 3), frames=((0, 1, 2, 3, 4),), keys=(None,), denoiser=None):
    """Clean estimates of calls on several windows over several steps."""
    denoiser = denoiser or tiny.denoiser(model)
    return torch.cat(
        [
            denoiser.denoise(dataclasses.replace(tiny.call(model, row, frames=span, seed=row + span[0]), key=key))
            for row in rows
            for span, key in zip(frames, keys, strict=True)
        ]
    )


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"offload": "group"}, 0.0),
        ({"dtype": "bfloat16"}, 0.15),
        ({"layerwise_fp8": True}, 0.5),
        ({"attention": "sdpa-math"}, 1e-5),
        ({"cache": "first_block:0"}, 0.0),
        ({"cache": "taylorseer:1"}, 0.0),
    ],
)
def test_equals_the_plain_run(folder, changes, tolerance):
    want, got = walk(load(folder)), walk(load(folder, **changes))
    assert (got - want).abs().max() <= tolerance


def test_casting_and_dtype_do_something(folder):
    """Guards the tolerances above: the options are really on."""
    assert load(folder, dtype="bfloat16").dtype == torch.bfloat16
    stored = load(folder, layerwise_fp8=True).pipe.transformer.blocks[0].ffn.net[0].proj.weight.dtype
    assert stored == torch.float8_e4m3fn
    assert load(folder, cache="first_block").pipe.transformer.is_cache_enabled


def test_group_offload_decodes_too(folder):
    z = tiny.latents()
    want = torch.cat(list(load(folder).decode([z])))
    assert torch.equal(torch.cat(list(load(folder, offload="group").decode([z]))), want)


def test_a_cache_skips_work(folder):
    """A threshold that nothing exceeds reuses all later steps: the transformer's second block runs once per context."""
    model = load(folder, cache="first_block:1e9")
    runs = []
    model.pipe.transformer.blocks[1].attn1.register_forward_hook(lambda *_: runs.append(1))
    walk(model)
    assert len(runs) == 2


def test_windows_and_branches_never_share_a_cache(folder):
    """Two windows, walked together with everything reused, are what each is alone."""
    frames, keys = ((0, 1, 2, 3, 4), (3, 4, 5, 6, 7)), (0, 1)
    alone = [walk(load(folder, cache="first_block:1e9"), frames=(f,), keys=(k,)) for f, k in zip(frames, keys)]
    together = walk(load(folder, cache="first_block:1e9"), frames=frames, keys=keys)
    assert torch.equal(together[0::2], alone[0])
    assert torch.equal(together[1::2], alone[1])


def test_a_shared_context_would_be_seen(folder, monkeypatch):
    """Plants the fault that the test above looks for."""
    monkeypatch.setattr("longgen.models.caches.context_name", lambda job: job.branch)
    monkeypatch.setattr("longgen.models.caches.StepCaches._renew", lambda *_: None)
    frames, keys = ((0, 1, 2, 3, 4), (3, 4, 5, 6, 7)), (0, 1)
    alone = walk(load(folder, cache="first_block:1e9"), frames=frames[1:], keys=keys[1:])
    together = walk(load(folder, cache="first_block:1e9"), frames=frames, keys=keys)
    assert (together[1::2] - alone).abs().max() > 1e-2


def test_a_second_round_starts_with_an_empty_cache(folder):
    model = load(folder, cache="first_block:1e9")
    denoiser = tiny.denoiser(model)
    assert torch.equal(walk(model, denoiser=denoiser), walk(model, denoiser=denoiser))


def test_caches_are_refused_where_they_would_be_wrong(folder):
    model = load(folder, cache="first_block")
    denoiser = tiny.denoiser(model)
    with pytest.raises(BadInput, match="one noise level per call"):
        denoiser.denoise(tiny.call(model, [0, 1, 2, 3, 3]))
    with pytest.raises(BadInput, match="key/value sharing"), denoiser.patched(Patch(kv=lambda site, k, v: (k, v))):
        pass


def test_fp16_variant(tmp_path):
    pipe = tiny.wan()
    folder = tmp_path / "model"
    pipe.save_pretrained(folder, variant="fp16")
    assert torch.equal(walk(load(folder, variant="fp16")), walk(wan.from_pipeline(pipe)))
    with pytest.raises(BadInput, match="lacks weights: expected"):
        load(folder, variant="bf16")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cache": "first_blok"}, "unknown cache 'first_blok'; did you mean 'first_block'"),
        ({"cache": "first_block:much"}, "'much' is not a number"),
        ({"cache": "pab"}, "guidance would vanish"),
        ({"cache": "mag"}, "calibrated"),
        ({"offload": "model"}, "use none or group"),
        ({"offload": "sequential"}, "use none or group"),
        ({"quantize": "nf4"}, "needs a CUDA device and the package bitsandbytes"),
        ({"quantize": "int2"}, "unknown quantisation 'int2'"),
    ],
)
def test_refused_options(folder, changes, message):
    with pytest.raises(BadInput, match=message):
        load(folder, **changes)


def test_lora_paths_and_scales():
    assert options.split_scale("a/b.safetensors:0.5") == ("a/b.safetensors", 0.5)
    assert options.split_scale("org/name") == ("org/name", 1.0)
    assert options.split_scale("C:/b.safetensors") == ("C:/b.safetensors", 1.0)


def test_lora_needs_its_package(folder, monkeypatch):
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="pip install peft"):
        load(folder, loras=("style.safetensors",))


def test_loras_add_up(folder, tmp_path):
    """Each adapter adds scale·B·A to a weight: against weights changed by hand."""
    pytest.importorskip("peft")
    name, entries = "blocks.0.attn1.to_q", []
    want = load(folder)
    weight = want.pipe.transformer.blocks[0].attn1.to_q.weight.data
    for i, scale in enumerate((1.0, 0.5)):
        a, b = torch.randn(2, 4, 24, generator=torch.Generator().manual_seed(i))
        path = tmp_path / f"lora{i}.safetensors"
        tensors = {f"transformer.{name}.lora_A.weight": a, f"transformer.{name}.lora_B.weight": b.T.contiguous()}
        save_file(tensors, path)
        entries.append(f"{path}:{scale}" if scale != 1 else str(path))
        weight += scale * b.T @ a
    got = load(folder, loras=tuple(entries))
    assert (walk(got) - walk(want)).abs().max() < 1e-5
    assert (walk(got) - walk(load(folder))).abs().max() > 1e-3
    with pytest.raises(BadInput, match="cannot be loaded"):
        load(folder, loras=(str(tmp_path / "nowhere.safetensors"),))


def test_the_stored_dtype_is_that_of_most_weights(tmp_path):
    transformer = tiny.transformer(4)
    for parameter in transformer.parameters():
        parameter.data = parameter.data.to(torch.bfloat16 if parameter.ndim > 1 else torch.float32)
    transformer.save_pretrained(tmp_path / "transformer")
    assert stored_dtype(tmp_path / "transformer") == "bfloat16"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_compiled_blocks_equal_eager_ones(folder):
    """Plain, and under a patch with a text per latent."""
    patch = Patch(attention=lambda site, q, k, v, rotate, attend: attend(rotate(q), rotate(k), v, Dense(), 0.9)[0])

    def outcomes(model):
        plain = tiny.denoiser(model, scale=1.0)
        mixed = tiny.denoiser(
            model, texts=("a red circle", "a blue star"), weights=torch.eye(2)[[0, 0, 1, 1, 1]], scale=1.0
        )
        with mixed.patched(patch):
            patched = walk(model, rows=(1, 2), denoiser=mixed)
        return torch.cat([walk(model, rows=(1,), denoiser=plain), patched])

    assert (outcomes(load(folder, compile=True)) - outcomes(load(folder))).abs().max() < 1e-4
