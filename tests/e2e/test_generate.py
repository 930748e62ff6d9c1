"""The main job through the command line and the API, on tiny random Wan models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from models.tiny import save, wan
from safetensors.torch import load_file

import longgen
from longgen.__main__ import main
from longgen.media.read import open_video

PROMPT = "a red circle moving left"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(wan("2.1"), tmp_path_factory.mktemp("model") / "tiny")


def cli(*words: str) -> None:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    assert left.value.code in (0, None)


def test_text_in_video_out(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.mp4"
    cli("generate", "-p", PROMPT, "-m", str(model), "--num-frames", "38", "--method", "windows", "-o", str(out))
    video = open_video(out)
    assert len(video) == 38 and video.info.fps == 8
    told = json.loads(out.with_suffix(".json").read_text())
    assert told["frames"] == 38 and told["latents"] == 11
    assert told["windows"]["frames"][0][0] == 0 and told["windows"]["frames"][-1][1] == 38
    assert told["calls"] == 4 * len(told["windows"]["latents"])
    assert {"sample", "decode", "encode", "total"} <= set(told["timings"])
    assert told["peak_memory"]["resident"] > 0 and told["model"]["weights"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_same_seed_same_bytes_and_another_seed_other_frames(model: Path, tmp_path: Path) -> None:
    run = ["generate", "-p", PROMPT, "-m", str(model), "--num-frames", "17"]
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        cli(*run, "--seed", seed, "-o", str(tmp_path / f"{name}.mkv"))
    a, b, c = ((tmp_path / f"{n}.mkv").read_bytes() for n in "abc")
    assert a == b and a != c


def test_command_line_api_and_pipeline_in_hand_agree_to_the_bit(model: Path, tmp_path: Path) -> None:
    options = {"num_frames": 29, "method": "freenoise", "seed": 5, "num_inference_steps": 3}
    cli(
        "generate", "-p", PROMPT, "-m", str(model), "--num-frames", "29", "--method", "freenoise",
        "--seed", "5", "--steps", "3", "-o", str(tmp_path / "v.mkv"), "--save-latents",
    )  # fmt: skip
    written = load_file(tmp_path / "v.safetensors")["latents"]
    by_path = longgen.generate(PROMPT, model=model, **options)
    pipe = type(wan("2.1")).from_pretrained(model)
    before = {n: p.__class__ for n, p in pipe.transformer.attn_processors.items()}
    weights = {n: p.clone() for n, p in pipe.transformer.state_dict().items()}
    in_hand = longgen.generate(PROMPT, model=pipe, **options)
    assert torch.equal(written, by_path.latents) and torch.equal(written, in_hand.latents)
    frames = np.stack(list(open_video(tmp_path / "v.mkv")))
    assert np.array_equal(frames, by_path.frames) and np.array_equal(frames, in_hand.frames)
    assert {n: p.__class__ for n, p in pipe.transformer.attn_processors.items()} == before
    assert all(torch.equal(p, weights[n]) for n, p in pipe.transformer.state_dict().items())


def test_a_video_does_not_depend_on_its_batch_mates(model: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "p.txt"
    prompts.write_text(f"a blue star moving right\n{PROMPT}\n")
    run = ["-m", str(model), "--num-frames", "9", "--codec", "ffv1"]
    cli("generate", "--prompt-file", str(prompts), *run, "-o", f"{tmp_path}/many/")
    cli("generate", "-p", PROMPT, *run, "-o", str(tmp_path / "one.mkv"))
    assert (tmp_path / "many" / "0001.mkv").read_bytes() == (tmp_path / "one.mkv").read_bytes()
    assert (tmp_path / "many" / "0000.json").exists()


def test_samples_count_up_the_seed(model: Path, tmp_path: Path) -> None:
    run = ["generate", "-p", PROMPT, "-m", str(model), "--num-frames", "5", "--naming", "vbench"]
    cli(*run, "--samples", "2", "--seed", "7", "-o", f"{tmp_path}/s/")
    seeds = [json.loads((tmp_path / "s" / f"{PROMPT}-{i}.json").read_text())["seed"] for i in range(2)]
    assert seeds == [7, 8]


def test_decode_apart_from_sampling(model: Path, tmp_path: Path) -> None:
    run = ["generate", "-p", PROMPT, "-m", str(model), "--num-frames", "10", "-o", str(tmp_path / "v.mkv")]
    cli(*run, "--save-latents")
    cli("decode", str(tmp_path / "v.safetensors"), "-m", str(model), "-o", str(tmp_path / "w.mkv"))
    assert (tmp_path / "v.mkv").read_bytes() == (tmp_path / "w.mkv").read_bytes()


def test_init_latents_start_the_run(model: Path, tmp_path: Path) -> None:
    """Noise in a file is the start: the plain pipeline from the same noise gives the same latents."""
    from safetensors.torch import save_file

    pipe = type(wan("2.1")).from_pretrained(model)
    noise = torch.randn(1, pipe.transformer.config.in_channels, 5, 4, 6, generator=torch.Generator().manual_seed(1))
    save_file({"latents": noise}, tmp_path / "n.safetensors")
    cli(
        "generate", "-p", PROMPT, "-m", str(model), "--num-frames", "17", "--negative-prompt", "blurry", "--method",
        "direct", "--init-latents", str(tmp_path / "n.safetensors"), "-o", str(tmp_path / "v.mkv"), "--save-latents",
    )  # fmt: skip
    ours = load_file(tmp_path / "v.safetensors")["latents"]
    plain = pipe(
        PROMPT, "blurry", height=32, width=48, num_frames=17, num_inference_steps=4, guidance_scale=4.0,
        latents=noise, output_type="latent", max_sequence_length=12,
    ).frames  # fmt: skip
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=0)


def test_dry_run_and_plan_write_nothing(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "v.mp4"
    run = ["-p", PROMPT, "-m", str(model), "--num-frames", "30", "--method", "windows", "--json"]
    cli("generate", *run, "-o", str(out), "--dry-run")
    dry = json.loads(capsys.readouterr().out)
    cli("plan", *run)
    assert json.loads(capsys.readouterr().out) == dry
    assert dry["frames"] == 30 and dry["latents"] == 9 and dry["calls"] == 4 * len(dry["windows"])
    assert not out.exists() and list(tmp_path.iterdir()) == []


def test_batch_skips_what_is_done_and_goes_on_after_a_failure(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = tmp_path / "jobs.yaml"
    jobs.write_text(f"- {PROMPT}\n- prompt: a blue star\n  seed: 4\n- prompt: a green square\n")
    run = ["batch", str(jobs), "-m", str(model), "--num-frames", "5", "-o", str(tmp_path / "out")]
    from longgen.cli.work import Work

    real = Work.run

    def fails_on_the_second(self: Work) -> list:
        if "0001" in str(self.output):
            raise RuntimeError("out of memory")
        return real(self)

    with monkeypatch.context() as broken:
        broken.setattr(Work, "run", fails_on_the_second)
        with pytest.raises(SystemExit) as left:
            main(run)
    assert left.value.code == 1 and "1 failed" in capsys.readouterr().err
    first = (tmp_path / "out" / "0000.mp4").stat().st_mtime_ns
    cli(*run, "--retry-failed")
    assert (tmp_path / "out" / "0000.mp4").stat().st_mtime_ns == first, "what was done is not made again"
    assert sorted(p.name for p in (tmp_path / "out").glob("*.mp4")) == ["0000.mp4", "0001.mp4", "0002.mp4"]


def test_a_sidecar_makes_the_same_video_again(model: Path, tmp_path: Path) -> None:
    run = ["generate", "-p", f"{PROMPT} | a blue star", "-m", str(model), "--num-frames", "29", "--method", "windows"]
    cli(*run, "--set", "windows.weights=flat", "--seed", "-1", "-o", str(tmp_path / "v.mkv"))
    cli("rerun", str(tmp_path / "v.json"), "-o", str(tmp_path / "w.mkv"))
    assert (tmp_path / "v.mkv").read_bytes() == (tmp_path / "w.mkv").read_bytes()
    again = json.loads((tmp_path / "w.json").read_text())
    assert again["identity"] == json.loads((tmp_path / "v.json").read_text())["identity"]
