"""Whole forwards of a transformer under each way to attend, against full attention: a waterfall of what each step buys.

Random weights of a checkpoint's shape, or of a tiny one; interleaved rounds, each side timed once in every round. With
fewer layers than the checkpoint has, a forward of all of them is told from one and two: t₁ + (L − 1)·(t₂ − t₁). Knows
methods and models. The engines of full attention that cannot be had are recorded with the reason.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from longgen.attention import choose
from longgen.bench.attention import seconds
from longgen.bench.rows import Rows
from longgen.cli.progress import say
from longgen.errors import BadInput
from longgen.models import describe
from longgen.models.bare import Bare, bare
from longgen.protocols import Method
from longgen.registry import method as lookup
from longgen.runtime.cost import forward_flops
from longgen.runtime.rehearse import Forward, expected_schedule
from longgen.types import ModelInfo, Patch, View

# model → (checkpoint whose facts are taken, what is changed in them, latent height and width)
MODELS: dict[str, tuple[str, dict[str, Any], tuple[int, int]]] = {
    "shapes": ("shapes", {}, (16, 16)),
    "tiny-wan": (
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        {"heads": 2, "head_dim": 64, "layers": 2, "ffn_dim": 512, "footprint": None},
        (30, 32),
    ),
    "wan-1.3b": ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", {}, (60, 104)),
    "ltx-2b": ("Lightricks/LTX-Video", {}, (16, 22)),
}
# side → (method, settings): every query sees U frames; the same and all frames, blended; several bands; sparse; tiles
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "window": ("freelong", {"until": 0.0, "border": "shift"}),
    "freelong": ("freelong", {"until": 1.0}),
    "freelongpp": ("freelongpp", {}),
    "lvsa": ("lvsa", {}),
    "freenoise": ("freenoise", {}),
}
FULL = {"full": "auto", "full-sdpa": "sdpa", "full-cudnn": "sdpa-cudnn", "full-flash3": "flash3"}


@dataclass(frozen=True)
class Side:
    """One way to attend: its engine, its patch, and the key frames that a query sees."""

    engine: str
    patch: Patch
    key_frames: float


def run(
    rows: Rows, model: str = "tiny-wan", multiples: str = "4;8", layers: int = 0, device: str = "cpu",
    dtype: str = "float32", compiled: bool = False, rounds: int = 5, sides: str = "",
) -> None:  # fmt: skip
    """Time one forward of each side at each multiple of the native length that is not yet recorded.

    Args:
        model: shapes, tiny-wan, wan-1.3b or ltx-2b.
        layers: built and timed; 0 for all of them, 2 for the estimate from one and two.
        sides: names with semicolons; all by default.
    """
    info, size = facts(model)
    names = [s.strip() for s in sides.split(";")] if sides else [*FULL, *METHODS]
    common = {"model": model, "layers": layers, "device": device, "dtype": dtype, "compiled": compiled}
    for multiple in (int(m) for m in str(multiples).split(";")):
        frames = (info.native_latents - 1) * multiple + 1
        todo = [n for n in names if not rows.has(**common, side=n, multiple=multiple)]
        refused = {n: why for n in todo if n in FULL and (why := refusal(FULL[n], info, device, dtype))}
        for name, why in refused.items():
            rows.add({**common, "side": name, "multiple": multiple}, {"unavailable": why})
        ways = {n: side(n, info, frames) for n in todo if n not in refused}
        if not ways:
            continue
        counts = [layers or info.layers] if layers != 2 else [1, 2]
        taken = [timed(info, size, ways, frames, count, device, dtype, compiled, rounds) for count in counts]
        for name, way in ways.items():
            values = summary(info, size, way, frames, [t[name] for t in taken], counts)
            say(f"{multiple}x {name}: {rows.add({**common, 'side': name, 'multiple': multiple}, values)}")


def facts(model: str) -> tuple[ModelInfo, tuple[int, int]]:
    """The checkpoint's facts and its latent size."""
    if model not in MODELS:
        raise BadInput(f"bench forward knows {', '.join(MODELS)} (got {model!r})")
    known, changed, size = MODELS[model]
    info = replace(describe.describe(known), **changed)
    if "head_dim" in changed:  # the temporal axis takes what height and width leave
        info = replace(info, rope=replace(info.rope, dim=info.head_dim - 4 * (info.head_dim // 6)))
    return info, size


def refusal(engine: str, info: ModelInfo, device: str, dtype: str) -> str:
    """Why an engine cannot be had here; empty when it can."""
    try:
        choose(engine, device, getattr(torch, dtype), info.head_dim)
    except BadInput as error:
        return str(error)
    return ""


def side(name: str, info: ModelInfo, frames: int) -> Side:
    """Full attention by one engine, or a method's patch by the best."""
    if name in FULL:
        patch = Patch() if name == "full-sdpa" else Patch(attention=_dense)
        return Side(FULL[name], patch, float(frames))
    kind, settings = METHODS[name]
    made: Method = lookup(kind)(**settings).fit(info)
    view = View(
        frames=frames, native=info.native_latents, total=frames, tokens=1, layers=info.layers, rope=info.rope,
        schedule=expected_schedule(info, 50, info.flow_shift), seconds_per_latent=info.stride / info.fps,
    )  # fmt: skip
    return Side("auto", made.patch(view), made.key_frames(frames, info))


def _dense(site: Any, q: Any, k: Any, v: Any, rotate: Any, attend: Any) -> Any:
    from longgen.types import Dense

    return attend(rotate(q), rotate(k), v, Dense())[0]


def timed(
    info: ModelInfo, size: tuple[int, int], ways: dict[str, Side], frames: int, layers: int, device: str, dtype: str,
    compiled: bool, rounds: int,
) -> dict[str, tuple[list[float], int | None]]:  # fmt: skip
    """Seconds of every side in every round, after a round of warming up; and peak bytes on CUDA."""
    where, kind = torch.device(device), getattr(torch, dtype)
    level = expected_schedule(info, 50, info.flow_shift)[0]
    made = bare(info, size, layers, choose("auto", where, kind, info.head_dim).attend, device, kind, compiled)
    spent: dict[str, list[float]] = {name: [] for name in ways}
    peak: dict[str, int | None] = dict.fromkeys(ways)
    for round in range(rounds + 1):
        for name, way in ways.items():
            with _worn(made, way, frames, where, kind) as forward:
                if where.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(where)
                taken = seconds(lambda: forward(level, 0), where)[0]
            if where.type == "cuda":
                peak[name] = torch.cuda.max_memory_allocated(where)
            if round:
                spent[name].append(taken)
    return {name: (spent[name], peak[name]) for name in ways}


@contextmanager
def _worn(made: Bare, way: Side, frames: int, where: torch.device, dtype: torch.dtype) -> Iterator[Callable[..., Any]]:
    made.stage.attend = choose(way.engine, where, dtype, made.info.head_dim).attend
    with made.wearing(way.patch, frames) as forward:
        yield forward


def summary(
    info: ModelInfo, size: tuple[int, int], way: Side, frames: int, taken: list[tuple[list[float], int | None]],
    counts: list[int],
) -> dict[str, Any]:  # fmt: skip
    """Median and spread over the rounds, all layers told from few where few were timed; FLOPs and their rate."""
    rounds = [s for s, _ in taken]
    if len(counts) == 2:
        whole = [one + (info.layers - 1) * (two - one) for one, two in zip(*rounds, strict=True)]
    else:
        whole = rounds[0]
    tokens = size[0] // info.patch[1] * (size[1] // info.patch[2])
    shape = replace(info, layers=counts[0]) if len(counts) == 1 else info
    flops = forward_flops(shape, Forward(frames, False), tokens, way.key_frames)
    middle = statistics.median(whole)
    return {
        "latents": frames,
        "seconds": whole,
        "seconds_median": middle,
        "seconds_min": min(whole),
        "seconds_max": max(whole),
        "flops": flops,
        "gflops_per_second": flops / middle / 1e9,
        "key_frames": way.key_frames,
        "peak_bytes": taken[-1][1],
    }
