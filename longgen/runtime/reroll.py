"""One shot of a finished run, made again. Knows sidecars, saved latents and plans; pinning is `story.reroll`'s."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longgen.config import validated
from longgen.errors import BadInput
from longgen.protocols import Model
from longgen.runtime.latents import decode_chunk, metadata, read_latents, trimmed
from longgen.runtime.plan import Plan
from longgen.runtime.run import Job, Outcome, execute
from longgen.runtime.sample import Sampler, conditions, texts
from longgen.runtime.sidecar import Sidecar, sidecar_path, write_json
from longgen.story.reroll import Kept, KeptModel, free_latents
from longgen.story.timeline import find
from longgen.types import Timeline

if TYPE_CHECKING:
    from longgen.api import Session


def is_run(path: Path) -> bool:
    """Whether a file is a run's sidecar."""
    if path.suffix != ".json" or not path.is_file():
        return False
    head = path.read_bytes()[:4096]
    return b'"identity"' in head and b'"request"' in head


def latents_beside(run: Sidecar) -> Path:
    """The saved latents of a run.

    Raises:
        BadInput: the run was not saved with its latents, or these are another run's.
    """
    path = run.path.with_suffix(".safetensors")
    if not path.is_file():
        raise BadInput(f"{path} does not exist; a shot can be made again in a run saved with --save-latents")
    if metadata(path).get("identity") != run.identity:
        raise BadInput(f"{path} holds the latents of another run than {run.path}")
    return path


def plan_shot(session: Session, run: Sidecar, shot: str, seed: int) -> tuple[Plan, int]:
    """The run's plan with another seed for one shot, and that shot's index.

    Raises:
        BadInput: unknown shot, or another model.
    """
    timeline = run.timeline
    index = find(timeline, shot)
    shots = list(timeline.shots)
    shots[index] = replace(shots[index], seed=seed)
    plan = session.plan(validated(run.request), Timeline(tuple(shots), timeline.fps))
    if plan.info.id != run.model:
        raise BadInput(f"the run was made with {run.model}, not with {plan.info.id}")
    if plan.source is not None:
        raise BadInput(f"the run continues {plan.source.path}; a shot can be made again in runs that begin themselves")
    return plan, index


def reroll(session: Session, run: Sidecar, plan: Plan, index: int, job: Job) -> Outcome:
    """Carry out `plan` with everything outside the shot and its blends pinned to the run's latents.

    The outcome's sidecar tells under `reroll` which latents were free, and which frames changed.
    """
    model = session.model
    model.prepare(texts(plan, plan.prompts))
    before = read_latents(latents_beside(run), plan, model)
    free = free_latents(plan.prompts, index, plan.grid.frames)
    kept = Kept(before, _first_noise(plan, run, model), free)
    pinned = KeptModel(model, kept, skip=not plan.composition.chain)
    outcome = execute(plan, pinned, conditions(plan), replace(job, keep=True), session.hashes)
    assert outcome.latents is not None
    after = kept.put(outcome.latents, range(plan.grid.frames), before)
    shot = plan.timeline.shots[index]
    told = {
        "of": run.identity,
        "shot": shot.id,
        "seed": shot.seed,
        **measure(model, before, after, free, plan),
    }
    facts = {**outcome.sidecar, "reroll": told}
    if job.target is not None:
        write_json(sidecar_path(job.target.path), facts)
    return Outcome(outcome.frames, after, facts)


def _first_noise(plan: Plan, run: Sidecar, model: Model) -> Tensor:
    """The noise that the finished run began with."""
    first = replace(plan, timeline=run.timeline)
    return Sampler(first, model, conditions(first)).noise(0, plan.grid.frames)


def measure(model: Model, before: Tensor, after: Tensor, free: Tensor, plan: Plan) -> dict[str, Any]:
    """How far a change of latents reaches in pixels: the causal decoder's memory.

    Returns:
        free_latents [a, b), changed_frames [first, last] or None, frames_after: changed frames past the last free
        latent's own, largest_after: their largest difference in grey levels, latents_equal: kept ones, bit for bit.
    """
    places = [i for i, f in enumerate(free.tolist()) if f]
    stride, keep = plan.grid.stride, ~free
    differences = list(_differences(model, before, after, plan))
    changed = [i for i, d in enumerate(differences) if d]
    own = max(0, places[-1] - plan.grid.lead_pad) * stride + 1
    late = [i for i in changed if i >= own]
    return {
        "free_latents": [places[0], places[-1] + 1],
        "latents_equal": torch.equal(before[:, :, keep], after[:, :, keep]),
        "changed_frames": [changed[0], changed[-1]] if changed else None,
        "frames_after": max(late) + 1 - own if late else 0,
        "largest_after": max((differences[i] for i in late), default=0),
    }


def _differences(model: Model, before: Tensor, after: Tensor, plan: Plan) -> Iterator[int]:
    """Largest difference of each frame in grey levels, 0 … 255."""

    def stream(latents: Tensor) -> Iterator[NDArray[np.uint8]]:
        decoded = model.decode(iter([latents.to(model.device)]), decode_chunk(plan.request.decode_chunk, plan.grid))
        return trimmed(decoded, plan.frames)

    for a, b in zip(stream(before), stream(after), strict=True):
        yield from np.abs(a.astype(np.int16) - b).reshape(len(a), -1).max(1).tolist()
