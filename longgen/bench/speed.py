"""Sampling time of every method beside the plain diffusers loop at the same length, in interleaved pairs.

Rows hold minimum and median over rounds and the ratio of medians to the plain loop's; encoding and decoding are left
out of the sampling time and told apart. This machine's noise is in every figure: read the ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from longgen.api import Session
from longgen.bench.rows import Rows
from longgen.cli.progress import say
from longgen.config import Request
from longgen.runtime.run import Job
from longgen.types import LoadOptions

PROMPT = "a red star drifting right on a navy background"
METHODS = (
    "direct", "windows", "freenoise", "freenoise.noise,windows", "freelong", "freelongpp", "lvsa", "ultravico",
    "riflex", "flowlong", "fifo", "extend",
)  # fmt: skip


def run(
    rows: Rows, model: str = "shapes", frames: int = 129, steps: int = 25, rounds: int = 3, methods: str = "",
    guidance: float = 4.0,
) -> None:  # fmt: skip
    """Time each method and the plain pipeline, `rounds` times in turn."""
    session = Session(model, LoadOptions())
    names = [m.strip() for m in methods.split(";")] if methods else list(METHODS)
    plans = {
        m: session.plan(Request(prompt=PROMPT, num_frames=frames, num_inference_steps=steps, method=m)) for m in names
    }
    spent: dict[str, list[float]] = {m: [] for m in ("plain", *names)}
    calls: dict[str, int] = {}
    decode: dict[str, float] = {}
    plain = plain_loop(session, frames, steps, guidance)
    plain()  # first call warms caches up for everybody
    for round in range(rounds):
        spent["plain"].append(_timed(plain))
        for name, plan in plans.items():
            told = session.run(plan, Job()).sidecar
            spent[name].append(told["timings"]["sample"])
            calls[name], decode[name] = told["calls"], told["timings"]["decode"]
        say(f"round {round + 1} of {rounds} done")
    base = statistics.median(spent["plain"])
    for name, seconds in spent.items():
        middle = statistics.median(seconds)
        values: dict[str, Any] = {
            "seconds_min": min(seconds),
            "seconds_median": middle,
            "ratio_to_plain": middle / base,
            "calls": calls.get(name, steps),
            "decode_seconds": decode.get(name),
            "rounds": rounds,
            "model_hash": session.model_hash,
        }
        rows.add({"model": model, "method": name, "frames": frames, "steps": steps}, values)


def plain_loop(session: Session, frames: int, steps: int, guidance: float) -> Callable[[], Any]:
    """The diffusers pipeline's own loop over the whole length, without decoding."""
    pipe = session.model.pipe  # type: ignore[attr-defined]
    pipe.set_progress_bar_config(disable=True)
    height, width = session.info.native_size
    return lambda: pipe(
        PROMPT,
        height=height,
        width=width,
        num_frames=frames,
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="latent",
        max_sequence_length=session.info.text_tokens,
    )


def _timed(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
