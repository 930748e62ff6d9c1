"""The words of the house as frozen dataclasses.

Knows tensors and plain values. Does not know models, methods, files or devices' names.

Letters used everywhere: B batch, C channels, T latent frames, H W latent height and width, P tokens per latent
frame, S = T·P tokens, N heads, D head dim, U window length in latents, F pixel frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

Branch = Literal["cond", "uncond"]
Transition = Literal["continue", "blend", "cut"]
Finality = Literal["stream", "end"]
WindowOrder = Literal["any", "chain"]
Slot = Literal["noise", "loop", "wrapper", "route", "logits", "rope", "cross", "kv", "stabilise"]

# ---------------------------------------------------------------------------------------------------------- geometry


@dataclass(frozen=True)
class LatentGrid:
    """The shape of one video's latents: [1, channels, frames, height, width].

    Args:
        frames: T, latent frames (≥ 1).
        channels, height, width: of one latent frame.
        stride: pixel frames per latent frame after the first (4 Wan, 8 LTX).
        patch: (p_t, p_h, p_w), latents per token along each axis.
        lead_pad: first latents that are denoised and never decoded.
    """

    frames: int
    channels: int
    height: int
    width: int
    stride: int
    patch: tuple[int, int, int] = (1, 2, 2)
    lead_pad: int = 0

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        return (1, self.channels, self.frames, self.height, self.width)

    @property
    def pixel_frames(self) -> int:
        """F = (T − 1)·stride + 1: the frames that a causal VAE decodes from T latents."""
        return (self.frames - self.lead_pad - 1) * self.stride + 1

    @property
    def tokens(self) -> int:
        """P: tokens per latent frame."""
        return (self.height // self.patch[1]) * (self.width // self.patch[2])

    def with_frames(self, frames: int) -> LatentGrid:
        return replace(self, frames=frames)


@dataclass(frozen=True)
class Rope:
    """How a model rotates along time. `kind` "none" means that positions are not rotary or absent.

    Args:
        dim: rotary channels of the temporal axis (44 Wan, 16 CogVideoX and HunyuanVideo).
        base: θ of the frequencies base^(−2j/dim), j = 0 … dim/2 − 1.
        limit: longest table of positions in latents (1,024 Wan), None when free.
    """

    kind: Literal["table", "coords", "argument", "absolute", "none"] = "none"
    dim: int = 0
    base: float = 10_000.0
    limit: int | None = None


@dataclass(frozen=True)
class Moment:
    """What is alive at one moment of a forward: values per video token and per text token.

    Args:
        token, word: in the compute dtype. token32: in fp32 whatever the dtype.
        half: True for a moment of half-precision runs alone, False for fp32 alone, None for both.
    """

    name: str
    token: float
    token32: float = 0.0
    word: float = 0.0
    half: bool | None = None


@dataclass(frozen=True)
class Decode:
    """What a VAE's decoder holds in fp32: values per position of a latent frame, always and per latent of a call.

    A call takes min(T, halo + clamp(chunk, least, most)) latents. `pairs` are values per pair of positions of a call,
    held at another moment. `later` are (T, values per position) that clips of at least T latents hold besides.
    """

    fixed: float
    per_latent: float
    least: int = 1
    most: int = 64
    halo: int = 0
    pairs: float = 0.0
    later: tuple[int, float] = (0, 0.0)


@dataclass(frozen=True)
class Footprint:
    """What a forward of a checkpoint takes, from its JSON files. All numbers are those of one forward of one video.

    Args:
        token, word, level: multiply-adds per video token, per text token and per timestep, attention aside.
        level_per_token: latents' own levels reach the network token by token, else latent by latent.
        level_always: one by one even where they are all alike.
        word_layers: layers in which the words attend to each other alone.
        moments: what a forward holds where it is fullest; the largest counts.
        levels: what it holds besides where levels are given one by one.
        decode: what decoding holds; None where nobody has counted it.
        memory: tensors as large as the latents that the checkpoint's own step rule remembers.
        course: σ at equal fractions 0 … 1 of the steps, at the checkpoint's own settings; () where `flow_shift` tells.
    """

    token: float
    word: float
    level: float
    level_per_token: bool = True
    level_always: bool = False
    word_layers: int = 0
    course: tuple[float, ...] = ()
    moments: tuple[Moment, ...] = ()
    levels: Moment = Moment("levels", 0.0)
    decode: Decode | None = None
    memory: int = 1


@dataclass(frozen=True)
class ModelInfo:
    """What is known about a checkpoint from its JSON files alone, before any weight loads.

    `native_frames` counts pixel frames; sizes are (height, width) in pixels; `spatial` is pixels per latent.
    `capabilities` is a set of names out of `longgen.protocols.CAPABILITIES`.
    """

    id: str
    family: str
    variant: str
    channels: int
    stride: int
    spatial: int
    patch: tuple[int, int, int]
    native_frames: int
    native_size: tuple[int, int]
    fps: float
    steps: int
    guidance: float
    flow_shift: float | None
    layers: int
    heads: int
    head_dim: int
    ffn_dim: int
    text_tokens: int
    rope: Rope
    capabilities: frozenset[str]
    negative_prompt: str = ""
    boundary: float | None = None  # σ at which a two-expert model changes its transformer
    lead_pad: int = 0
    parameters: int | None = None
    refusals: Mapping[str, str] = field(default_factory=dict)  # capability → why the family lacks it
    embedded_guidance: bool = False  # the network reads the guidance scale: one run per call, no negative prompt
    needs_image: bool = False  # an image-to-video checkpoint: without a first frame it has never been run
    learned_positions: bool = False  # positions were learnt: no other size, and at other lengths computed ones
    control_layers: int = 0  # blocks of a control branch, each like a layer with one more projection
    footprint: Footprint | None = None  # None: costs are estimated from layers and widths alone
    weights: Mapping[str, int] = field(default_factory=dict)  # component → number of weights, where known

    @property
    def native_latents(self) -> int:
        """T0: latents of a clip of native length."""
        return (self.native_frames - 1) // self.stride + 1 + self.lead_pad

    def latents_for(self, frames: int) -> int:
        """Fewest latents whose decoded clip has at least `frames` pixel frames, in whole temporal patches.

        The first `lead_pad` latents are denoised and never decoded.
        """
        latents = -(-(frames - 1) // self.stride) + 1 + self.lead_pad
        unit = self.patch[0]
        return -(-latents // unit) * unit

    def grid(self, frames: int, height: int, width: int) -> LatentGrid:
        return LatentGrid(
            self.latents_for(frames),
            self.channels,
            height // self.spatial,
            width // self.spatial,
            self.stride,
            self.patch,
            self.lead_pad,
        )


# ------------------------------------------------------------------------------------------------------------ levels


@dataclass(frozen=True)
class Level:
    """Noise level of a whole call (0-d tensors) or of each of its latents ([T] tensors): x = α·z + σ·ε.

    Flow models have α = 1 − σ, variance-preserving ones α² + σ² = 1. `t` is the model's own timestep, and `step` the
    row of the solver's table that all of it was read from; they are never recomputed from σ by hand.
    """

    sigma: Tensor
    alpha: Tensor
    t: Tensor
    step: Tensor

    @property
    def uniform(self) -> bool:
        """True for one level common to all latents."""
        return self.sigma.ndim == 0

    def spread(self, frames: int) -> Level:
        """The same level(s) as [frames] tensors."""
        return Level(*(v.expand(frames) if v.ndim == 0 else v for v in (self.sigma, self.alpha, self.t, self.step)))

    def __getitem__(self, index: int | slice | Tensor) -> Level:
        return Level(self.sigma[index], self.alpha[index], self.t[index], self.step[index])

    @staticmethod
    def cat(levels: list[Level]) -> Level:
        """Per-latent levels one after another; 0-d ones count as one latent."""
        return Level(*(torch.cat([getattr(v, n).reshape(-1) for v in levels]) for n in ("sigma", "alpha", "t", "step")))

    def to(self, device: torch.device) -> Level:
        return Level(self.sigma.to(device), self.alpha.to(device), self.t.to(device), self.step.to(device))


def per_latent(value: Tensor, x: Tensor) -> Tensor:
    """A 0-d or [T] coefficient shaped to multiply x [B, C, T, H, W], in x's device and at least fp32."""
    value = value.to(x.device, torch.promote_types(value.dtype, torch.float32))
    return value if value.ndim == 0 else value[None, None, :, None, None]


