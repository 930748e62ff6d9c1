"""`longgen story RUN.json --only SHOT`: the wiring from options to `runtime.reroll`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from longgen.cli.options import as_json
from longgen.cli.progress import Bars, say
from longgen.cli.work import Work
from longgen.config import validated
from longgen.errors import BadInput, RunFailed

ALLOWED = {"seed", "device", "attention", "dtype", "decode_chunk"}


def make_again(work: Work, path: Path, only: str, options: dict[str, Any]) -> None:
    """Make one shot of a saved run again, and say how far the change reaches."""
    from longgen.api import Session, load_options
    from longgen.media.write import check_target
    from longgen.runtime.reroll import is_run, latents_beside, plan_shot, reroll
    from longgen.runtime.run import Job
    from longgen.runtime.sidecar import read_sidecar

    given = {name: value for name, value in options.items() if value is not None and value != []}
    extra = sorted(set(given) - ALLOWED)
    if extra:
        raise BadInput(f"--only keeps the run's options; only --seed and the machine can change (got --{extra[0]})")
    if "seed" not in given or given["seed"] < 0:
        raise BadInput("--only needs a new --seed of 0 or more for the shot")
    if not is_run(path):
        raise BadInput(f"--only takes the sidecar of a run, OUT.json, written with --save-latents (got {path})")
    if work.output is None:
        raise BadInput("no output: give -o OUT.mp4")
    target = check_target(work.output, work.overwrite, work.codec, work.crf)
    run = read_sidecar(path)
    latents_beside(run)
    machine = {name: value for name, value in given.items() if name != "seed"}
    asked = validated({**run.request, **machine})
    session = Session(asked.model, load_options(asked))
    plan, index = plan_shot(session, run, only, given["seed"])
    work.timeline, work.targets, work.plans = plan.timeline, [target], [plan]
    latents = target.path.with_suffix(".safetensors") if work.save_latents else None
    with Bars(plan.frames) as bars:
        job = Job(target=target, latents_out=latents, on_progress=bars.on_step, on_frames=bars.on_frames)
        outcome = reroll(session, run, plan, index, job)
    facts = outcome.sidecar["reroll"]
    if not facts["latents_equal"]:
        raise RunFailed(f"{target.path}: latents outside the shot changed; this is a bug")
    if work.contact_sheet:
        say(str(work.sheet(plan, target.path)))
    if work.json:
        typer.echo(as_json(outcome.sidecar))
    first, stop = facts["free_latents"]
    say(f"{target.path}  {plan.frames} frames; latents {first} to {stop - 1} were free, the others are the same bits")
    changed = facts["changed_frames"]
    told = f"frames {changed[0]} to {changed[1]} changed" if changed else "no frame changed"
    say(f"{told}; {facts['frames_after']} after the shot, by at most {facts['largest_after']} grey levels")
