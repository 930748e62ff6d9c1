"""What is known before weights load, and what is refused."""

import dataclasses
import json
import shutil

import pytest
import torch
from models import tiny

from longgen.errors import BadInput
from longgen.models import describe, wan
from longgen.models.common import files_of
from longgen.types import LoadOptions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save(tiny.wan("a14b"), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def load(path):
    files = describe.read_folder(path)
    return wan.load(wan.describe(files), path, LoadOptions())


@pytest.mark.parametrize("kind", ["2.1", "a14b", "ti2v"])
def test_folder_and_pipeline_say_the_same(kind, tmp_path):
    pipe = tiny.wan(kind)
    path = tiny.save(pipe, tmp_path / "model")
    loaded = type(pipe).from_pretrained(path)
    counted = describe.describe(path)
    assert counted.weights["transformer"] == counted.parameters
    assert dataclasses.replace(counted, weights={}) == wan.describe(files_of(loaded))


def test_geometry(folder):
    info = describe.describe(folder)
    assert (info.channels, info.stride, info.spatial, info.patch) == (4, 4, 8, (1, 2, 2))
    assert (info.layers, info.heads, info.head_dim, info.text_tokens) == (2, 2, 12, 12)
    assert info.native_latents == 5 and info.latents_for(18) == 6 and info.boundary == 0.875
    assert info.grid(33, 32, 48).shape == (1, 4, 9, 4, 6)
    assert info.rope.dim == 4 and info.rope.limit == 1024  # 12 − 2·4 channels are left for time
    own = tiny.transformer(4)
    assert info.parameters == sum(p.numel() for p in own.parameters()) and own.rope.t_dim == info.rope.dim


def test_overrides_win(copy):
    assert describe.describe(copy).native_frames == 17
    (copy / "longgen.json").write_text(json.dumps({"fps": 12, "negative_prompt": "gray", "max_sequence_length": 7}))
    info = describe.describe(copy)
    assert (info.fps, info.negative_prompt, info.text_tokens, info.native_frames) == (12, "gray", 7, 81)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"nativ_frames": 9}', "unknown key in .*'nativ_frames'; did you mean 'native_frames'"),
        ('{"fps": "8"}', "fps must be int or float"),
        ('{"steps": 0}', "steps must be positive"),
        ('{"fps": NaN}', "fps must be positive"),
        ('{"native_size": [64]}', "native_size must be .height, width."),
        ("[1]", "must hold a JSON object"),
        ("{", "not valid JSON"),
    ],
)
def test_bad_overrides(copy, content, message):
    (copy / "longgen.json").write_text(content)
    with pytest.raises(BadInput, match=message):
        describe.describe(copy)


def test_known_checkpoints_need_no_network():
    infos = {info.id: info for info in describe.catalogue()}
    small = infos["Wan-AI/Wan2.1-T2V-1.3B-Diffusers"]
    assert small.parameters == pytest.approx(1.419e9, rel=1e-3)
    assert (small.native_latents, small.rope.dim, small.text_tokens, small.flow_shift) == (21, 44, 512, 3.0)
    assert infos["Wan-AI/Wan2.1-T2V-14B-Diffusers"].parameters == pytest.approx(14.29e9, rel=1e-3)
    assert infos["Wan-AI/Wan2.2-T2V-A14B-Diffusers"].boundary == 0.875
    large = infos["Wan-AI/Wan2.2-TI2V-5B-Diffusers"]
    assert large.parameters == pytest.approx(5.00e9, rel=1e-2)
    assert (large.spatial, large.channels, large.fps, large.native_latents) == (16, 48, 24, 31)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def shards(folder):
    """Splits the transformer into shards with an index."""
    transformer = tiny.transformer(4)
    shutil.rmtree(folder / "transformer")
    transformer.save_pretrained(folder / "transformer", max_shard_size="40KB")
    found = sorted((folder / "transformer").glob("*-of-*.safetensors"))
    assert len(found) > 1
    return found


def test_sharded_weights_load(copy):
    shards(copy)
    got, want = load(copy).pipe.transformer.state_dict(), tiny.transformer(4).state_dict()
    assert all(torch.equal(got[name], want[name]) for name in want)


WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: cut(m / WEIGHTS), "is truncated"),
        (lambda m: cut(m / "vae/diffusion_pytorch_model.safetensors"), "vae.*is truncated"),
        (lambda m: (m / WEIGHTS).write_bytes(b"\x00" * 5), "truncated or not a safetensors"),
        (lambda m: (m / WEIGHTS).write_bytes(b"PK" * 500), "truncated or not a safetensors"),
        (lambda m: (m / WEIGHTS).unlink(), "lacks weights"),
        (lambda m: (m / WEIGHTS).rename(m / "transformer/diffusion_pytorch_model.bin"), "pickled.*convert"),
        (lambda m: shards(m)[1].unlink(), "lacks diffusion_pytorch_model-00002"),
        (lambda m: cut(shards(m)[1]), "00002.*is truncated"),
        (lambda m: (m / "text_encoder/model.safetensors").unlink(), "text_encoder lacks weights"),
        (lambda m: shutil.rmtree(m / "transformer_2"), "lacks"),
    ],
)
def test_damaged_weights(copy, damage, message):
    damage(copy)
    with pytest.raises(BadInput, match=message) as caught:
        load(copy)
    assert "\n" not in str(caught.value)


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: (m / "model_index.json").unlink(), "not a diffusers pipeline folder"),
        (lambda m: (m / "model_index.json").write_text("nonsense"), "not valid JSON"),
        (lambda m: (m / "transformer/config.json").unlink(), "lacks config.json"),
        (
            lambda m: rewrite(m / "model_index.json", transformer=["diffusers", "FluxTransformer2DModel"]),
            "FluxTransformer2DModel, which is not supported; supported: .*WanTransformer3DModel",
        ),
        (lambda m: rewrite(m / "model_index.json", _class_name="WanImageToVideoPipeline"), "not supported"),
        (lambda m: rewrite(m / "transformer/config.json", in_channels=36), "takes 36 channels"),
    ],
)
def test_unusable_folders(copy, damage, message):
    damage(copy)
    with pytest.raises(BadInput, match=message):
        describe.describe(copy)


def test_names_that_are_nothing(tmp_path):
    with pytest.raises(BadInput, match="unknown model 'shape'; did you mean 'shapes'"):
        describe.resolve("shape")
    with pytest.raises(BadInput, match="no such model folder"):
        describe.resolve(str(tmp_path / "nowhere"))
    with pytest.raises(BadInput, match="pass the folder: --model PATH"):
        describe.resolve("nobody/nothing-at-all", local_files_only=True)


def test_options_that_cannot_be(folder):
    info = describe.describe(folder)
    for changes, message in (
        ({"device": "cuda:99"}, "not there"),
        ({"device": "gpu"}, "unknown device"),
        ({"dtype": "float8"}, "unknown dtype"),
    ):
        with pytest.raises(BadInput, match=message):
            wan.load(info, folder, dataclasses.replace(LoadOptions(), **changes))


def test_the_embedded_model():
    info = describe.describe("shapes")
    assert (info.variant, info.native_frames, info.native_latents, info.native_size, info.fps) == (
        "shapes", 33, 9, (64, 64), 8.0,
    )  # fmt: skip
    assert info.text_tokens <= 32 and info.negative_prompt == "" and describe.catalogue()[0] == info
    folder = describe.resolve("shapes")
    describe.check_weights(folder, describe.read_folder(folder))
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 40e6