def add_noise(clean: Tensor, noise: Tensor, level: Level) -> Tensor:
    """x = α·z + σ·ε for clean latents z [B, C, T, H, W]."""
    return per_latent(level.alpha, clean) * clean + per_latent(level.sigma, clean) * noise


def implied_noise(x: Tensor, clean: Tensor, level: Level) -> Tensor:
    """ε = (x − α·z)/σ, the noise that x is made of when its clean estimate is z. σ must not be 0."""
    return (x - per_latent(level.alpha, x) * clean) / per_latent(level.sigma, x)


def ode_step(x: Tensor, clean: Tensor, now: Level, then: Level) -> Tensor:
    """One deterministic first-order step: DDIM, which for flow models is Euler. Works with one level per latent."""
    sigma = torch.where(now.sigma > 0, now.sigma, torch.ones_like(now.sigma))  # a clean latent stays as it is
    safe = replace(now, sigma=sigma)
    stepped = add_noise(clean, implied_noise(x, clean, safe), then)
    still = per_latent((now.sigma == 0).to(torch.float32), x)
    return torch.where(still.bool(), x, stepped)


@dataclass(frozen=True)
class Schedule:
    """The solver's table: rows 0 (noisiest) … n − 1, and row n, the clean end, as one Level of [n + 1] tensors."""

    table: Level

    @property
    def steps(self) -> int:
        return len(self.table.sigma) - 1

    def __getitem__(self, row: int | Tensor | slice) -> Level:
        return self.table[row]

    def sigma_at(self, fraction: float) -> float:
        """σ after `fraction` (0 … 1) of the steps: how step ranges of papers become level intervals."""
        return float(self.table.sigma[round(fraction * self.steps)])

    def row_at(self, sigma: float) -> int:
        """The first row whose σ is at most `sigma`."""
        return int((self.table.sigma > sigma).sum())


