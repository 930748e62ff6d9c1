"""The seams: what a denoiser, a method, a solver, an attention engine and a metric promise.

Knows the words of `types` only. A method imports this module, `types` and `core`, and nothing else of the house.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from longgen.types import (
    Call,
    Event,
    Finality,
    LatentGrid,
    Level,
    Mix,
    ModelInfo,
    Patch,
    Plan,
    Schedule,
    Slot,
    State,
    View,
    WindowOrder,
)

CAPABILITIES = {
    "per_latent_level": "one noise level per latent in one call",
    "rope": "rotary positions on the temporal axis whose frequencies can be changed",
    "self_attention": "attention among video tokens can be routed",
    "cross_text": "text enters through cross-attention",
    "joint_text": "text and video share one attention sequence",
    "prefix_condition": "known first latents as the checkpoint was trained to take them: at a timestep of their own, "
    "beside the noise, or through a control branch",
    "image": "a first-frame image",
    "control": "a control video",
    "stream_decode": "the VAE decodes a stream in constant memory",
    "windows": "calls on any run of latents",
    "split_pass": "several processes can run one pass together",
}


Forward = Callable[[], list[Tensor]]
Deal = Callable[[Sequence[Forward], Sequence[Sequence[Tensor]]], list[list[Tensor]]]

# ------------------------------------------------------------------------------------------------- methods declare


@dataclass(frozen=True)
class Setting:
    """One setting of a method: its default, unit ("latents", "frames", "1", …), legal range and meaning."""

    default: Any
    unit: str
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class MethodInfo:
    """A method's declaration; `longgen methods --json` prints it and the law suite runs from it.

    Args:
        paper: arXiv id or "" for folklore.
        needs: names out of CAPABILITIES.
        cost: formula in T (latents), T0, U, n (steps), as text.
        laws: law name → settings under which it holds ({} = the defaults). Names are checked against
            `longgen.laws.LAWS`; every law that is left out needs a line in `exempt`.
        exempt: law name → the reason why it does not hold or does not apply.
        conflicts: names of methods that cannot run beside this one, with the reason.
        global_positions: True when one call spans the whole video, so that the model's longest table binds.
        mixes_heads: True when its attention reads all heads at once, so that a process that holds some of them cannot
            run it.
    """

    name: str
    title: str
    slots: tuple[Slot, ...]
    paper: str = ""
    needs: frozenset[str] = frozenset()
    settings: Mapping[str, Setting] = field(default_factory=dict)
    cost: str = "n · forward(T)"
    finality: Finality = "end"
    window_order: WindowOrder = "any"
    global_positions: bool = False
    mixes_heads: bool = False
    laws: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    exempt: Mapping[str, str] = field(default_factory=dict)
    conflicts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What a loop is given: the model behind `denoise`, the solver, the noise, the length.

    Args:
        denoise: calls → clean estimates [1, C, t, H, W] fp32, in the order given. The runtime decides how many calls
            share a forward and which process runs them; results do not depend on it.
        noise: noise(start, stop) → x_T[start:stop) of the whole video, [1, C, stop − start, H, W].
        fresh: fresh(tag, start, stop) → unit Gaussian noise of latents [start, stop), a function of (seed, tag, index),
            for stochastic steps and re-noising. Tags make draws independent.
        bank: key/value tensors that patches keep; the same object that the patches' view holds.
        start: first row of the schedule (> 0 for a restart on a partly noised latent).
        stabilise: (later chunk, first chunk) → the chunk matched to the first; None without a stabiliser.
        known: the latents that the video begins with, [1, C, loop.prefix, H, W]; the loop makes those that follow.
    """

    denoise: Callable[[Sequence[Call]], list[Tensor]]
    solver: Solver
    schedule: Schedule
    grid: LatentGrid
    info: ModelInfo
    seed: int
    noise: Callable[[int, int], Tensor]
    fresh: Callable[[str, int, int], Tensor]
    device: torch.device
    bank: dict[str, Tensor] = field(default_factory=dict)
    start: int = 0
    stabilise: Callable[[Tensor, Tensor], Tensor] | None = None
    known: Tensor | None = None

    @property
    def native(self) -> int:
        return self.info.native_latents


