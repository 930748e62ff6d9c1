"""Requests: ranges, spellings and the one line that each fault gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from longgen.__main__ import ALIASES, canonical
from longgen.cli.options import request
from longgen.config import Request, parse_duration, parse_settings, parse_size, read_recipe, validated
from longgen.errors import BadInput


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"num_frames": 0}, "--num-frames must be greater than or equal to 1"),
        ({"num_frames": -5}, "--num-frames"),
        ({"num_frames": 10**9}, "less than or equal to 1000000"),
        ({"guidance_scale": float("nan")}, "--guidance-scale must be a finite number"),
        ({"guidance_scale": -1.0}, "--guidance-scale"),
        ({"fps": 0}, "--fps must be greater than 0"),
        ({"num_inference_steps": 0}, "--num-inference-steps"),
        ({"prompt": "  "}, "--prompt is empty"),
        ({"num_frames": 5, "duration": 1.0}, "not both"),
        ({"attention": "fast"}, "'auto', 'sdpa'"),
        ({"dtype": "int8"}, "'fp32', 'bf16' or 'fp16'"),
        ({"seed": -2}, "--seed"),
        ({"promt": "x"}, "did you mean 'prompt'"),
        ({"window_batch": 0}, "--window-batch"),
    ],
)
def test_bad_values_say_what_is_right(values: dict, says: str) -> None:
    with pytest.raises(BadInput) as told:
        validated(values)
    assert says in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("text", "seconds"), [("10s", 10), ("1.5", 1.5), ("2m", 120), ("1m30s", 90), ("500ms", 0.5)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "ten", "-3s", "3h", "s"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(BadInput, match="10s"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["832x480", "832*480", " 832 × 480 "])
def test_sizes(text: str) -> None:
    assert parse_size(text) == (832, 480)


@pytest.mark.parametrize("text", ["832", "832x", "axb", "832x480x3"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(BadInput, match="832x480"):
        parse_size(text)


@pytest.mark.parametrize("pair", ["window=3", "freenoise.window", "=3"])
def test_settings_need_method_and_value(pair: str) -> None:
    with pytest.raises(BadInput, match=r"method\.key=value"):
        parse_settings([pair])


def test_recipe_yields_to_the_command_line(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("method: freenoise\nnum-frames: 129\nset: {freenoise.window: 33, freenoise.stride: 8}\nseed: 5\n")
    asked = request({"config": str(recipe), "seed": 7, "set": ["freenoise.window=17"], "prompt": "x"})
    assert (asked.method, asked.num_frames, asked.seed) == ("freenoise", 129, 7)
    assert asked.set == {"freenoise.window": 17, "freenoise.stride": 8}


def test_a_duration_on_the_command_line_replaces_the_recipes_frames(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("num_frames: 129\n")
    asked = request({"config": str(recipe), "duration": "2s"})
    assert (asked.num_frames, asked.duration) == (None, 2.0)


@pytest.mark.parametrize(
    ("content", "says"),
    [("- a\n", "mapping"), ("a: [", "not YAML"), ("metod: x\n", "did you mean 'method'"), ("fps: 0\n", "--fps")],
)
def test_bad_recipes_name_the_file(tmp_path: Path, content: str, says: str) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(content)
    with pytest.raises(BadInput) as told:
        request({"config": str(recipe)})
    assert says in str(told.value) and "bad.yaml" in str(told.value)


def test_files_that_are_not_text(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"prompt: caf\xe9\n")
    with pytest.raises(BadInput, match="not UTF-8"):
        read_recipe(latin)
    with pytest.raises(BadInput, match="does not exist"):
        read_recipe(tmp_path / "none.yaml")
    with pytest.raises(BadInput, match="is a folder"):
        read_recipe(tmp_path)


def test_spellings_of_other_tools() -> None:
    typed = ["generate", "--frame_num", "81", "--sample_guide_scale=5", "--save_file", "x.mp4", "--cfg", "1"]
    told = canonical(typed)
    assert told == [
        "generate",
        "--num-frames",
        "81",
        "--guidance-scale=5",
        "--output",
        "x.mp4",
        "--guidance-scale",
        "1",
    ]
    assert canonical(["--prompt", "--steps"]) == ["--prompt", "--steps"], "a prompt is never an option"
    ours = {"--" + name.replace("_", "-") for name in Request.model_fields}
    ours |= {"--output", "--prompt-file", "--codec"}
    assert set(ALIASES.values()) <= ours
