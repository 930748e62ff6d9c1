"""What would run: lengths, windows, calls, tokens, FLOPs, bytes. Knows JSON facts of the model; loads no weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from longgen import __version__
from longgen.config import Request
from longgen.errors import BadInput
from longgen.runtime.compose import Composition, check, compose
from longgen.story.schedules import build
from longgen.types import LatentGrid, ModelInfo, Timeline

# Sustained TFLOP/s of whole denoising runs, for a rough time estimate. Orders of magnitude, not promises: the GPU rows
# come from published dense-attention rates in bf16, the CPU row from bf16 GEMMs on two AVX-512/AMX cores.
SUSTAINED_TFLOPS = {"cpu-2-cores": 0.15, "rtx4090": 130.0, "a100": 220.0, "h100": 550.0, "h200": 600.0}


@dataclass(frozen=True)
class Cost:
    """What a run computes. `flops` counts a multiply-add as two; bytes are estimates for the given dtype."""

    calls: int
    latents_per_call: int
    tokens_per_call: int
    branches: int
    flops: float
    weight_bytes: int | None
    activation_bytes: int
    latent_bytes: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class Plan:
    """A request with every default filled in, and what it will cost.

    Args:
        frames: pixel frames that the file will have; the grid may decode a few more, which are trimmed.
        windows: boundaries [a, b) in latents at the first step.
        notes: one line per rounding, no-op or warning.
    """

    request: Request
    info: ModelInfo
    composition: Composition
    grid: LatentGrid
    timeline: Timeline
    frames: int
    size: tuple[int, int]
    fps: float
    steps: int
    guidance: float
    negative: str
    flow_shift: float | None
    seed: int
    windows: tuple[tuple[int, int], ...]
    cost: Cost
    notes: tuple[str, ...]

    def resolved(self) -> dict[str, Any]:
        """Every option with the value that this run uses; what a rerun needs."""
        values = self.request.model_dump()
        values.update(
            method=str(self.composition),
            num_frames=self.frames,
            duration=None,
            height=self.size[0],
            width=self.size[1],
            fps=self.fps,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            negative_prompt=self.negative,
            flow_shift=self.flow_shift,
            seed=self.seed,
        )
        return values

    @property
    def identity(self) -> str:
        """Hash of all that can change a bit of the result, the machine aside."""
        values = self.resolved()
        for name in ("prompt", "device", "decode_chunk", "model"):
            values.pop(name)
        settings = {p.name: p.method.settings for p in self.composition.parts}
        told = [values, self.info.id, settings, asdict(self.timeline), __version__]
        text = json.dumps(told, sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def windows_in_frames(self) -> list[tuple[int, int]]:
        """Window boundaries [a, b) in pixel frames of the file, where a seam would show."""
        stride = self.grid.stride

        def pixel(latent: int) -> int:
            return 0 if latent == 0 else (latent - 1) * stride + 1

        return [(pixel(a), min(pixel(b), self.frames)) for a, b in self.windows]


def make(request: Request, info: ModelInfo, timeline: Timeline | None = None) -> Plan:
    """Fill in the model's defaults, round lengths to what the VAE allows, check methods against the model.

    Args:
        timeline: a story's; a request with a prompt makes its own, shots split at `|`.
    Raises:
        BadInput: sizes, lengths or methods that cannot work on this model.
    """
    fps = request.fps or info.fps
    frames = _frames(request, info, fps, timeline)
    size = _size(request, info)
    grid = info.grid(frames, *size)
    composition = compose(_method(request.method, frames, info), request.set).fit(info)
    check(composition, grid.frames, info)
    _check_cache(request.cache, composition)
    steps = request.num_inference_steps or info.steps
    guidance = info.guidance if request.guidance_scale is None else request.guidance_scale
    notes = list(_notes(request, info, grid, frames, composition))
    negative = info.negative_prompt if request.negative_prompt is None else request.negative_prompt
    timeline = timeline or _timeline(request, frames, fps)
    prompts = build(timeline, request.schedule, grid.stride, guidance, negative)
    _check_schedule(request.schedule, info, composition, prompts)
    return Plan(
        request=request,
        info=info,
        composition=composition,
        grid=grid,
        timeline=timeline,
        frames=frames,
        size=size,
        fps=fps,
        steps=steps,
        guidance=guidance,
        negative=negative,
        flow_shift=request.flow_shift or info.flow_shift,
        seed=_seed(request.seed),
        windows=tuple(composition.loop.windows(grid.frames, info)),
        cost=_cost(composition, grid, info, steps, _branches(guidance, info), request.dtype or "bf16"),
        notes=tuple(notes),
    )


def _check_schedule(name: str, info: ModelInfo, composition: Composition, prompts: Any) -> None:
    """Refuse schedules that the model or a method cannot follow."""
    if composition.chain and prompts.space == "output" and len(prompts.texts) > 1:
        raise BadInput(
            f"--schedule {name} runs a window once per text, but {composition} shares keys between windows "
            "that run once; use hold or travel"
        )
    if "joint_text" in info.capabilities and name.partition(":")[0] in {"relay", "inject"}:
        raise BadInput(
            f"--schedule {name} needs text that enters through cross-attention; {info.variant} has one text stream "
            "beside the video; use hold, window, travel or blend"
        )


def _check_cache(cache: str, composition: Composition) -> None:
    """Step caches assume that a window computes the same thing at every step, at one level."""
    if cache == "none":
        return
    for part in composition.parts:
        moving = part.method.settings.get("plan", "static") != "static"
        if moving or {"route", "kv", "cross"} & set(part.slots) or part.method.info.finality == "stream":
            raise BadInput(f"--cache {cache} needs calls that do not change from step to step; {part} changes them")


def _frames(request: Request, info: ModelInfo, fps: float, timeline: Timeline | None) -> int:
    if timeline is not None:
        return timeline.frames
    if request.duration is not None:
        return max(1, round(request.duration * fps))
    return request.num_frames or info.native_frames


def _size(request: Request, info: ModelInfo) -> tuple[int, int]:
    height, width = request.height or info.native_size[0], request.width or info.native_size[1]
    for name, value, unit in (("height", height, info.patch[1]), ("width", width, info.patch[2])):
        step = info.spatial * unit
        if value % step:
            below, above = value // step * step, (value // step + 1) * step
            near = f"{below} or {above}" if below else f"{above}"
            raise BadInput(f"--{name} {value} is not a multiple of {step}, as {info.variant} needs; use {near}")
    return height, width


def _method(name: str, frames: int, info: ModelInfo) -> str:
    if name != "auto":
        return name
    from longgen.runtime.defaults import default_method

    return default_method(info.latents_for(frames) / info.native_latents, info)


def _timeline(request: Request, frames: int, fps: float) -> Timeline:
    if request.prompt is None:
        raise BadInput("no prompt: give --prompt TEXT or --prompt-file FILE")
    from longgen.story.timeline import parse_prompt

    return parse_prompt(request.prompt, frames, fps)


def _seed(seed: int) -> int:
    if seed >= 0:
        return seed
    import secrets

    return secrets.randbelow(2**32)


def _notes(request: Request, info: ModelInfo, grid: LatentGrid, frames: int, composition: Composition) -> list[str]:
    notes = []
    if grid.pixel_frames != frames:
        notes.append(f"{frames} frames: {grid.pixel_frames} are decoded ({grid.frames} latents), the rest is trimmed")
    view = composition.loop.view(grid.frames, info)
    for method in composition.methods:  # what acts inside calls alone is told the length of a call
        inside = set(method.info.slots) <= {"rope", "route", "logits"}
        notes.extend(method.notes(view if inside else grid.frames, info))
    if composition.stabilisers and not composition.chain:
        named = ", ".join(m.info.name for m in composition.stabilisers)
        notes.append(f"warning: {named} matches later chunks to the first, and {composition.loop.info.name} has none")
    if view > info.native_latents and not any(
        s in p.slots for p in composition.parts for s in ("rope", "logits", "route")
    ):
        notes.append(
            f"warning: calls of {view} latents are longer than the native {info.native_latents}, and no method "
            "among --method is made for that (riflex, ultravico, freenoise, freelong, lvsa are)"
        )
    if info.embedded_guidance and request.negative_prompt:
        notes.append(f"warning: the negative prompt has no effect: {info.variant} reads the guidance scale instead")
    if request.seed == -1:
        notes.append("the seed was drawn and is recorded beside the output")
    return notes


def _branches(guidance: float, info: ModelInfo) -> int:
    """Runs of the network per call."""
    return 2 if guidance > 1 and not info.embedded_guidance else 1


def _cost(c: Composition, grid: LatentGrid, info: ModelInfo, steps: int, branches: int, dtype: str) -> Cost:
    rounds = c.wrapper.rounds() if c.wrapper else 1
    runs = [(n * rounds, t) for n, t in c.loop.calls(grid.frames, steps, info)]
    longest = max((t for _, t in runs), default=grid.frames)
    route = next((p.method for p in c.parts if "route" in p.slots), None)
    flops = 0.0
    for count, latents in runs:
        keys = route.key_frames(latents, info) if route else float(latents)
        flops += count * branches * forward_flops(info, latents, grid.tokens, keys)
    width = info.heads * info.head_dim
    item = 4 if dtype == "fp32" else 2
    tokens = longest // info.patch[0] * grid.tokens
    seconds = {name: flops / (rate * 1e12) for name, rate in SUSTAINED_TFLOPS.items()}
    return Cost(
        calls=sum(n for n, _ in runs),
        latents_per_call=longest,
        tokens_per_call=tokens,
        branches=branches,
        flops=flops,
        weight_bytes=None if info.parameters is None else info.parameters * item,
        activation_bytes=tokens * (8 * width + info.ffn_dim) * item,
        latent_bytes=4 * grid.channels * grid.height * grid.width * grid.frames,
        seconds=seconds,
    )


def forward_flops(info: ModelInfo, latents: int, tokens: int, key_frames: float) -> float:
    """FLOPs of one forward of one guidance branch over `latents` latents of `tokens` tokens.

    Per token and layer 2·(6d² + 2·d·d_ff) + 4·N_t·d for projections, feed-forward and text, and 4·K·d for attention to
    K keys; plus the text's own keys and values, 4·N_t·d² per layer. Joint models carry the text through all of it:
    2·(4d² + 2·d·d_ff) per token of either kind, video attending to K + N_t keys and text to everything.
    """
    d, text = info.heads * info.head_dim, info.text_tokens
    if "joint_text" in info.capabilities:
        video = latents * tokens
        pairs = video * (key_frames * tokens + text) + text * (video + text)
        return info.layers * ((video + text) * 2 * (4 * d * d + 2 * d * info.ffn_dim) + 4 * d * pairs)
    linear = 2 * (6 * d * d + 2 * d * info.ffn_dim) + 4 * text * d
    attention = 4 * key_frames * tokens * d
    return info.layers * (latents * tokens * (linear + attention) + 4 * text * d * d)