class Method:
    """Base of all methods: holds settings, declares `info`. Subclasses override what their slots need.

    A method is constructed with all its settings resolved: Method(**settings).
    """

    info: ClassVar[MethodInfo]

    def __init__(self, **settings: Any) -> None:
        known = self.info.settings
        unknown = set(settings) - set(known)
        if unknown:
            raise TypeError(f"{self.info.name} has no setting {sorted(unknown)}")
        self.settings: dict[str, Any] = {n: settings.get(n, s.default) for n, s in known.items()}

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["settings"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no attribute or setting {name!r}") from None

    def fit(self, info: ModelInfo) -> Method:
        """This method with everything that depends on the model resolved: frames to latents, defaults out of T0.

        The runtime calls it once, before `check` and everything else; the method it returns may be fitted again.
        """
        return self

    # slot noise
    def noise(self, grid: LatentGrid, seed: int, start: int, stop: int) -> Tensor:
        """x_T[start:stop) on the CPU in fp32, [1, C, stop − start, H, W]."""
        raise NotImplementedError

    # slot loop
    def prefix(self, info: ModelInfo) -> int:
        """Latents that the loop can take for a video's known beginning (`Context.known`); 0: it cannot continue one."""
        return 0

    def view(self, frames: int, info: ModelInfo) -> int:
        """Latents of the longest call that the loop makes on a video of `frames` latents."""
        raise NotImplementedError

    def calls(self, frames: int, steps: int, info: ModelInfo) -> list[tuple[int, int]]:
        """(number of calls, latents per call) over a whole run, for the plan."""
        raise NotImplementedError

    def steps(self, frames: int, steps: int, info: ModelInfo) -> int:
        """How many times `step` runs on a whole video, for progress; the schedule's length for most loops."""
        return steps

    def windows(self, frames: int, info: ModelInfo) -> list[tuple[int, int]]:
        """Boundaries [a, b) in latents of the loop's windows at step 0, for plan, sidecar and seam metrics."""
        return [(0, frames)]

    def key_frames(self, frames: int, info: ModelInfo) -> float:
        """Latents whose keys an average query sees in a call of `frames` latents, for plans (slots route, logits)."""
        return float(frames)

    def init(self, ctx: Context) -> State:
        raise NotImplementedError

    def step(self, ctx: Context, state: State) -> tuple[State, list[Event]]:
        raise NotImplementedError

    # slot wrapper
    def rounds(self) -> int:
        """How often the loop runs in all."""
        return 1

    def restart(self, schedule: Schedule) -> int:
        """Schedule row from which rounds after the first start."""
        return 0

    def refine(self, ctx: Context, x0: Tensor, round: int) -> tuple[Tensor, int]:
        """Latents and schedule row from which round `round` (1 …) starts, given the result of the round before."""
        raise NotImplementedError

    # patch slots
    def patch(self, view: View) -> Patch:
        """What changes inside the model; an empty Patch is a no-op."""
        return Patch()

    # slot stabilise
    def stabilise(self, x: Tensor, reference: Tensor) -> Tensor:
        """Final latents of a later chunk, matched to those of the first."""
        return x

    def check(self, frames: int, info: ModelInfo) -> None:
        """Raise BadInput for settings that cannot work on this length and model. Runs before weights load."""

    def notes(self, frames: int, info: ModelInfo) -> list[str]:
        """One line per thing the user should know: roundings, no-ops, warnings."""
        return []


# ------------------------------------------------------------------------------------------------ models and solvers


class PromptSchedule(Protocol):
    """What is said when: texts, and which of them each latent sees. Independent of methods and models."""

    @property
    def texts(self) -> tuple[str, ...]: ...

    @property
    def negatives(self) -> tuple[str, ...]: ...

    def mix(self, frames: tuple[int, ...], level: Level) -> Mix:
        """Over `texts`, for the latents with these absolute indices."""
        ...

    def negative(self, frames: tuple[int, ...]) -> int:
        """Index into `negatives` for a whole call."""
        ...

    def guidance(self, frames: tuple[int, ...]) -> Tensor | float:
        """Guidance scale, common or per latent [T]; 1 switches guidance off."""
        ...


@dataclass(frozen=True)
class Conditions:
    """All that a denoiser is conditioned on. An image is uint8 [H, W, 3], a control video one such frame after another.

    Latent i of a run is controlled by the frames that it stands for; a control video is read once, as a stream.

    `fps` is that of the video to make, for models whose positions count seconds; None is the model's own.
    """

    prompts: PromptSchedule
    image: Tensor | None = None
    control: Iterable[Tensor] | None = None
    seed: int = 0
    fps: float | None = None


@runtime_checkable
class Denoiser(Protocol):
    """A conditioned model: calls in, clean estimates out. Prompts, guidance and experts are resolved inside."""

    info: ModelInfo

    def denoise(self, call: Call) -> Tensor:
        """Clean estimate [1, C, T, H, W] in fp32."""
        ...

    def denoise_batch(self, calls: Sequence[Call], deal: Deal = ...) -> list[Tensor]:
        """Several calls of one shape in one forward where the model allows it; equal to single calls to 1e-5.

        Args:
            deal: runs the forwards that this takes (sides of guidance, experts, texts): (forwards, tensors of the
                shapes of their results) → results. One after another by default; they do not depend on each other.
        """
        ...

    def patched(self, patch: Patch) -> AbstractContextManager[None]:
        """Installs the patch in every expert and takes it off bitwise, also after an exception."""
        ...


@runtime_checkable
class Solver(Protocol):
    """The step rule. Its memory is a value: it holds tensors and plain values only."""

    name: str
    order: int
    stochastic: bool
    schedule: Schedule

    def seeded(self, fresh: Callable[[str, int, int], Tensor]) -> Solver:
        """The same rule with the noise of its steps drawn from `fresh`, as `Context.fresh`."""
        ...

    def init(self, start: int = 0) -> Mapping[str, Any]:
        """Memory before the step at row `start`."""
        ...

    def step(
        self, memory: Mapping[str, Any], x: Tensor, clean: Tensor, row: int, start: int = 0
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """From row to row + 1, given the clean estimate; fp32. `start` is the absolute index of x's first latent, which
        stochastic rules draw their noise by."""
        ...


class Model(Protocol):
    """A loaded checkpoint of one family."""

    info: ModelInfo
    device: torch.device

    def prepare(self, texts: Iterable[str]) -> None:
        """Told what will be said before anything else happens, so that text encoders can go before the rest comes."""
        ...

    def denoiser(self, conditions: Conditions, grid: LatentGrid, steps: int) -> Denoiser: ...

    def solver(self, name: str | None, steps: int, flow_shift: float | None) -> Solver: ...

    def decode(self, chunks: Iterable[Tensor], chunk: int = 1) -> Iterator[Tensor]:
        """Final latents [1, C, t, H, W], in order → frames [f, 3, height, width] in [0, 1], streamed."""
        ...

    def encode_video(self, frames: Tensor) -> Tensor:
        """Pixel frames uint8 [F, H, W, 3] → latents [1, C, T, H, W] fp32, where final latents live: `decode`'s inverse.

        The mean of the VAE's posterior, nothing drawn. F is n·stride + 1 and T is lead_pad + n + 1.
        """
        ...

    def to_model(self, x: Tensor) -> Tensor:
        """[1, C, T, H, W] → the transformer's own layout."""
        ...

    def from_model(self, x: Tensor, grid: LatentGrid) -> Tensor: ...


class AttentionEngine(Protocol):
    """One kernel library. `supports` names plan classes; `probe` returns None or the reason why it cannot run here."""

    name: str
    supports: frozenset[type]

    def probe(self, device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None: ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float = 1.0) -> tuple[Tensor, Tensor]: ...


__all__ = [
    "CAPABILITIES",
    "AttentionEngine",
    "Conditions",
    "Context",
    "Denoiser",
    "Level",
    "Method",
    "MethodInfo",
    "Model",
    "PromptSchedule",
    "Setting",
    "Solver",
]
