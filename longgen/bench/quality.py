"""Methods × lengths × prompts on the embedded model, read by the exact judge, paired over prompts and seeds.

A row holds one method at one length with the reading of every video, so a bench that is stopped goes on where it was,
and differences between methods are taken video by video. Up to the native length most methods are no-ops: one whose
first videos have the very latents of `direct` is not run on the others.
"""

from __future__ import annotations

from typing import Any

import torch

from longgen.api import Session
from longgen.bench.rows import Rows
from longgen.cli.progress import say
from longgen.config import Request
from longgen.core.noise import generator
from longgen.runtime.run import Job
from longgen.shapes.grammar import Spec, held_out_specs, seen_specs
from longgen.shapes.judge import Verdict, judge
from longgen.types import LoadOptions

LENGTHS = (33, 65, 129, 257)
METHODS = (
    "direct", "windows", "freenoise", "freenoise.noise,windows", "freelong", "freelongpp", "specmix", "lvsa",
    "riflex", "ntk", "pi", "ultravico", "freepca", "freeloc", "flowlong", "overview", "freeinit", "fifo", "miga",
    "extend", "extend,adain",
)  # fmt: skip
TRIED = 2  # videos that must equal those of `direct` before a method counts as a no-op at native length
FIRST_SEED = 1000  # video i has seed FIRST_SEED + i, whatever the method and length


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
    """
    session = Session("shapes", LoadOptions(dtype=dtype))
    names = [m.strip() for m in methods.split(";")] if methods else list(METHODS)
    frames = [int(n) for n in str(lengths).split(";")] if lengths else list(LENGTHS)
    for index, spec in list(enumerate(specs(prompts)))[first:]:
        for length in frames:
            for name in names:
                _one(rows, session, name, length, index, spec, steps, dtype)
        say(f"prompt {index + 1} of {prompts}: {spec.prompt}")


def _one(rows: Rows, session: Session, name: str, length: int, index: int, spec: Spec, steps: int, dtype: str) -> None:
    key = {"method": name, "frames": length, "steps": steps, "dtype": dtype, "model_hash": session.model_hash}
    videos = rows.get(**key).get("videos", {})
    if str(index) in videos or idle(videos):
        return
    asked = Request(
        prompt=spec.prompt,
        num_frames=length,
        num_inference_steps=steps,
        method=name,
        seed=FIRST_SEED + index,
        decode_chunk=16,  # the same frames, and on a CPU convolutions of this size take the fast kernel
    )
    outcome = session.run(session.plan(asked), Job(keep=True))
    assert outcome.frames is not None
    read = reading(judge(outcome.frames, spec.prompt))
    if length <= session.info.native_frames and name != "direct" and index < TRIED:
        plain = session.run(session.plan(asked.model_copy(update={"method": "direct"})), Job(keep=True))
        assert outcome.latents is not None and plain.latents is not None
        read["as_direct"] = torch.equal(outcome.latents, plain.latents)
    rows.add(key, {"videos": {str(index): read}}, grow="videos")


def idle(videos: dict[str, Any]) -> bool:
    """The method did nothing on the first videos: their latents are those of `direct`, bit for bit."""
    return all(videos.get(str(i), {}).get("as_direct", False) for i in range(TRIED))
