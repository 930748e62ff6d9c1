"""The training script: the whole-clip VAE is the cached one, stages resume, and the export is a plain pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline

from longgen.shapes import render, train, train_dit, train_vae
from longgen.shapes.grammar import seen_specs
from longgen.shapes.train_common import Budget, Clock, Log, orthogonal


@pytest.mark.parametrize("frames", [1, 5, 9, 17, 21])
def test_whole_clips_give_the_numbers_of_the_cached_vae(frames: int) -> None:
    vae = train_vae.build(0).eval()
    video = torch.rand(1, 3, frames, 16, 16, generator=torch.Generator().manual_seed(frames)) * 2 - 1
    with torch.no_grad():
        latent = vae.encode(video).latent_dist.mode()
        cached = vae.decode(latent).sample
        with train_vae.whole_clips(vae):
            moments = vae.quant_conv(vae.encoder(video))
            whole = vae.decoder(vae.post_quant_conv(latent)).clamp(-1, 1)
        again = vae.decode(latent).sample
    torch.testing.assert_close(moments.chunk(2, 1)[0], latent, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(whole, cached, atol=1e-5, rtol=1e-4)
    assert torch.equal(again, cached)


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16)])
def test_orthogonal_pushes_singular_values_towards_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    out = orthogonal(matrix)
    values = torch.linalg.svdvals(out)
    assert values.max() < 1.3
    assert values.median() > 0.6
    alone = orthogonal(matrix[1:2])
    torch.testing.assert_close(out[1:2], alone, atol=2e-2, rtol=0)


def test_the_rate_rises_then_falls_to_almost_nothing() -> None:
    log = Log()
    clock = Clock(Budget(steps=100, minutes=1e9), log, warmup=10)
    rates = []
    while clock.progress < 1:
        rates.append(clock.rate())
        clock.tick()
    assert log.step == 100
    assert rates.index(max(rates)) in range(8, 13)
    assert rates[-1] < 0.03
    assert max(rates) > 0.9


def test_words_are_tokens_and_others_are_unknown() -> None:
    ids, mask = train_dit.tokens([*train_dit.prompts_of(seen_specs()), "a purple elephant, rising"])
    assert ids.shape == mask.shape == (len(seen_specs()) + 2, train_dit.TEXT_LENGTH)
    unknown = train_dit.tokenizer().unk_token_id
    assert not (ids[:-1] == unknown).any()
    assert (ids[-1] == unknown).sum() == 2
    assert mask[-2].sum() == 1  # the empty prompt is its end token alone
    assert len(set(map(tuple, ids.tolist()))) == len(ids)


def test_times_follow_the_shift() -> None:
    times = train_dit.sample_times(20000, torch.Generator().manual_seed(0))
    assert 0 < times.min() < times.max() < 1
    assert abs(times.median() - 0.75) < 0.01  # the median of the logit-normal is 1/2; 3 t / (1 + 2 t) of it is 3/4


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All four stages in miniature, stopped and resumed in between."""
    folder = tmp_path_factory.mktemp("train")
    patch = pytest.MonkeyPatch()
    patch.setattr(train_vae, "SCHEDULE", ((1.0, (train_vae.Clips(1, 5, 16),)),))
    patch.setattr(train_dit, "CHUNK", 32)
    patch.setattr(train_dit, "BATCH", 2)
    patch.setattr(train_dit, "TRANSFORMER", train_dit.TRANSFORMER | {"num_layers": 1})
    patch.setattr(train_dit.Encoder, "PART", 4)
    patch.setattr(render, "NATIVE_FRAMES", 5)
    common = f"--state {folder / 'state'} --out {folder / 'out'} --no-compile --device cpu --chunks 1 --most-chunks 2"
    for more in ("--stages vae --vae-steps 1", "--stages vae latents dit --vae-steps 2 --dit-steps 1", ""):
        train.main(f"{common} --vae-steps 2 --dit-steps 3 --chunk-every 2 {more}".split())
    patch.undo()
    return folder


def test_stages_resume_where_they_stopped(trained: Path) -> None:
    recipe = json.loads((trained / "out/recipe.json").read_text())
    assert recipe["stages"]["vae"]["step"] == 2
    assert recipe["stages"]["dit"]["step"] == 3
    assert sorted(p.name for p in (trained / "state/latents").glob("*.pt")) == ["0000.pt", "0001.pt"]


def test_the_export_is_a_plain_pipeline_without_pickles(trained: Path) -> None:
    files = [p for p in (trained / "out").rglob("*") if p.is_file()]
    assert {p.suffix for p in files} <= {".json", ".safetensors"}
    pipeline = WanPipeline.from_pretrained(trained / "out", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    out = pipeline(
        "a red star rising on a navy background",
        height=64,
        width=64,
        num_frames=5,
        num_inference_steps=2,
        max_sequence_length=pipeline.tokenizer.model_max_length,
        output_type="pt",
    ).frames
    assert out.shape == (1, 5, 3, 64, 64)
    assert out.isfinite().all()


def test_the_same_seed_makes_the_same_latents(trained: Path) -> None:
    vae = train.trained_vae(trained / "state", 0, torch.device("cpu"))
    one, two = (train_dit.Encoder(vae, 0, torch.device("cpu"), False).raw(7, 0, 2) for _ in range(2))
    other = train_dit.Encoder(vae, 0, torch.device("cpu"), False).raw(8, 0, 2)
    assert all(torch.equal(a, b) for a, b in zip(one, two))
    assert not torch.equal(one[0], other[0])
