"""A run that is interrupted after some step and resumed in a new process finishes with the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from models.tiny import save, wan
from safetensors.torch import load_file

from longgen.api import Session
from longgen.config import Request
from longgen.runtime.run import Job
from longgen.runtime.sample import Progress

RUNS = [
    {"method": method, "solver": solver}
    for method in (
        "direct",
        "windows",
        "freenoise",
        "flowlong",
        "freeinit",
        "fifo",
        "miga",
        "extend",
        "ditctrl,windows",
    )
    for solver in ("default", "euler")
]
FRAMES, STOP = 41, 2

CHILD = """
import json, sys
import torch
from pathlib import Path
from safetensors.torch import save_file
from longgen.api import Session
from longgen.config import Request
from longgen.runtime.run import Job
torch.set_num_threads(1)
folder, model, frames = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
session = Session(model)
for i, run in enumerate(json.loads(sys.argv[4])):
    plan = session.plan(Request(prompt="a red circle", num_frames=frames, **run))
    job = Job(keep=True, checkpoint=folder / str(i), resume=True)
    save_file({"latents": session.run(plan, job).latents}, folder / f"{i}.safetensors")
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(wan("2.1"), tmp_path_factory.mktemp("model") / "tiny")


def plan_of(session: Session, run: dict[str, str]):  # type: ignore[no-untyped-def]
    return session.plan(Request(prompt="a red circle", num_frames=FRAMES, **run))


def test_resumed_in_a_new_process(model: Path, tmp_path: Path) -> None:
    session = Session(model)

    def interrupt(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == STOP:
            raise KeyboardInterrupt

    for i, run in enumerate(RUNS):
        seen: list[Progress] = []
        with pytest.raises(KeyboardInterrupt):
            session.run(plan_of(session, run), Job(checkpoint=tmp_path / str(i), on_progress=interrupt))
        assert (tmp_path / str(i) / "state.safetensors").exists(), run
    words = [sys.executable, "-c", CHILD, str(tmp_path), str(model), str(FRAMES), json.dumps(RUNS)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for i, run in enumerate(RUNS):
        whole = session.run(plan_of(session, run), Job(keep=True)).latents
        resumed = load_file(tmp_path / f"{i}.safetensors")["latents"]
        assert whole is not None and torch.equal(whole, resumed), run
        assert not (tmp_path / str(i)).exists(), "a finished run leaves no checkpoint"


def test_a_checkpoint_of_other_settings_is_refused(model: Path, tmp_path: Path) -> None:
    from longgen.errors import BadInput

    session = Session(model)

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.run(plan_of(session, {"method": "direct"}), Job(checkpoint=tmp_path / "c", on_progress=interrupt))
    with pytest.raises(BadInput, match="other settings"):
        session.run(plan_of(session, {"method": "windows"}), Job(checkpoint=tmp_path / "c", resume=True))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_run_cut_short_leaves_nothing_behind(error: type[BaseException]) -> None:
    """Patches come off and gradients are on again at once, also while the error is still being handled."""
    pipe = wan("2.1")
    before = {n: id(p) for n, p in pipe.transformer.attn_processors.items()}
    session = Session(pipe)
    seen = []

    def fail(progress: Progress) -> None:
        seen.append({n: id(p) for n, p in pipe.transformer.attn_processors.items()})
        raise error

    plan = session.plan(Request(prompt="a red circle", num_frames=161, height=32, width=48, method="freenoise"))
    try:
        session.run(plan, Job(on_progress=fail))
    except error:
        assert {n: id(p) for n, p in pipe.transformer.attn_processors.items()} == before
        assert torch.is_grad_enabled()
    else:
        pytest.fail("the error did not come through")
    assert seen and seen[0] != before, "the patch was on while the run went"
