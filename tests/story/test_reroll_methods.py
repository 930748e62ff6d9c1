"""One shot again under every kind of loop, on a tiny Wan model: what lies outside it is the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from models.tiny import wan

from longgen.api import Session
from longgen.config import Request
from longgen.media.write import check_target
from longgen.runtime.reroll import plan_shot, reroll
from longgen.runtime.run import Job
from longgen.runtime.sidecar import read_sidecar
from longgen.types import Shot, Timeline

# Latents 0 … 7, 8 … 12 (9 … 10 hold the blend) and 13 … 15.
TIMELINE = Timeline(
    (
        Shot("a red circle moving left", 0, 29, "one"),
        Shot("a blue square moving right", 29, 49, "two", transition="blend", blend=8),
        Shot("a green star on black", 49, 61, "three", transition="cut"),
    ),
    16,
)


@pytest.fixture(scope="module")
def session() -> Session:
    made = Session(wan("2.1"))
    made.info = replace(made.info, native_frames=17)
    made.model.info = made.info
    return made


@pytest.mark.parametrize("method", ["windows", "freenoise", "extend", "fifo", "windows,ditctrl"])
@pytest.mark.parametrize("shot", ["two", "three"])
def test_one_shot_again(session: Session, method: str, shot: str, tmp_path: Path) -> None:
    asked = Request(prompt="story", method=method, num_inference_steps=2, height=32, width=32)
    plan = session.plan(asked, TIMELINE)
    target = check_target(tmp_path / "v.mkv", False, None, None)
    first = session.run(plan, Job(target=target, latents_out=tmp_path / "v.safetensors", keep=True))
    run = read_sidecar(tmp_path / "v.json")
    assert run.timeline == TIMELINE
    again, index = plan_shot(session, run, shot, 9)
    outcome = reroll(session, run, again, index, Job(keep=True))
    a, b = {"two": (8, 13), "three": (13, 16)}[shot]
    assert outcome.sidecar["reroll"]["free_latents"] == [a, b] and outcome.sidecar["reroll"]["latents_equal"]
    assert first.latents is not None and outcome.latents is not None
    same = [torch.equal(first.latents[:, :, i], outcome.latents[:, :, i]) for i in range(16)]
    assert same == [not a <= i < b for i in range(16)]
    assert first.frames is not None and outcome.frames is not None
    before = (a - 1) * 4 + 1  # the first frame of latent a
    assert (first.frames[:before] == outcome.frames[:before]).all() and len(outcome.frames) == 61
    changed = [i for i in range(61) if (first.frames[i] != outcome.frames[i]).any()]
    assert [changed[0], changed[-1]] == outcome.sidecar["reroll"]["changed_frames"]
