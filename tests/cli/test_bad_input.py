"""Bad input: exit 2, one clear line that says what is right, nothing written, no weights loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models.tiny import save, wan

from longgen.__main__ import main

PROMPT = ["--prompt", "a red circle moving left"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(wan("2.1"), tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def refuse(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Runs a command line that must be refused; returns its one line."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, code: int = 2) -> str:
        before = sorted(p for p in tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as left:
            main(list(words))
        told = capsys.readouterr()
        assert left.value.code == code, told.err
        lines = told.err.strip().splitlines()
        assert lines[-1].startswith("longgen: error: "), told.err
        assert "Traceback" not in told.err and len(lines[-1]) < 600
        assert sorted(p for p in tmp_path.rglob("*")) == before, "something was written"
        return lines[-1]

    return run


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--method", "freenose"], "did you mean 'freenoise'"),
        (["--method", "windows,fifo"], "both own the slot 'loop'"),
        (["--set", "windows.windw=5", "--method", "windows"], "did you mean 'window'"),
        (["--num-frames", "0"], "--num-frames"),
        (["--num-frames", "-3"], "--num-frames"),
        (["--num-frames", "99999999"], "1000000"),
        (["--size", "50x32"], "48 or 64"),
        (["--height", "7"], "multiple of 16"),
        (["--size", "wide"], "832x480"),
        (["--guidance-scale", "nan"], "finite"),
        (["--fps", "0"], "--fps"),
        (["--steps", "0"], "--num-inference-steps"),
        (["--solver", "eular"], "did you mean 'euler'"),
        (["--device", "cuda:9"], "--device"),
        (["--attention", "flsh"], "--attention"),
        (["--schedule", "holt"], "did you mean 'hold'"),
        (["--nonsense"], "No such option"),
        (["--seed", "x"], "--seed"),
        (["--crf", "99"], "0-51"),
        (["--codec", "divx"], "codec"),
        (["--samples", "0"], "--samples"),
        (["--duration", "soon"], "10s"),
        (["--init-latents", "none.safetensors"], "does not exist"),
        (["--prompt-file", "p.txt"], "not both"),
    ],
)
def test_options(refuse: Callable[..., str], model: Path, words: list[str], says: str) -> None:
    assert says in refuse("generate", *PROMPT, "-m", str(model), "-o", "x.mp4", *words)


@pytest.mark.parametrize(
    ("output", "says"),
    [("x.avi", ".mp4"), ("x", "container"), ("/proc/x.mp4", "cannot be written"), ("/dev/null/x.mp4", "not a folder")],
)
def test_outputs(refuse: Callable[..., str], model: Path, output: str, says: str) -> None:
    assert says in refuse("generate", *PROMPT, "-m", str(model), "-o", output)


def test_existing_output(refuse: Callable[..., str], model: Path, tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"precious")
    assert "--overwrite" in refuse("generate", *PROMPT, "-m", str(model), "-o", "x.mp4")
    assert (tmp_path / "x.mp4").read_bytes() == b"precious"


def test_no_output_no_prompt_empty_prompt(refuse: Callable[..., str], model: Path) -> None:
    assert "-o OUT.mp4" in refuse("generate", *PROMPT, "-m", str(model))
    assert "--prompt" in refuse("generate", "-m", str(model), "-o", "x.mp4")
    assert "empty" in refuse("generate", "--prompt", " ", "-m", str(model), "-o", "x.mp4")


def test_prompt_files(refuse: Callable[..., str], model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "dir").mkdir()
    run = ["-m", str(model), "-o", "out/"]
    assert "holds no prompt" in refuse("generate", "--prompt-file", "empty.txt", *run)
    assert "not UTF-8" in refuse("generate", "--prompt-file", "latin.txt", *run)
    assert "folder" in refuse("generate", "--prompt-file", "dir", *run)
    assert "does not exist" in refuse("generate", "--prompt-file", "none.txt", *run)


def test_models_that_cannot_be(
    refuse: Callable[..., str], model: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = [*PROMPT, "-o", "x.mp4", "-m"]
    assert "did you mean 'shapes'" in refuse("generate", *run, "shaeps")
    assert "no such model folder" in refuse("generate", *run, "./nowhere")
    assert "--model PATH" in refuse("generate", *run, "some-org/some-model")
    place = tmp_path_factory.mktemp("broken")
    weights = Path("transformer") / "diffusion_pytorch_model.safetensors"

    def broken(name: str) -> Path:
        return Path(shutil.copytree(model, place / name))

    missing, cut, pickled, odd = broken("missing"), broken("cut"), broken("pickled"), broken("odd")
    (missing / weights).unlink()
    (cut / weights).write_bytes((model / weights).read_bytes()[:-100])
    (pickled / weights).rename(pickled / "transformer" / "diffusion_pytorch_model.bin")
    index = json.loads((odd / "model_index.json").read_text())
    index["transformer"] = ["diffusers", "SD3Transformer2DModel"]
    (odd / "model_index.json").write_text(json.dumps(index))
    assert "safetensors" in refuse("generate", *run, str(missing))
    assert "truncated" in refuse("generate", *run, str(cut))
    assert "safetensors" in refuse("generate", *run, str(pickled))
    assert "SD3Transformer2DModel" in refuse("generate", *run, str(odd))


def test_latents_of_another_shape(refuse: Callable[..., str], model: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"latents": torch.zeros(1, 2, 3, 4, 5)}, tmp_path / "l.safetensors")
    save_file({"other": torch.zeros(1)}, tmp_path / "o.safetensors")
    run = ["generate", *PROMPT, "-m", str(model), "-o", "x.mp4", "--init-latents"]
    assert "shape [1, 2, 3, 4, 5]" in refuse(*run, "l.safetensors")
    assert "no tensor `latents`" in refuse(*run, "o.safetensors")


def test_unknown_command(refuse: Callable[..., str]) -> None:
    assert "No such command" in refuse("generat")


SIDECAR: dict[str, Any] = {
    "schema": 1,
    "identity": "abc",
    "request": {"model": "shapes", "num_frames": 9},
    "prompt": "a red circle",
    "timeline": {"fps": 8.0, "shots": [{"id": "a", "start": 0, "stop": 9, "prompt": "a red circle"}]},
    "model": {"id": "shapes", "weights": "0"},
    "versions": {},
}


@pytest.mark.parametrize("command", [["rerun", "a.json"], ["story", "a.json", "--only", "a", "--seed", "1"]])
@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        *((part, None, f"it lacks {part}") for part in SIDECAR if part not in ("request", "identity")),
        ("schema", 2, "of a newer longgen"),
        ("model", [], "no sidecar"),
        ("model", {"id": "shapes"}, "it lacks weights"),
        ("versions", 3, "no sidecar"),
        ("timeline", {"fps": 8, "shots": []}, "its timeline has no shots"),
        ("timeline", {"fps": 8, "shots": [{"id": "a", "begin": 0}]}, "no sidecar"),
        ("timeline", {"fps": 8, "shots": 3}, "no sidecar"),
        ("timeline", {"fps": "fast", "shots": SIDECAR["timeline"]["shots"]}, "no sidecar"),
    ],
)
def test_odd_sidecars(
    refuse: Callable[..., str], tmp_path: Path, command: list[str], part: str, value: Any, says: str
) -> None:
    told = SIDECAR | {part: value}
    (tmp_path / "a.json").write_text(json.dumps({k: v for k, v in told.items() if v is not None}))
    assert says in refuse(*command, "-o", "x.mp4")


def test_reruns_of_what_is_no_sidecar(refuse: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "d.json").write_text(json.dumps({k: v for k, v in SIDECAR.items() if k != "request"}))
    assert "no sidecar" in refuse("rerun", "a.json", "-o", "x.mp4")
    assert "not JSON" in refuse("rerun", "b.json", "-o", "x.mp4")
    assert "does not exist" in refuse("rerun", "c.json", "-o", "x.mp4")
    assert "it lacks request" in refuse("rerun", "d.json", "-o", "x.mp4")
    assert "takes the sidecar of a run" in refuse("story", "d.json", "--only", "a", "--seed", "1", "-o", "x.mp4")
    (tmp_path / "a.json").write_text(json.dumps(SIDECAR))
    again = ["story", "a.json", "--only", "a", "--seed", "1", "-o", "x.mp4"]
    assert "a.safetensors does not exist" in refuse(*again)
    (tmp_path / "a.safetensors").write_bytes(b"no tensors")
    assert "not a readable safetensors file" in refuse(*again)
