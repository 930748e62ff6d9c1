"""Run by `torchrun` in two processes: the cases of `test_together.py`, latents of every process to one file each."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from longgen.api import Session
from longgen.config import Request
from longgen.runtime import distribute
from longgen.runtime.run import Job
from longgen.runtime.sample import Progress
from longgen.types import LoadOptions

PROMPT = "a red circle moving left"
COMMON: dict[str, Any] = {"prompt": PROMPT, "num_frames": 25, "num_inference_steps": 2, "seed": 5}
CALLS: dict[str, dict[str, Any]] = {
    "windows": {"method": "windows"},
    "fifo": {"method": "fifo", "set": {"fifo.partitions": 2, "fifo.window_latents": 3}},
    "direct": {"method": "direct"},  # one call: the sides of guidance are dealt out
    "extend": {"method": "extend"},  # a chain of single calls: the same
    "ditctrl": {"method": "windows,ditctrl"},  # keys are shared between calls: nothing is dealt out
}
ULYSSES: dict[str, dict[str, Any]] = {
    "u-direct": {"method": "direct"},
    "u-freelong": {"method": "freenoise.noise,freelong"},
    "u-freenoise": {"method": "freenoise"},
    "u-fifo": {"method": "fifo", "set": {"fifo.partitions": 1}},  # a level for each latent
    "u-texts": {"method": "riflex", "prompt": f"{PROMPT} | a blue star"},  # a text for each latent
}
LTX: dict[str, dict[str, Any]] = {  # its rotation covers all heads at once
    "l-freelong": {"method": "freelong", "num_frames": 65},
    "l-fifo": {"method": "fifo", "num_frames": 49, "set": {"fifo.partitions": 1, "fifo.window_latents": 3}},
}


class Stopped(Exception):
    """A run that is cut short."""


def latents(session: Session, asked: dict[str, Any], job: Job | None = None) -> Tensor:
    request = Request(**{**COMMON, **asked, "model": "tiny"})
    out = session.run(session.plan(request), job or Job(keep=True)).latents
    assert out is not None
    return out


def stop(progress: Progress) -> None:
    if progress.done == 2:
        raise Stopped


def main(model: str, out: str) -> None:
    distribute.join()
    made = {name: latents(Session(model), asked) for name, asked in CALLS.items()}
    split = Session(model, LoadOptions(parallel="ulysses"))
    made |= {name: latents(split, {**asked, "parallel": "ulysses"}) for name, asked in ULYSSES.items()}
    ltx = Session(str(Path(out) / "ltx"), LoadOptions(parallel="ulysses"))
    made |= {name: latents(ltx, {**asked, "parallel": "ulysses"}) for name, asked in LTX.items()}
    folder = Path(out) / "checkpoint"
    try:
        latents(Session(model), CALLS["fifo"], Job(keep=True, checkpoint=folder, save_every=0, on_progress=stop))
    except Stopped:
        distribute.barrier()
    else:
        raise AssertionError("the run was not cut short")
    made["resumed"] = latents(Session(model), CALLS["fifo"], Job(keep=True, checkpoint=folder, resume=True))
    save_file(made, Path(out) / f"{distribute.rank()}.safetensors")
    distribute.barrier()


if __name__ == "__main__":
    main(*sys.argv[1:])
