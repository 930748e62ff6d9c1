"""Sampling time of every method beside the plain diffusers loop at the same length, in interleaved rounds.

Every round times each side once, so that a busy machine slows all of them alike; a row holds the seconds of all rounds
and grows by one at a time, so a bench that is stopped goes on where it was. Decoding has a row of its own. There are
four ways to run full attention: torch's default kernel, cuDNN, FlashAttention 3, the best one compiled; each has a row,
or the reason why it cannot be had.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from longgen import registry
from longgen.api import Session
from longgen.attention import choose
from longgen.bench.rows import Rows, listed
from longgen.cli.progress import say
from longgen.config import Request
from longgen.errors import BadInput
from longgen.runtime.plan import Plan
from longgen.runtime.sample import Sampler, conditions
from longgen.types import LoadOptions

PROMPT = "a red star drifting right on a navy background"
PARTNERED = {"adain": "extend,adain", "ditctrl": "windows,ditctrl"}  # methods that do nothing alone
METHODS = (*(PARTNERED.get(name, name) for name in registry.METHODS), "freenoise.noise,windows", "wide")
BASELINES = {"plain-cudnn": "sdpa-cudnn", "plain-flash3": "flash3"}  # row → engine


@dataclass(frozen=True)
class Side:
    """One thing that is timed. `ready` makes all that is not timed (texts, noise tables) and returns what is.

    `refusal` says why it cannot be had.
    """

    flops: float
    calls: int
    ready: Callable[[], Callable[[], Any]]
    refusal: str = ""


def run(
    rows: Rows, model: str = "shapes", frames: int = 129, steps: int = 16, rounds: int = 3, methods: str = "",
    decode_chunk: int = 16, device: str = "cpu", dtype: str = "fp32",
) -> None:  # fmt: skip
    """Time the four baselines, decoding and each method ("a;b"; all by default), `rounds` times in turn."""
    session = Session(model, LoadOptions(device=device, dtype=dtype))
    names = listed(methods) or list(METHODS)
    plans = {name: _plan(session, name, frames, steps) for name in ("direct", *names)}
    whole = plans.pop("direct") if "direct" not in names else plans["direct"]
    decode = _decode(session, whole, decode_chunk)
    sides = {**_baselines(session, whole), "decode": Side(0.0, 0, decode)}
    sides |= {name: Side(p.cost.flops, p.cost.calls, _sampling(session, p)) for name, p in plans.items()}
    common = {"model": model, "frames": frames, "steps": steps, "device": device, "dtype": dtype}
    warm: set[str] = set()
    for round in range(rounds):
        for name, side in sides.items():
            key = {**common, "method": name}
            done = len(_earlier(rows, key, session).get("seconds", []))
            if side.refusal:
                rows.add(key, {"unavailable": side.refusal})
            elif done <= round:
                if device != "cpu" or name in ("plain", "plain-compiled"):
                    _ = name in warm or side.ready()()  # kernels are chosen and compiled before anything is timed
                warm.add(name)
                _record(rows, key, side, session)
        say(f"{frames} frames: round {round + 1} of {rounds} done")


def _record(rows: Rows, key: dict[str, Any], side: Side, session: Session) -> None:
    """One more round of one side."""
    cuda = key["device"].startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = [*_earlier(rows, key, session).get("seconds", []), timed(side.ready(), cuda)]
    middle = statistics.median(seconds)
    values: dict[str, Any] = {
        "seconds": seconds,
        "seconds_median": middle,
        "seconds_min": min(seconds),
        "seconds_max": max(seconds),
        "rounds": len(seconds),
        "model_hash": session.model_hash,
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
    }
    if side.flops:
        plain = seconds if key["method"] == "plain" else rows.get(**{**key, "method": "plain"})["seconds"]
        flops = side.flops if key["method"] == "plain" else rows.get(**{**key, "method": "plain"})["flops"]
        ratio = statistics.median(mine / theirs for mine, theirs in zip(seconds, plain))
        values |= {
            "calls": side.calls,
            "flops": side.flops,
            "gflops_per_second": side.flops / middle / 1e9,
            "ratio_to_plain": ratio,
            "ideal_ratio": side.flops / flops,
            "percent_of_ideal": 100 * side.flops / flops / ratio,
        }
    rows.add(key, values)


def _earlier(rows: Rows, key: dict[str, Any], session: Session) -> dict[str, Any]:
    """What is recorded of these very weights: rounds of two models are not paired."""
    row = rows.get(**key)
    return row if row.get("model_hash") == session.model_hash else {}


def _plan(session: Session, method: str, frames: int, steps: int) -> Plan:
    return session.plan(Request(prompt=PROMPT, num_frames=frames, num_inference_steps=steps, method=method))


def _sampling(session: Session, plan: Plan) -> Callable[[], Callable[[], Any]]:
    """A whole run from noise to final latents, without decoding."""

    def ready() -> Callable[[], Any]:
        sampler = Sampler(plan, session.model, conditions(plan))
        return lambda: sum(1 for _ in sampler.run())

    return ready


def _decode(session: Session, plan: Plan, chunk: int) -> Callable[[], Callable[[], Any]]:
    latents = torch.randn(plan.grid.shape, generator=torch.Generator().manual_seed(0))
    return lambda: lambda: sum(len(frames) for frames in session.model.decode(iter([latents]), chunk))


def _baselines(session: Session, whole: Plan) -> dict[str, Side]:
    """Full attention over the whole length: the plain pipeline, faster kernels, and compiled."""
    cost, calls = whole.cost.flops, whole.cost.calls
    sides = {"plain": Side(cost, calls, plain_loop(session.model, whole))}
    for name, engine in BASELINES.items():
        refusal = _why_not(engine, session.model)
        other = Session(session.folder, replace(session.options, attention=engine)) if not refusal else session
        sides[name] = Side(cost, calls, _sampling(other, whole), refusal)
    refusal = "" if compiler() else "no C++ compiler is installed"
    compiled = Session(session.folder, replace(session.options, compile=True)) if not refusal else session
    return {**sides, "plain-compiled": Side(cost, calls, plain_loop(compiled.model, whole), refusal)}


def _why_not(engine: str, model: Any) -> str:
    """Why an engine cannot serve this model here; empty when it can."""
    try:
        choose(engine, model.device, model.dtype, model.info.head_dim)
    except BadInput as error:
        return str(error)
    return ""


def compiler() -> str | None:
    """The C++ compiler that torch would call on a CPU."""
    return shutil.which(os.environ.get("CXX", "g++"))


def plain_loop(model: Any, plan: Plan) -> Callable[[], Callable[[], Any]]:
    """The diffusers pipeline's own loop over the whole length, without text encoder and decoder."""
    model.pipe.set_progress_bar_config(disable=True)
    height, width = plan.size

    def ready() -> Callable[[], Any]:
        texts = {"prompt_embeds": model.text(PROMPT), "negative_prompt_embeds": model.text(plan.negative)}
        return lambda: model.pipe(
            **texts,
            height=height,
            width=width,
            num_frames=(plan.grid.frames - 1) * plan.info.stride + 1,
            num_inference_steps=plan.steps,
            guidance_scale=plan.guidance,
            output_type="latent",
        )

    return ready


def timed(work: Callable[[], Any], cuda: bool = False) -> float:
    """Seconds on the wall, with the device's queue empty at both ends."""
    if cuda:
        torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begun