@dataclass(frozen=True)
class Interval:
    """A half-open range of noise levels, low < σ ≤ high."""

    low: float = -1.0
    high: float = float("inf")

    def __contains__(self, level: Level) -> bool:
        sigma = float(level.sigma.max())
        return self.low < sigma <= self.high


# -------------------------------------------------------------------------------------------------- calls and states


@dataclass(frozen=True)
class Call:
    """One evaluation of the model.

    Args:
        x: noisy latents [1, C, T, H, W].
        level: common or per latent.
        frames: absolute latent index of each of the T latents; prompts, images and control follow from it.
        key: id of the window, stable over steps, or None for a call that is no window.
    """

    x: Tensor
    level: Level
    frames: tuple[int, ...]
    key: int | None = None


@dataclass(frozen=True)
class State:
    """Everything a loop needs to go on: tensors and plain values only, so it can be saved between any two steps.

    `x` holds the latents in work, `step` counts steps done, `solver` is the step rule's memory, `extra` the loop's own.
    `done` says that nothing is left to do. The run's key/value bank (`Context.bank`) is saved beside it.
    """

    x: Tensor
    step: int = 0
    done: bool = False
    solver: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Preview:
    """A clean estimate that later steps will still change. x [1, C, T, H, W], first latent at `start`."""

    step: int
    x: Tensor
    start: int = 0


