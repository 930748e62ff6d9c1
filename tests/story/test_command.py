"""`longgen story` on a tiny random Wan model: same bits as `generate`, files beside the video, one shot again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models.tiny import save, wan
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

import longgen
from longgen.__main__ import main
from longgen.media.read import open_video
from longgen.runtime.facts import RunFacts

RED, BLUE, STAR = "a red circle moving left", "a blue square moving right", "a green star on black"
STORY = f"""\
version: 1
defaults: {{method: windows, num_inference_steps: 2}}
shots:
  - {{id: one, prompt: {RED}, frames: 20}}
  - {{id: two, prompt: {BLUE}, frames: 20, transition: blend, blend_frames: 4}}
  - {{id: three, prompt: {STAR}, frames: 20, transition: cut}}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(wan("2.1"), tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def told(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A story of three shots, written with everything that can lie beside it."""
    folder = tmp_path_factory.mktemp("story")
    (folder / "s.yaml").write_text(STORY)
    extra = ["--save-latents", "--clips", "--storyboard"]
    assert cli("story", folder / "s.yaml", "-m", model, "-o", folder / "v.mkv", *extra) == 0
    return folder


def cli(*words: Any) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return int(left.value.code or 0)


def latents(model: Path, prompt: str, schedule: str = "hold", frames: int = 33) -> Tensor:
    options: dict[str, Any] = {"num_frames": frames, "method": "windows", "num_inference_steps": 2}
    return longgen.generate(prompt, model=model, schedule=schedule, **options).latents


def test_files_beside_the_video(told: Path) -> None:
    facts = json.loads((told / "v.json").read_text())
    assert len(open_video(told / "v.mkv")) == 60 and facts["shot_boundaries"] == [20, 40]
    assert [s["transition"] for s in facts["timeline"]["shots"]] == ["continue", "blend", "cut"]
    assert [len(open_video(told / "v.shots" / f"{name}.mkv")) for name in ("one", "two", "three")] == [20, 20, 20]
    whole = np.stack(list(open_video(told / "v.mkv")))
    assert np.array_equal(whole[20:40], np.stack(list(open_video(told / "v.shots" / "two.mkv"))))
    assert BLUE in (told / "v.vtt").read_text() and "title=three" in (told / "v.chapters.txt").read_text()
    assert (told / "v.png").stat().st_size > 1000


def test_a_story_of_one_shot_is_generate(model: Path, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(f"shots: [{{prompt: {RED}}}]")
    common = ["-m", model, "--num-frames", 33, "--method", "windows", "--steps", 2, "--save-latents", "--seed", 5]
    assert cli("story", tmp_path / "s.yaml", *common, "-o", tmp_path / "a.mkv") == 0
    assert cli("generate", "-p", RED, *common, "-o", tmp_path / "b.mkv") == 0
    a, b = (load_file(tmp_path / f"{name}.safetensors")["latents"] for name in "ab")
    assert torch.equal(a, b) and (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()


def test_schedules_of_equal_prompts_change_nothing_and_of_others_do(model: Path) -> None:
    plain = latents(model, RED)
    seen = [latents(model, f"{RED} | {BLUE}", "hold")]
    for schedule in ("travel", "travel:spherical=true", "blend", "inject", "relay:tail=4", "window"):
        assert torch.equal(latents(model, f"{RED} | {RED}", schedule), plain)
        told = latents(model, f"{RED} | {BLUE}", schedule)
        assert all(not torch.equal(told, other) for other in seen), schedule
        seen.append(told)


def test_one_shot_again(model: Path, told: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.mkv"
    assert cli("story", told / "v.json", "--only", "two", "--seed", 9, "-o", out, "--save-latents") == 0
    before, after = (load_file(p)["latents"] for p in (told / "v.safetensors", out.with_suffix(".safetensors")))
    facts = json.loads(out.with_suffix(".json").read_text())
    first, stop = facts["reroll"]["free_latents"]
    same = [bool((before[:, :, i] == after[:, :, i]).all()) for i in range(before.shape[2])]
    assert same == [not first <= i < stop for i in range(len(same))] and facts["reroll"]["latents_equal"]
    old, new = (np.stack(list(open_video(p))) for p in (told / "v.mkv", out))
    changed = [i for i in range(60) if not np.array_equal(old[i], new[i])]
    assert [changed[0], changed[-1]] == facts["reroll"]["changed_frames"]
    assert changed[0] == (first - 1) * 4 + 1, "frames before the shot's first latent are the same"
    assert facts["reroll"]["frames_after"] == max(0, changed[-1] - (stop - 1) * 4)
    assert [s["seed"] for s in facts["timeline"]["shots"]] == [None, 9, None]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["{told}/v.json", "--only", "twp", "--seed", "1"], "did you mean 'two'"),
        (["{told}/v.json", "--only", "two"], "--only needs a new --seed"),
        (["{told}/v.json", "--only", "two", "--seed", "1", "--method", "fifo"], "--only keeps the run's options"),
        (["{told}/s.yaml", "--only", "two", "--seed", "1"], "--only takes the sidecar"),
        (["{told}/s.yaml", "--schedule", "hald"], "did you mean 'hold'"),
        (["{told}/s.yaml", "--schedule", "travel:lenght=3"], "did you mean 'length'"),
        (["{told}/s.yaml", "--schedule", "blend", "--method", "windows,ditctrl"], "use hold or travel"),
        (["{told}/s.yaml", "--window-batch", "2", "--method", "windows,ditctrl"], "ditctrl hands keys on"),
        (["{told}/s.yaml", "--num-frames", "99"], "the shots last 60 frames"),
        (["{told}/s.yaml", "--dialect", "mapp"], "did you mean 'map'"),
        (["{told}/none.yaml"], "does not exist"),
        (["{told}/s.yaml", "--shots", "2"], "--shots belongs to --from"),
        (["{told}/s.yaml", "--as", "map"], "--as belongs to --show"),
        (["{told}/v.json", "--only", "two", "--seed", "1", "--dry-run"], "--dry-run belongs to a whole story"),
        (["--from", " "], "the text is empty"),
        ([], "give a story file, or --from"),
    ],
)
def test_bad_input_writes_nothing(
    words: list[str], says: str, model: Path, told: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [] if "--only" in words else ["-m", str(model)]
    assert cli("story", *(w.format(told=told) for w in words), *chosen, "-o", tmp_path / "x.mp4") == 2
    error = capsys.readouterr().err
    assert says in error and error.count("longgen: error:") == 1
    assert not list(tmp_path.iterdir())


def test_show_and_convert(model: Path, told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("story", told / "s.yaml", "-m", model, "--show") == 0
    assert "blend 4 frames" in capsys.readouterr().out
    assert cli("story", "--from", f"{RED}. {BLUE}.", "-m", model, "--show", "--as", "bars") == 0
    assert capsys.readouterr().out.strip() == f"{RED} | {BLUE}"
    assert cli("schema", "story") == 0
    assert "ShotSpec" in capsys.readouterr().out


def test_sidecars_follow_their_schema(told: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every key that a run writes is described, and the schema is that of the model that validates it."""
    facts = json.loads((told / "v.json").read_text())
    assert RunFacts.model_validate(facts).timeline.shots[1].blend == 4
    assert cli("schema", "run") == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(facts) <= set(schema["properties"]) and set(schema["required"]) <= set(facts)
    for fault in ({"fps": 0}, {"seed": "x"}, {"timeline": {"fps": 8, "shots": []}}, {"size": {"height": 8}}):
        with pytest.raises(ValidationError):
            RunFacts.model_validate({**facts, **fault})


FAULTS: list[tuple[str | bytes, list[str], str]] = [
    ("a: &x [1]\nb: *x", [], "line 1: aliases"),
    ("shots: [[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]", [], "nested more than 16 deep"),
    (b"shots: [{prompt: caf\xe9}]", [], "line 1: byte 20 is not UTF-8"),
    (b"#" * 1_000_001, [], "over 1 MB"),
    ("shots:\n" + " - prompt: a\n" * 10_000, [], "shots: tuple should have at most 1000 items"),
    ("shots:\n - {prompt: '{herro}'}\ncharacters: {hero: a}", [], "line 2, shots[0].prompt: unknown character 'herro'"),
    ("shots:\n - prompt: a\n   image: none.png", [], "line 3, shots[0].image"),
    ("shots:\n - prompt: a\n   duration: 0", [], "line 3, shots[0].duration: must be greater than 0"),
    ("shots:\n - prompt: a\n   duratoin: 3", [], "line 3, shots[0].duratoin: unknown key 'duratoin'; did you mean"),
    ("shots: [{prompt: a, duration: 86400}, {prompt: b, duration: 86400}]", [], "at most 1000000"),
    ("[0s: a] [2s: b]\n[1s: c]", [], "line 2: 1 s lies inside the range before it"),
    ("[0s-4s: a] [3s: b]", [], "lies inside the range before it"),
    ('{"0": "a", "8:2": "b"}', ["--num-frames", "33"], "ends before it starts"),
    (
        "shots: [{prompt: a, frames: 29}, {prompt: b, frames: 1, transition: cut}, {prompt: c, frames: 9}]",
        [],
        "line 1, shots[1]: shot 'shot2' lasts 1 frames, which no latent",
    ),
]


@pytest.mark.parametrize(("content", "words", "says"), FAULTS, ids=range(len(FAULTS)))
def test_bad_files_are_one_line_and_nothing_written(
    content: str | bytes, words: list[str], says: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "in" / "s.yaml"
    file.parent.mkdir()
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    assert cli("story", file, "-m", model, *words, "-o", tmp_path / "x.mp4") == 2
    error = capsys.readouterr().err.strip()
    assert says in error and str(file) in error.replace("\n", "") and error.count("longgen: error:") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
