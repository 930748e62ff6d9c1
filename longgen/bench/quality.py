"""Methods × lengths × prompts on the embedded model, read by the exact judge, paired over prompts and seeds.

A row holds one method at one length with the reading of every video, so a bench that is stopped goes on where it was,
and differences between methods are taken video by video. Up to the native length most methods are no-ops: one whose
first videos have the very latents of `direct` is not run on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from longgen.api import Session
from longgen.bench.rows import Rows, listed
from longgen.cli.progress import say
from longgen.config import Request, parse_settings
from longgen.core.noise import generator
from longgen.runtime.run import Job
from longgen.shapes.grammar import Spec, held_out_specs, seen_specs
from longgen.shapes.judge import Verdict, judge
from longgen.types import LoadOptions

LENGTHS = (33, 65, 129, 257)
METHODS = (
    "direct", "windows", "freenoise", "freenoise.noise,windows", "freelong", "freelongpp", "specmix", "lvsa",
    "riflex", "ntk", "pi", "ultravico", "freepca", "freeloc", "flowlong", "freeinit", "fifo", "miga",
    "extend", "extend,adain", "wide",
)  # fmt: skip
TRIED = 2  # videos that must equal those of `direct` before a method counts as a no-op at native length
FIRST_SEED = 1000  # video i has seed FIRST_SEED + i, whatever the method and length
CHOOSING_SEED = 5000
IDEAS = (  # `wide` with its window, its parts, and what leads without it
    "direct", "ultravico", "windows", "freenoise.noise,windows",
    "wide", "wide windows.window_scale=2", "wide windows.window_scale=4",
    "ultravico,windows windows.window_scale=3", "freenoise.noise,windows windows.window_scale=3",
)  # fmt: skip


def specs(count: int, seed: int = 0) -> list[Spec]:
    """Prompts of the bench: as many held-out combinations as seen ones, in a fixed random order."""
    seen, held = seen_specs(), held_out_specs()
    order = [
        torch.randperm(len(s), generator=generator(seed, tag)).tolist() for s, tag in ((seen, "seen"), (held, "held"))
    ]
    return [(held[order[1][i // 2]] if i % 2 else seen[order[0][i // 2]]) for i in range(count)]


def reading(verdict: Verdict) -> dict[str, Any]:
    """What a row keeps of a verdict."""
    agreed = {n: getattr(verdict.agreement, n) for n in ("colour", "shape", "background", "motion", "single")}
    return {
        "kept": verdict.kept,
        **agreed,
        "drift": verdict.drift,
        "jumps": len(verdict.jumps),
        "freeze": verdict.freeze,
        "repetition": verdict.repetition,
    }


def run(
    rows: Rows,
    prompts: int = 30,
    first: int = 0,
    steps: int = 16,
    methods: str = "",
    lengths: str = "",
    dtype: str = "fp32",
) -> None:
    """Make and judge every video that is not recorded yet, prompt by prompt so that all methods stay paired.

    Args:
        first: index of the prompt to begin with, so that processes can share the work.
        methods: `a;b,c;d windows.window_scale=2`: compositions, with settings if any; all by default.
    """
    told = list(enumerate(specs(prompts)))[first:]
    _record(
        rows,
        told,
        FIRST_SEED,
        listed(methods) or list(METHODS),
        [int(n) for n in listed(lengths)] or LENGTHS,
        steps,
        dtype,
    )


def choosing(
    rows: Rows,
    prompts: int = 6,
    first: int = 0,
    steps: int = 16,
    methods: str = "",
    lengths: str = "257",
    dtype: str = "fp32",
) -> None:
    """The same for trying ideas, on prompts and seeds that `run` never uses: what is chosen here is reported there."""
    reported = set(specs(30))
    told = list(enumerate([spec for spec in specs(60, seed=7) if spec not in reported][:prompts]))[first:]
    _record(rows, told, CHOOSING_SEED, listed(methods) or list(IDEAS), [int(n) for n in listed(lengths)], steps, dtype)


def _record(
    rows: Rows,
    told: list[tuple[int, Spec]],
    seed: int,
    names: list[str],
    lengths: Sequence[int],
    steps: int,
    dtype: str,
) -> None:
    session = Session("shapes", LoadOptions(dtype=dtype))
    for index, spec in told:
        for length in lengths:
            for name in names:
                method, *settings = name.split()
                asked = Request(
                    prompt=spec.prompt,
                    num_frames=length,
                    num_inference_steps=steps,
                    method=method,
                    set=parse_settings(settings),
                    seed=seed + index,
                    decode_chunk=16,  # the same frames, and on a CPU convolutions of this size take the fast kernel
                )
                key = {"method": name, "frames": length, "steps": steps, "dtype": dtype}
                _one(rows, session, key | {"model_hash": session.model_hash}, index, asked)
        say(f"prompt {index + 1}: {spec.prompt}")


def _one(rows: Rows, session: Session, key: dict[str, Any], index: int, asked: Request) -> None:
    videos = rows.get(**key).get("videos", {})
    if str(index) in videos or idle(videos):
        return
    outcome = session.run(session.plan(asked), Job(keep=True))
    assert outcome.frames is not None and asked.num_frames is not None
    read = reading(judge(outcome.frames, asked.prompt))
    if asked.num_frames <= session.info.native_frames and asked.method != "direct" and index < TRIED:
        plain = session.run(session.plan(asked.model_copy(update={"method": "direct", "set": {}})), Job(keep=True))
        assert outcome.latents is not None and plain.latents is not None
        read["as_direct"] = torch.equal(outcome.latents, plain.latents)
    rows.add(key, {"videos": {str(index): read}}, grow="videos")


def idle(videos: dict[str, Any]) -> bool:
    """The method did nothing on the first videos: their latents are those of `direct`, bit for bit."""
    return all(videos.get(str(i), {}).get("as_direct", False) for i in range(TRIED))