@dataclass(frozen=True)
class Final:
    """Finished latents [1, C, stop − start, H, W]; every latent is final once, in order."""

    start: int
    stop: int
    x: Tensor


Event = Preview | Final

# --------------------------------------------------------------------------------------------------------- attention


@dataclass(frozen=True)
class Dense:
    """Every query sees every key."""


@dataclass(frozen=True)
class FrameWindow:
    """Query frame i sees the key frames [spans[i][0], spans[i][1]); an empty span sees nothing (lse −∞).

    `tokens` is P, the same for queries and keys; there are len(spans) query frames.
    """

    tokens: int
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class FrameGather:
    """Query frame i sees exactly the key frames sets[i]; all sets have one size."""

    tokens: int
    sets: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Union:
    """Disjoint key sets, merged by log-sum-exp; `scales[i]` multiplies the logits of part i."""

    parts: tuple[Plan, ...]
    scales: tuple[float, ...]


@dataclass(frozen=True)
class TokenDecay:
    """Every query sees every key, and positive logits of far pairs are scaled (UltraViCo).

    Args:
        tokens: P.
        reach: token distance up to which nothing is scaled.
        alpha, beta: factors beyond it; β where frames lie within `gamma` of a multiple of `period` apart (0: nowhere).
        hidden: keys from this frame on are not seen from frame 0 (0: all are).
    """

    tokens: int
    reach: int
    alpha: float
    beta: float
    gamma: int = 0
    period: int = 0
    hidden: int = 0


Plan = Dense | FrameWindow | FrameGather | Union | TokenDecay

# attend(q [B, Sq, N, D], k [B, Sk, N, D], v [B, Sk, N, D], plan, scale) → out [B, Sq, N, D], lse [B, N, Sq] (fp32).
# `scale` multiplies the usual 1/√D.
Attend = Callable[..., tuple[Tensor, Tensor]]
# rotate(x [B, T·P, N, D], positions [T] | None) → x rotated; None means the site's own positions.
Rotate = Callable[..., Tensor]


@dataclass(frozen=True)
class Site:
    """Where in the model, and on what, an attention hook is called.

    Args:
        layer, layers: index of this attention layer and how many there are.
        branch: which side of classifier-free guidance runs.
        expert: 0, or 1 for the low-noise transformer of a two-expert model.
        level: noise level(s) of the latents of this call.
        frames: absolute latent indices of the call; local index i stands for frames[i].
        grid: (T, h, w) in tokens; P = h·w.
        key: the window's id, None outside windows.
        step, steps: progress of the loop's schedule at this call.
        text: text tokens beside the video's in a joint sequence (0 with cross-attention).
    """

    layer: int
    layers: int
    branch: Branch
    expert: int
    level: Level
    frames: tuple[int, ...]
    grid: tuple[int, int, int]
    key: int | None
    step: int
    steps: int
    text: int = 0

    @property
    def tokens(self) -> int:
        return self.grid[1] * self.grid[2]


# Self-attention hook: (site, q, k, v, rotate, attend) → out [B, T·P, N, D]. q and k come before rotation and hold video
# tokens only; in a joint model `attend` merges the text keys into every query's softmax by itself.
SelfHook = Callable[[Site, Tensor, Tensor, Tensor, Rotate, Attend], Tensor]
# Cross-attention hook: (site, q [B, T·P, N, D], k [B, L, N, D], v, attend) → out. In a joint model k and v are the
# text rows; out is then (out, lse), to be merged with the video part.
CrossHook = Callable[[Site, Tensor, Tensor, Tensor, Attend], tuple[Tensor, Tensor]]
# Wraps `attend` on rotated q and k of video tokens: (site, attend) → attend.
LogitsHook = Callable[[Site, Attend], Attend]


