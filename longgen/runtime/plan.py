"""What would run: lengths, windows, notes, and what they cost. Knows JSON facts of the model; loads no weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from longgen import __version__
from longgen.config import Request
from longgen.core.windows import image_note
from longgen.errors import BadInput
from longgen.runtime import distribute
from longgen.runtime.compose import Composition, check, compose
from longgen.runtime.cost import Cost, estimate
from longgen.runtime.defaults import default_method
from longgen.runtime.sources import FIELDS, Source, check_control, check_image, continued, digests, levels, look, moved
from longgen.runtime.sources import notes as source_notes
from longgen.runtime.stretches import Stretch, longest, stretches
from longgen.story.schedules import Ramps, build
from longgen.types import LatentGrid, ModelInfo, Timeline


@dataclass(frozen=True)
class Plan:
    """A request with every default filled in, and what it will cost.

    Args:
        frames: pixel frames that the file will have; the grid may decode a few more, which are trimmed.
        windows: boundaries [a, b) in latents at the first step.
        notes: one line per rounding, no-op or warning.
        timeline: in frames of what the loop makes, like the grid; `told` is in frames of the file.
        source: the video that is continued; the grid then covers its end and what follows.
        control_levels: how a control video's grey levels are taken.
        files: hashes of the files that condition the run.
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
    notes: tuple[str, ...]
    source: Source | None = None
    control_levels: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def prompts(self) -> Ramps:
        """Which text each latent sees."""
        return _prompts(self.request, self.timeline, self.grid, self.guidance, self.negative)

    @cached_property
    def cost(self) -> Cost:
        """Calls, FLOPs and memory. The loop is walked for it without a model, so only where somebody asks."""
        parts = stretches(self.timeline, self.grid, self.seed)
        return estimate(self.composition, self.grid, self.info, self.request, self.steps, self.prompts, parts)

    @property
    def made(self) -> int:
        """Pixel frames that come out of the loop, with those of a source's end."""
        return self.frames - (self.source.start if self.source else 0)

    @property
    def told(self) -> Timeline:
        """The timeline in frames of the file."""
        return moved(self.timeline, self.source.start) if self.source else self.timeline

    def resolved(self) -> dict[str, Any]:
        """Every option with the value that this run uses; what a rerun needs."""
        values = self.request.model_dump()
        values.update(
            method=str(self.composition),
            set=dict(self.composition.given),
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
            control_levels=self.control_levels,
        )
        return values

    @property
    def identity(self) -> str:
        """Hash of all that can change a bit of the result, the machine aside."""
        values = self.resolved()
        for name in ("prompt", "device", "decode_chunk", "model", *FIELDS):
            values.pop(name)
        settings = {p.name: p.method.settings for p in self.composition.parts}
        told = [values, self.info.id, settings, asdict(self.timeline), dict(self.files), __version__]
        text = json.dumps(told, sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def windows_in_frames(self) -> list[tuple[int, int]]:
        """Window boundaries [a, b) in pixel frames of the file, where a seam would show."""
        stride, lead = self.grid.stride, self.grid.lead_pad

        def pixel(latent: int) -> int:
            return start + (0 if latent <= lead else (latent - lead - 1) * stride + 1)

        start = self.source.start if self.source else 0
        return [(pixel(a), min(pixel(b), self.frames)) for a, b in self.windows]


def make(request: Request, info: ModelInfo, timeline: Timeline | None = None) -> Plan:
    """Fill in the model's defaults, round lengths to what the VAE allows, check methods against the model.

    Args:
        timeline: a story's; a request with a prompt makes its own, shots split at `|`.
    Raises:
        BadInput: sizes, lengths or methods that cannot work on this model.
    """
    for file in request.transformer:
        if not Path(file).is_file():
            raise BadInput(f"--transformer {file} does not exist")
    video = look(request)
    fps = request.fps or (video.fps if video else info.fps)
    frames = _frames(request, info, fps, timeline)
    size = _size(request, info)
    method = request.method
    if method == "auto":
        shots = len(timeline.shots) if timeline else (request.prompt or "").count("|") + 1
        ratio = info.latents_for(frames) / info.native_latents
        method = "extend" if video else default_method(ratio, info, shots)
    composition = compose(method, request.set).fit(info)
    source = continued(request, video, composition.loop, info, frames) if video else None
    fitted = check_image(request, info, size)
    check_control(request, info, frames)
    made = frames - (source.start if source else 0)
    grid = info.grid(made, *size)
    seed = _seed(request.seed)
    timeline = _timeline(request, timeline, source, frames, fps)
    parts = stretches(timeline, grid, seed)
    for length in sorted({part.frames for part in parts}):
        check(composition, length, info)
        distribute.check(request, info, composition, grid.with_frames(length))
    _check_cache(request.cache, composition, info)
    _check_batch(request.window_batch, composition)
    steps = request.num_inference_steps or info.steps
    guidance = info.guidance if request.guidance_scale is None else request.guidance_scale
    notes = [*source_notes(source, video, size, frames), *fitted, *_notes(request, info, grid, made, composition)]
    notes += _loop_notes(info, composition, parts, timeline)
    negative = info.negative_prompt if request.negative_prompt is None else request.negative_prompt
    prompts = _prompts(request, timeline, grid, guidance, negative)
    shift = request.flow_shift or info.flow_shift
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
        flow_shift=shift,
        seed=seed,
        windows=tuple(window for part in parts for window in part.spans(composition.loop.windows(part.frames, info))),
        notes=tuple(notes),
        source=source,
        control_levels=levels(request, info, frames),
        files=digests(request),
    )


