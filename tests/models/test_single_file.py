"""A transformer out of one file gives the bits of its folder; what cannot be read says so in one line."""

import dataclasses

import pytest
import torch
from models import tiny, tiny_cogvideox
from safetensors.torch import load_file, save_file

from longgen.api import Session
from longgen.config import Request
from longgen.errors import BadInput
from longgen.models import describe, wan
from longgen.runtime.sidecar import hashes_of
from longgen.types import LoadOptions

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save(tiny.wan(), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def bare(folder, tmp_path_factory):
    """The folder without the transformer's weights, and those weights as a file."""
    import shutil

    bare = tmp_path_factory.mktemp("bare") / "tiny"
    shutil.copytree(folder, bare)
    file = bare.parent / "weights.safetensors"
    (bare / WEIGHTS).rename(file)
    return bare, file


def load(folder, **changes):
    return wan.load(describe.describe(folder), folder, dataclasses.replace(LoadOptions(), **changes))


def estimate(model):
    return tiny.denoiser(model).denoise(tiny.call(model))


def test_equals_the_folder(folder, bare):
    path, file = bare
    got = load(path, transformers=(str(file),))
    assert torch.equal(estimate(got), estimate(load(folder)))
    with pytest.raises(BadInput, match="lacks weights"):
        load(path)


def test_two_experts(tmp_path):
    folder = tiny.save(tiny.wan("a14b"), tmp_path / "two")
    want = estimate(load(folder))
    files = []
    for name in ("transformer", "transformer_2"):
        files.append(str(tmp_path / f"{name}.safetensors"))
        (folder / name / "diffusion_pytorch_model.safetensors").rename(files[-1])
    assert torch.equal(estimate(load(folder, transformers=tuple(files))), want)


def gguf_file(path, tensors):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "wan")
    for name, tensor in tensors.items():
        data = tensor.numpy()
        kind = gguf.GGMLQuantizationType.Q8_0 if data.ndim == 2 and data.shape[1] % 32 == 0 else None
        writer.add_tensor(name, data if kind is None else gguf.quants.quantize(data, kind), raw_dtype=kind)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return path


def test_gguf(tmp_path):
    """Eight-bit blocks: near the weights that they were made from, and not equal to them."""
    folder = tiny.save(tiny.wan(attention_head_dim=16), tmp_path / "tiny")  # rows of 32, a whole block
    want = estimate(load(folder))
    file = gguf_file(tmp_path / "weights.gguf", load_file(folder / WEIGHTS))
    model = load(folder, transformers=(str(file),))
    got = estimate(model)
    assert 0 < (got - want).abs().max() < 0.05 * want.abs().max()
    assert model.pipe.transformer.blocks[0].attn1.to_q.weight.dtype == torch.uint8


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("weights.bin", b"x", r"takes a .safetensors or .gguf file"),
        ("nowhere.safetensors", None, "there is no such file"),
        ("cut.safetensors", b"\x10", "truncated or not a safetensors file"),
        ("strange.gguf", b"PK\x03\x04....", "is not a GGUF file"),
    ],
)
def test_files_that_are_none(folder, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=message):
        load(folder, transformers=(str(tmp_path / name),))


def test_weights_of_another_model(bare, tmp_path):
    path, file = bare
    tensors = load_file(file)
    save_file({k: v for k, v in tensors.items() if "blocks.1." not in k}, tmp_path / "half.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(
        BadInput, match=r"cannot be read as the WanTransformer3DModel of .*: it lacks some of the weights"
    ):
        _ = load(path, transformers=(str(tmp_path / "half.safetensors"),)).pipe
    with pytest.raises(BadInput, match=r"other.safetensors cannot be read as the WanTransformer3DModel"):
        _ = load(path, transformers=(str(tmp_path / "other.safetensors"),)).pipe
    with pytest.raises(BadInput, match="was given 2 times"):
        load(path, transformers=(str(file), str(file)))


def test_a_file_is_no_model(bare):
    with pytest.raises(BadInput, match=r"--model FOLDER_OR_HUB_ID --transformer .*weights.safetensors"):
        describe.describe(str(bare[1]))


def test_families_that_diffusers_reads_from_folders_only(tmp_path):
    folder = tiny.save(tiny_cogvideox.cogvideox("5b"), tmp_path / "cog", **tiny_cogvideox.OVERRIDES)
    (tmp_path / "x.safetensors").write_bytes((folder / WEIGHTS).read_bytes())
    with pytest.raises(BadInput, match="reads no single files of CogVideoXTransformer3DModel"):
        _ = Session(folder, LoadOptions(transformers=(str(tmp_path / "x.safetensors"),))).model


def test_the_request_names_the_file(bare):
    path, file = bare
    session = Session(path, LoadOptions(transformers=(str(file),)))
    plan = session.plan(Request(prompt="a red circle", transformer=(str(file),)))
    assert plan.cost.memory.weights == file.stat().st_size
    assert f"transformer.0/{file.name}" in session.hashes
    assert len(hashes_of([file, file])) == 2  # two experts' files may have one name


# --------------------------------------------------------------------------------------------------- folders on disk


def shard(folder, pipe):
    pipe.transformer.save_pretrained(folder / "transformer", max_shard_size="20KB")
    (folder / WEIGHTS).unlink()
    return sorted((folder / "transformer").glob("*-of-*.safetensors"))


def test_sharded_weights(tmp_path):
    pipe = tiny.wan()
    folder = tiny.save(pipe, tmp_path / "tiny")
    want = estimate(load(folder))
    shards = shard(folder, pipe)
    assert len(shards) > 1 and torch.equal(estimate(load(folder)), want)
    whole = shards[0].read_bytes()
    shards[0].write_bytes(whole[:-4])
    with pytest.raises(BadInput, match=r"is truncated: .* bytes of .*; download it again"):
        load(folder)
    shards[0].unlink()
    with pytest.raises(BadInput, match=f"lacks {shards[0].name}, named by"):
        load(folder)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").unlink(), "vae lacks weights: expected"),
        (
            lambda f: (f / "text_encoder" / "model.safetensors").rename(f / "text_encoder" / "pytorch_model.bin"),
            "pickled",
        ),
        (lambda f: (f / "transformer" / "config.json").unlink(), "lacks config.json"),
        (lambda f: (f / "model_index.json").unlink(), "lacks model_index.json"),
        (lambda f: (f / "vae" / "config.json").write_text("{"), "is not valid JSON"),
    ],
)
def test_broken_folders(tmp_path, break_it, message):
    folder = tiny.save(tiny.wan(), tmp_path / "tiny")
    break_it(folder)
    with pytest.raises(BadInput, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_wrong_classes(tmp_path):
    folder = tiny.save(tiny.wan(), tmp_path / "tiny")
    index = (folder / "model_index.json").read_text()
    (folder / "model_index.json").write_text(index.replace("WanTransformer3DModel", "FluxTransformer2DModel"))
    with pytest.raises(
        BadInput, match="transformer of class FluxTransformer2DModel, which is not supported; supported:"
    ):
        describe.describe(folder)
