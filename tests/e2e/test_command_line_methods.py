"""Every method from the command line on the embedded model: a file of exactly the frames asked for, at any length."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longgen import registry
from longgen.__main__ import canonical
from longgen.cli.app import run
from longgen.media.read import open_video
from longgen.runtime.compose import spelled_out

LENGTHS = (33, 51, 90, 129, 257)


def composition(name: str) -> str:
    """The method beside the loop that it is made for."""
    if name in registry.COMPOSITIONS:
        return name
    slots = registry.method(name).info.slots
    if "kv" in slots:
        return f"windows,{name}"
    return f"extend,{name}" if "stabilise" in slots else name


def made(out: Path, name: str, frames: int) -> None:
    words = ["generate", "--method", composition(name), "--num-frames", str(frames), "--steps", "2", "--seed", "3"]
    prompt = ["--prompt", "a red circle drifting right on a black background"]
    assert run(canonical([*words, *prompt, "-o", str(out)])) == 0
    assert len(open_video(out)) == frames
    sidecar = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    used = sidecar["request"]["method"].split(",")  # with the loop that runs when none is named
    assert set(spelled_out(composition(name))[0].split(",")) <= set(used) and sidecar["request"]["num_frames"] == frames


@pytest.mark.slow
@pytest.mark.parametrize("frames", LENGTHS)
@pytest.mark.parametrize("name", [*registry.METHODS, *registry.COMPOSITIONS])
def test_every_method_makes_its_file(tmp_path: Path, name: str, frames: int) -> None:
    made(tmp_path / "out.mp4", name, frames)


@pytest.mark.parametrize("name", ["freenoise", "extend"])
def test_a_length_between_windows(tmp_path: Path, name: str) -> None:
    """One that is no multiple of windows or latents, in every run of the suite."""
    made(tmp_path / "out.mp4", name, 51)