def _prompts(request: Request, timeline: Timeline, grid: LatentGrid, guidance: float, negative: str) -> Ramps:
    return build(timeline, request.schedule, grid.stride, guidance, negative, grid.lead_pad)


def _check_schedule(name: str, info: ModelInfo, composition: Composition, prompts: Any) -> None:
    """Refuse schedules that the model or a method cannot follow."""
    joint = "joint_text" in info.capabilities
    shared = any("kv" in part.slots for part in composition.parts)
    apart = prompts.space == "output" or (joint and name.partition(":")[0] != "window")
    if shared and apart and len(prompts.texts) > 1:
        raise BadInput(
            f"--schedule {name} runs a window of {info.variant} once per text, but {composition} shares keys between "
            f"windows that run once; use {'window' if joint else 'hold or travel'}"
        )
    if joint and name.partition(":")[0] in {"relay", "inject"}:
        raise BadInput(
            f"--schedule {name} needs text that enters through cross-attention; {info.variant} has one text stream "
            "beside the video; use hold, window, travel or blend"
        )


def _check_cache(cache: str, composition: Composition, info: ModelInfo) -> None:
    """Step caches assume that a window computes the same thing at every step, at one level."""
    if cache == "none":
        return
    if "cache" in info.refusals:
        raise BadInput(f"--cache {cache} cannot serve {info.variant}: {info.refusals['cache']}")
    for part in composition.parts:
        moving = part.method.settings.get("plan", "static") != "static"
        if moving or {"route", "kv", "cross"} & set(part.slots) or part.method.info.finality == "stream":
            raise BadInput(f"--cache {cache} needs calls that do not change from step to step; {part} changes them")


def _check_batch(size: int, composition: Composition) -> None:
    """Windows that hand keys on cannot run side by side."""
    sharing = next((part for part in composition.parts if "kv" in part.slots), None)
    if size > 1 and sharing:
        raise BadInput(f"--window-batch {size} runs windows side by side, but {sharing} hands keys on; leave it at 1")


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
    if info.learned_positions and (height, width) != tuple(info.native_size):
        own = f"{info.native_size[1]}x{info.native_size[0]}"
        raise BadInput(f"--size {width}x{height}: {info.variant} has learnt positions for {own} alone")
    return height, width


def _timeline(request: Request, given: Timeline | None, source: Source | None, frames: int, fps: float) -> Timeline:
    """In frames of what the loop makes. Shots of a prompt share out what is new; the first one reaches back."""
    if given is not None:
        return moved(given, -source.start) if source else given
    if request.prompt is None:
        raise BadInput("no prompt: give --prompt TEXT or --prompt-file FILE")
    from longgen.story.timeline import parse_prompt

    parsed = parse_prompt(request.prompt, frames - (source.frames if source else 0), fps)
    return moved(parsed, source.tail) if source else parsed


def _seed(seed: int) -> int:
    if seed >= 0:
        return seed
    import secrets

    return secrets.randbelow(2**32)


def _notes(request: Request, info: ModelInfo, grid: LatentGrid, frames: int, composition: Composition) -> list[str]:
    notes = []
    if grid.pixel_frames != frames:
        notes.append(f"{frames} frames: {grid.pixel_frames} are decoded ({grid.frames} latents), the rest is trimmed")
    if request.image is not None and not info.needs_image and len(composition.loop.windows(grid.frames, info)) > 1:
        notes.append("the image is the first frame; windows that do not begin there do not see it")
    if info.embedded_guidance and request.negative_prompt:
        notes.append(f"warning: the negative prompt has no effect: {info.variant} reads the guidance scale instead")
    if request.seed == -1:
        notes.append("the seed was drawn and is recorded beside the output")
    return notes


def _loop_notes(info: ModelInfo, composition: Composition, parts: Sequence[Stretch], timeline: Timeline) -> list[str]:
    """What the methods say of the longest run of the loop, and what calls of its length mean for the checkpoint."""
    notes = []
    if len(parts) > 1:
        lengths = ", ".join(str(part.stop - part.start) for part in parts)
        notes.append(f"hard cuts: stretches of {lengths} latents, each made as a video of its own")
        notes += image_note(info, seen=False)
    made = longest(parts)
    view = composition.loop.view(made, info)
    for part in composition.parts:  # what acts inside calls alone is told the length of a call
        method, inside = part.method, set(part.slots) <= {"rope", "route", "logits"}
        if set(part.slots) == set(method.info.slots):  # a method speaks of itself as a whole
            notes.extend(method.notes(view if inside else made, info))
    if composition.stabilisers and composition.loop.info.finality == "end":
        named = ", ".join(m.info.name for m in composition.stabilisers)
        idle = "; there is none, so nothing changes" if len(timeline.shots) == len(parts) else ""
        notes.append(f"{named} matches later shots to the first one since a cut{idle}")
    if view > info.native_latents and not any(
        s in p.slots for p in composition.parts for s in ("rope", "logits", "route")
    ):
        notes.append(
            f"warning: calls of {view} latents are longer than the native {info.native_latents}, and no method "
            "among --method is made for that (riflex, ultravico, freenoise, freelong, lvsa are)"
        )
    if info.learned_positions and view != info.native_latents:
        notes.append(
            f"warning: calls of {view} latents: the positions that this checkpoint learnt are those of "
            f"{info.native_latents}; others are computed. Windows of native length suit it"
        )
    return notes
