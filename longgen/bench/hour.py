"""One hour of video from one prompt: made, decoded and judged as a stream, minute by minute, in memory that stays flat.

Knows a run's latents as they become final and the judge. Only the minute in work is held; a run that is stopped goes on
from its last checkpoint, at most a minute of work back.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longgen.api import Session
from longgen.bench.memory import live_bytes
from longgen.bench.quality import reading
from longgen.bench.rows import Rows
from longgen.bench.speed import PROMPT
from longgen.cli.progress import say
from longgen.config import Request, parse_settings
from longgen.errors import BadInput
from longgen.runtime.checkpoint import Checkpoint
from longgen.runtime.latents import decode_chunk, to_uint8
from longgen.runtime.plan import Plan
from longgen.runtime.run import SAVE_EVERY
from longgen.runtime.sample import Progress, Sampler, conditions
from longgen.shapes.judge import judge
from longgen.types import Final, LoadOptions

HALO = 32
"""Latents before the first one wanted that a decoder must see to give the frames of one that saw all: each of the
embedded VAE's causal convolutions reaches back two of its own steps, in all less than this."""
RESUME = "hour."  # names of what the checkpoint holds beside the bank


class Film:
    """A run as minutes of frames, resumable between any two steps.

    The tail are the final latents from a little before the minute in work on; a resumed run decodes them again.
    """

    def __init__(self, session: Session, plan: Plan, checkpoint: Checkpoint, minute: int) -> None:
        """
        Args:
            minute: frames per minute.
        """
        self.session, self.plan, self.checkpoint, self.minute = session, plan, checkpoint, minute
        self.sampler = Sampler(plan, session.model, conditions(plan))
        self.saved = checkpoint.load(session.model.device)
        bank = self.saved.bank if self.saved else {}
        self.tail: Tensor = bank.pop(RESUME + "tail", torch.empty(*plan.grid.shape[:2], 0, *plan.grid.shape[3:]))
        # Absolute latent of the tail's first, and the first frame of the minute in work.
        self.first, self.shown = bank.pop(RESUME + "at", torch.zeros(2, dtype=torch.long)).tolist()

    def minutes(self) -> Generator[tuple[int, NDArray[np.uint8]]]:
        """(number, uint8 frames [f, H, W, 3]) of each minute; the last one may be shorter."""
        at = self.plan.info.stride * self.first  # a decoder's first latent makes one frame: the last of its latent's
        held = np.empty((0, *self.plan.size, 3), np.uint8)
        with closing(self._latents()) as latents:
            per_call = decode_chunk(self.plan.request.decode_chunk, self.plan.grid)
            for chunk in self.session.model.decode(latents, per_call):
                fresh = max(0, self.shown + len(held) - at)
                at += len(chunk)
                held = np.concatenate([held, to_uint8(chunk)[fresh:]])
                while 0 < (size := min(self.minute, self.plan.frames - self.shown)) <= len(held):
                    yield self.shown // self.minute, held[:size]
                    self.shown, held = self.shown + size, held[size:]
                    self._forget()
        self.checkpoint.remove()

    def _latents(self) -> Generator[Tensor]:
        """Final latents, from the tail's first on; saves the state on the way."""
        if self.tail.shape[2]:
            yield self.tail
        saved = time.monotonic()
        with closing(self.sampler.run(self.saved)) as steps:
            self.saved = None
            for progress in steps:
                for final in _finals(progress):
                    self.tail = torch.cat([self.tail, final.cpu()], dim=2)
                    yield final
                if time.monotonic() - saved >= SAVE_EVERY:
                    self.save(progress)
                    saved = time.monotonic()

    def save(self, progress: Progress) -> None:
        """The loop's state and what a resumed run needs besides."""
        own = {RESUME + "tail": self.tail, RESUME + "at": torch.tensor([self.first, self.shown])}
        self.checkpoint.save(progress.round, progress.state, {**self.sampler.bank, **own})

    def _forget(self) -> None:
        """Drops the tail's latents that no frame still to be shown depends on."""
        stride = self.plan.info.stride
        first = max(self.first, -(-self.shown // stride) - HALO)
        self.tail, self.first = self.tail[:, :, first - self.first :].clone(), first


def _finals(progress: Progress) -> Iterator[Tensor]:
    return (event.x for event in progress.events if isinstance(event, Final))


def run(
    rows: Rows, method: str = "fifo", frames: int = 28_800, steps: int = 16, prompt: str = PROMPT, seed: int = 0,
    chunk: int = 16, window_batch: int = 1, minute: int = 480, settings: str = "", work: str = "",
) -> None:  # fmt: skip
    """Make and judge `frames` frames, a row that grows by one reading per minute.

    Args:
        method: one that streams (fifo, extend): memory and checkpoint stay small whatever the length.
        chunk: latents per decoder call.
        minute: frames per minute of video (8 fps).
        settings: "method.key=value", several with semicolons.
        work: folder of the checkpoint; by default one in the system's folder for temporary files.
    """
    session = Session("shapes", LoadOptions())
    asked = Request(
        prompt=prompt, num_frames=frames, num_inference_steps=steps, method=method, seed=seed,
        decode_chunk=chunk, window_batch=window_batch, set=parse_settings([s for s in settings.split(";") if s]),
    )  # fmt: skip
    plan = session.plan(asked)
    if plan.composition.loop.info.finality != "stream":
        raise BadInput(f"bench hour needs a method that streams, as fifo and extend do; {method} keeps all latents")
    key = {"method": method, "frames": frames, "steps": steps, "minute": minute, "prompt": prompt, "seed": seed}
    key |= {"settings": settings, "model_hash": session.model_hash}
    read: dict[str, Any] = dict(rows.get(**key).get("minutes", {}))
    count = -(-frames // minute)
    if len(read) == count:
        say(f"{method}: all {count} minutes are recorded")
        return
    folder = Path(work or tempfile.gettempdir()) / f"longgen-hour-{plan.identity[:12]}-{session.model_hash[:8]}"
    _ = session.model
    before, stops = _live(), 1 + max((m["process"] for m in read.values()), default=-1)
    film = Film(session, plan, Checkpoint(folder, plan.identity), minute)
    clock = _Clock()
    with closing(film.minutes()) as minutes:
        for number, shown in minutes:
            values = {"process": stops, "rss_mib": _rss(), "held_mib": _live() - before, **clock.lap()}
            verdict = judge(shown, prompt)
            known = asdict(verdict.identity) if verdict.identity else None
            read[str(number)] = {**values, **reading(verdict), "identity": known}
            rows.add(key, {"minutes": read, **summary(read)})
            say(f"{method}: minute {number + 1} of {count}, {'kept' if verdict.kept else 'not kept'}, {values}")
            clock.lap()


def summary(minutes: dict[str, Any]) -> dict[str, float | int]:
    """Minutes read and kept, and by how many percent memory grew after a process's first whole minute."""
    read = sorted(minutes.items(), key=lambda m: int(m[0]))
    growth = {"rss_mib": 0.0, "held_mib": 0.0}
    for process in {m["process"] for _, m in read}:
        own = [m for _, m in read if m["process"] == process]
        for name in growth:
            first = own[0][name]
            growth[name] = max(growth[name], *(100 * (m[name] / first - 1) for m in own)) if first else growth[name]
    return {
        "count": len(read),
        "kept": sum(m["kept"] for _, m in read),
        "rss_growth_percent": growth["rss_mib"],
        "held_growth_percent": growth["held_mib"],
        "processes": len({m["process"] for _, m in read}),
        "seconds": sum(m["seconds"] for _, m in read),
        "cpu_seconds": sum(m["cpu_seconds"] for _, m in read),
    }


class _Clock:
    """Seconds since the last lap, on the wall and of this process."""

    def __init__(self) -> None:
        self.last = (time.perf_counter(), time.process_time())

    def lap(self) -> dict[str, float]:
        now = (time.perf_counter(), time.process_time())
        wall, cpu = (b - a for a, b in zip(self.last, now))
        self.last = now
        return {"seconds": wall, "cpu_seconds": cpu}


def _live() -> float:
    """MiB of live tensors."""
    gc.collect()
    return live_bytes() / 2**20


def _rss() -> float:
    """MiB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20
