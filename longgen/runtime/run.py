"""One plan, carried out: sampling, streaming decode, file, sidecar; resumable in between.

Knows a loaded model and where things go. Does not parse options and prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longgen.errors import BadInput
from longgen.media.write import Target, VideoWriter
from longgen.protocols import Conditions, Model
from longgen.runtime import distribute, sidecar
from longgen.runtime.checkpoint import Checkpoint, Saved
from longgen.runtime.latents import decode_chunk, read_latents, save_latents, to_uint8
from longgen.runtime.plan import Plan
from longgen.runtime.sample import Progress, Sampler, texts
from longgen.types import Final, Preview

SAVE_EVERY = 60.0  # seconds between checkpoints: seldom enough to cost nothing, often enough to lose little


@dataclass(frozen=True)
class Job:
    """Where one run's results go. Everything None: nothing is written, frames and latents are returned.

    Args:
        target: checked video target.
        latents_out: safetensors file for the final latents, in the transformer's own layout.
        init_latents: safetensors file whose `latents` are the start noise.
        checkpoint: folder for resuming; None makes the run unresumable.
        save_every: seconds between checkpoints; 0 saves after every step. An interrupt saves too.
        resume: continue what the checkpoint folder holds.
        keep: keep frames and latents in memory for the result.
        on_progress, on_preview: called after each step, and with clean estimates.
    """

    target: Target | None = None
    latents_out: Path | None = None
    init_latents: Path | None = None
    checkpoint: Path | None = None
    save_every: float = SAVE_EVERY
    resume: bool = False
    keep: bool = False
    on_progress: Callable[[Progress], None] | None = None
    on_preview: Callable[[Preview], None] | None = None
    on_frames: Callable[[int], None] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a run leaves in memory: frames uint8 [F, H, W, 3] and latents [1, C, T, H, W] if kept, and the sidecar."""

    frames: NDArray[np.uint8] | None
    latents: Tensor | None
    sidecar: dict[str, Any]