@dataclass(frozen=True)
class View:
    """The longest call that the loop will make, and what a patch may want to know of the model.

    `frames` counts latents of that call, `total` those of the video, `native` is T0, `schedule` the solver's table,
    `seconds_per_latent` is stride/fps. `bank` is the run's store of key/value tensors, saved with its state.
    """

    frames: int
    native: int
    total: int
    tokens: int
    layers: int
    rope: Rope
    schedule: Schedule
    seconds_per_latent: float
    bank: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Patch:
    """What a method changes inside the model; None leaves it alone.

    Args:
        freqs: θ [dim/2] of the temporal axis → θ. Chains over methods.
        positions: temporal positions [T] of a call → positions. Chains.
        attention: route: which keys a query sees.
        logits: wraps attend, inside a route's windows.
        kv: (site, k, v) → (k, v) before rotation: key/value sharing. Stacks.
        cross: text attention. Stacks; the last given runs outermost.
    """

    freqs: Callable[[Tensor], Tensor] | None = None
    positions: Callable[[Tensor], Tensor] | None = None
    attention: SelfHook | None = None
    logits: LogitsHook | None = None
    kv: Callable[[Site, Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    cross: CrossHook | None = None

    @property
    def empty(self) -> bool:
        return all(v is None for v in (self.freqs, self.positions, self.attention, self.logits, self.kv, self.cross))


# ---------------------------------------------------------------------------------------------------------- timeline


@dataclass(frozen=True)
class Shot:
    """One prompt on pixel frames [start, stop). `blend` is the length in frames of a blended entry."""

    prompt: str
    start: int
    stop: int
    id: str = ""
    negative: str | None = None
    transition: Transition = "continue"
    blend: int = 0
    seed: int | None = None
    guidance: float | None = None
    image: str | None = None
    loras: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timeline:
    """What is said when: shots that tile [0, frames) without gap or overlap. One prompt is a timeline of one shot."""

    shots: tuple[Shot, ...]
    fps: float

    @staticmethod
    def single(prompt: str, frames: int, fps: float, negative: str | None = None) -> Timeline:
        return Timeline((Shot(prompt, 0, frames, id="shot1", negative=negative),), fps)

    @property
    def frames(self) -> int:
        return self.shots[-1].stop

    def at(self, frame: int) -> Shot:
        """The shot that pixel frame `frame` belongs to; frames past the end belong to the last one."""
        return next((s for s in self.shots if frame < s.stop), self.shots[-1])


@dataclass(frozen=True)
class Mix:
    """Which text each latent of one call sees, over the n texts of a prompt schedule.

    Args:
        weights: [T, n]. Space "text": rows sum to 1 and mix embeddings, so each latent has a text of its own; "output":
            rows sum to 1 and mix clean estimates, one model run per text in use; "bias": penalties C ≥ 0 taken from
            the logits between latent i's queries and text j's tokens, all texts in one sequence.
        early: other weights for the layers before `split`·layers, or None (motion injection).
        spherical: mix embeddings on the sphere instead of the line.
    """

    weights: Tensor
    space: Literal["text", "output", "bias"] = "text"
    early: Tensor | None = None
    split: float = 0.5
    spherical: bool = False


@dataclass(frozen=True)
class LoadOptions:
    """How a checkpoint is loaded and run. Everything here is diffusers' or torch's own machinery, chosen by name."""

    device: str = "cpu"
    dtype: str | None = None  # None: the checkpoint's own on a GPU, fp32 on a CPU
    attention: str = "auto"
    offload: Literal["none", "model", "group", "sequential"] = "none"
    layerwise_fp8: bool = False
    vae_tiling: bool = False
    compile: bool = False
    cache: str = "none"
    loras: tuple[str, ...] = ()
    transformers: tuple[str, ...] = ()  # single files with the transformers' weights, high noise first
    variant: str | None = None
    quantize: str | None = None
    window_batch: int = 1
    parallel: Literal["calls", "ulysses", "ring"] = "calls"  # what several processes share out