class _Clock:
    """Seconds by stage; decoding happens inside the sampling loop for streams, so stages are timed apart."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def charge(self, stage: str, since: float) -> None:
        self.spent[stage] = self.spent.get(stage, 0.0) + time.perf_counter() - since


def execute(plan: Plan, model: Model, conditions: Conditions, job: Job, hashes: dict[str, str]) -> Outcome:
    """Run the plan. Leaves whole files or none; the checkpoint stays when the run is cut short."""
    clock, begun = _Clock(), time.perf_counter()
    model.prepare(texts(plan, conditions.prompts))
    init = read_latents(job.init_latents, plan, model) if job.init_latents else None
    sampler = Sampler(plan, model, conditions, init)
    clock.charge("prepare", begun)
    checkpoint = Checkpoint(job.checkpoint, plan.identity) if job.checkpoint and distribute.rank() == 0 else None
    kept: list[Tensor] = []
    keep = job.keep or job.latents_out is not None
    finals = _finals(sampler, job, checkpoint, clock, kept if keep else None)
    frames = _decoded(plan, model, finals, clock)
    try:
        shown, count = _deliver(plan, job, frames, clock)
    finally:  # a run that is cut short takes its patches off now, not when the interpreter gets round to it
        frames.close()
        finals.close()
    latents = torch.cat(kept, dim=2) if kept else None
    if job.latents_out is not None and latents is not None and distribute.rank() == 0:
        save_latents(job.latents_out, model.to_model(latents), plan)
    clock.charge("total", begun)
    facts = sidecar.compose(
        plan,
        frames=count,
        device=str(model.device),
        attention=str(getattr(model, "attention", "")),
        hashes=hashes,
        revision=getattr(model, "revision", None),
        timings={k: round(v, 3) for k, v in clock.spent.items()},
        forwards=sampler.forwards,
        **job.extra,
    )
    if job.target is not None and distribute.rank() == 0:
        sidecar.write_json(sidecar.sidecar_path(job.target.path), facts)
    if checkpoint is not None:
        checkpoint.remove()
    return Outcome(shown, latents, facts)


def _finals(
    sampler: Sampler, job: Job, checkpoint: Checkpoint | None, clock: _Clock, kept: list[Tensor] | None
) -> Generator[Tensor]:
    """Final latents as they come, with progress reported and state saved on the way."""
    saved = _saved(sampler, job)
    restored, latest = saved is not None, None
    steps, last_save = sampler.run(saved), time.monotonic()
    try:
        while True:
            begun = time.perf_counter()
            progress = next(steps, None)
            clock.charge("sample", begun)
            if progress is None:
                return
            latest, finals = progress, [e for e in progress.events if isinstance(e, Final)]
            if checkpoint and not restored:
                checkpoint.add(finals)
                if time.monotonic() - last_save >= job.save_every:
                    checkpoint.save(progress.round, progress.state, sampler.bank)
                    last_save = time.monotonic()
            restored = False
            _report(job, progress)
            for final in finals:
                if kept is not None:
                    kept.append(final.x.detach().cpu())
                yield final.x
    except KeyboardInterrupt:
        if checkpoint and latest:
            checkpoint.save(latest.round, latest.state, sampler.bank)
        raise
    finally:
        steps.close()


def _saved(sampler: Sampler, job: Job) -> Saved | None:
    """The state to go on from, the same in every process."""
    if job.checkpoint is None or not job.resume:
        return None
    saved = Checkpoint(job.checkpoint, sampler.plan.identity).load(sampler.model.device)
    if distribute.told(saved is not None) != (saved is not None):
        raise BadInput(f"process {distribute.rank()} does not see the checkpoint {job.checkpoint} of process 0")
    return saved


def _report(job: Job, progress: Progress) -> None:
    if job.on_progress:
        job.on_progress(progress)
    if job.on_preview:
        for event in progress.events:
            if isinstance(event, Preview):
                job.on_preview(event)


def _decoded(plan: Plan, model: Model, finals: Iterator[Tensor], clock: _Clock) -> Generator[NDArray[np.uint8]]:
    """uint8 frames [f, H, W, 3], trimmed to the length asked for. The time of sampling inside is not decode time.

    A video to continue comes first, as it was; what the loop makes again of its end is left out.
    """
    if plan.source is not None:
        yield from plan.source.pictures(plan.size)
    skip, left = plan.source.tail if plan.source else 0, plan.made
    stream = iter(model.decode(finals, decode_chunk(plan.request.decode_chunk, plan.grid)))
    while True:
        sampled, begun = clock.spent.get("sample", 0.0), time.perf_counter()
        chunk = next(stream, None)
        clock.charge("decode", begun)
        clock.spent["decode"] -= clock.spent.get("sample", 0.0) - sampled
        if chunk is None:
            return
        shown = chunk[skip : max(left, 0)]
        if len(shown):
            yield to_uint8(shown)
        skip, left = max(0, skip - len(chunk)), left - len(chunk)


def _deliver(
    plan: Plan, job: Job, frames: Iterator[NDArray[np.uint8]], clock: _Clock
) -> tuple[NDArray[np.uint8] | None, int]:
    """Frames to the file and, if kept, to memory; returns them and their number."""
    held: list[NDArray[np.uint8]] = []
    count = 0
    if job.target is None or distribute.rank() != 0:
        for chunk in frames:
            count += len(chunk)
            held += [chunk] if job.keep else []
        return (np.concatenate(held) if held else None), count
    t = job.target
    with VideoWriter(t.path, plan.fps, t.codec, t.crf, overwrite=True) as writer:
        for chunk in frames:
            begun = time.perf_counter()
            writer.write(chunk)
            clock.charge("encode", begun)
            count += len(chunk)
            held += [chunk] if job.keep else []
            if job.on_frames:
                job.on_frames(len(chunk))
    return (np.concatenate(held) if held else None), count
