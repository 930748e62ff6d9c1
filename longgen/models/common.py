"""What all families share of loading and running a diffusers pipeline: device, dtype, solver, texts, encoding frames.

Knows pipelines as bags of components. Does not know families.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from torch import Tensor
from transformers.utils import logging as transformers_logging

from longgen.errors import BadInput
from longgen.models import options as load_options
from longgen.models import single, solvers
from longgen.models.describe import Files, check_weights, read_folder, read_overrides
from longgen.models.files import stored_dtype
from longgen.models.parallel import Share, split
from longgen.types import Attend, LoadOptions, ModelInfo

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float16": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
}


def pick_device(name: str) -> torch.device:
    """The device of that name; BadInput when it is not there."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BadInput(f"unknown device {name!r}; valid: cpu, cuda, cuda:N, mps") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise BadInput(
            f"device {name!r} is not there; {torch.cuda.device_count()} CUDA devices found, cpu always works"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise BadInput("device 'mps' is not there; cpu always works")
    return device


def pick_dtype(path: Path, options: LoadOptions, device: torch.device) -> torch.dtype:
    """The dtype asked for; else fp32 on a CPU and the transformer's own elsewhere."""
    name = options.dtype
    if name is None and device.type == "cpu":
        name = "float32"
    elif name is None:
        single_file = options.transformers[:1]
        name = single.dtype(*single_file) if single_file else stored_dtype(path / "transformer", options.variant)
    if name not in DTYPES:
        raise BadInput(f"unknown dtype {name!r}; valid: {', '.join(DTYPES)}")
    return DTYPES[name]


LIGHT = 256 * 2**20
"""Bytes of text encoders up to which they stay beside the rest."""


@dataclass(frozen=True)
class Folder:
    """A checked model folder, whose pipeline is loaded in two parts: what reads texts, and what makes videos.

    Tokenizers, the scheduler and other small parts belong to both.
    """

    kind: type[DiffusionPipeline]
    path: Path
    options: LoadOptions
    device: torch.device
    dtype: torch.dtype
    parts: Mapping[str, str]  # the pipeline's components and their classes
    needed: frozenset[str] = frozenset()  # makers that the pipeline's class cannot be built without
    idle: frozenset[str] = frozenset()  # components that are never used, and so not loaded

    @property
    def light(self) -> bool:
        """Whether its text encoders are so small that making room for them, or loading them twice, is not worth it."""
        weights = (file for part in self.path.glob("text_encoder*") for file in part.glob("*.safetensors"))
        return sum(file.stat().st_size for file in weights) <= LIGHT

    def readers(self) -> DiffusionPipeline:
        """The pipeline without transformers and VAEs, as `encode_prompt` needs it."""
        without = dict.fromkeys(name for name in self.parts if _makes_videos(name) and name not in self.needed)
        pipe = self._load({"default": self.dtype}, **without)
        load_options.place(pipe, self.options, self.device)
        return pipe

    def makers(self) -> DiffusionPipeline:
        """The pipeline without text encoders. VAE and image encoder stay in fp32, as the former's decoder needs it."""
        dtypes = {"default": self.dtype, "vae": torch.float32}
        dtypes |= {"image_encoder": torch.float32} if "image_encoder" in self.parts else {}
        quantisation = load_options.quantisation(self.options.quantize, self.device)
        parts = dict.fromkeys(name for name in self.parts if name.startswith("text_encoder"))
        parts |= {
            name: single.load(file, self.parts[name], self.path / name, self.dtype)
            for name, file in zip(load_options.TRANSFORMERS, self.options.transformers, strict=False)
        }
        pipe = self._load(dtypes, quantization_config=quantisation, **parts)
        load_options.apply(pipe, self.options, self.device)
        return pipe

    def _load(self, dtypes: dict[str, torch.dtype], **parts: Any) -> DiffusionPipeline:
        """The pipeline with some components given, None for those that stay away."""
        with quiet():
            return self.kind.from_pretrained(
                self.path,
                **dict.fromkeys(self.idle & self.parts.keys()) | parts,
                dtype=dtypes,
                variant=self.options.variant,
                use_safetensors=True,
                local_files_only=True,
            )


def _makes_videos(name: str) -> bool:
    return name.startswith("transformer") or name.endswith("vae") or name == "image_encoder"


def load_pipeline(
    kind: type[DiffusionPipeline],
    path: Path,
    options: LoadOptions,
    needed: frozenset[str] = frozenset(),
    idle: frozenset[str] = frozenset(),
) -> Folder:
    """A folder whose weights were checked, ready to be loaded part by part.

    Args:
        needed: makers of videos that the pipeline's class cannot be built without.
        idle: components that are never used.

    Raises:
        BadInput: missing, truncated or pickled weights; options that cannot be carried out here.
    """
    device = pick_device(options.device)
    load_options.check(options, device)
    files = read_folder(path)
    parts = {name: own for name in files.index if (own := files.class_of(name)) is not None}
    experts = [name for name in load_options.TRANSFORMERS if name in parts]
    single.check(options.transformers, [parts[name] for name in experts])
    check_weights(path, files, options.variant, but=[*experts[: len(options.transformers)], *idle])
    return Folder(kind, path, options, device, pick_dtype(path, options, device), parts, needed, idle)


@contextmanager
def quiet() -> Iterator[None]:
    """No loading bars from the libraries; their settings come back."""
    modules = (diffusers_logging, transformers_logging)
    shown = [module for module in modules if module.is_progress_bar_enabled()]
    for module in shown:
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module in shown:
            module.enable_progress_bar()


def collect(device: torch.device) -> None:
    """Weights that nobody holds go now: pipelines refer to themselves in circles."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def files_of(pipe: DiffusionPipeline) -> Files:
    """A pipeline in hand, described as its folder would be."""
    configs = {
        name: dict(component.config)
        for name, component in pipe.components.items()
        if hasattr(component, "config") and hasattr(component.config, "keys")
    }
    tokenizer = getattr(pipe, "tokenizer", None)
    if tokenizer is not None:
        configs["tokenizer"] = {"model_max_length": tokenizer.model_max_length}
    origin = str(getattr(pipe, "name_or_path", "") or "")
    overrides = read_overrides(Path(origin)) if origin else {}
    index: dict[str, Any] = {**dict(pipe.config), "_class_name": type(pipe).__name__}
    index |= {
        n: (type(c).__module__.split(".")[0], type(c).__name__) for n, c in pipe.components.items() if c is not None
    }
    modules = {n: c for n, c in pipe.components.items() if isinstance(c, torch.nn.Module)}
    weights = {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}
    return Files(origin or type(pipe).__name__, index, configs, overrides, weights)


class PipelineModel:
    """A checkpoint around a diffusers pipeline; families say which, and add the denoiser and the decoder.

    A pipeline in hand is used as it is. A folder's text encoders are loaded when texts are to be read, and dropped
    before the transformers and the VAE load: the two are never in memory together, but where a text is new to a
    denoiser that `prepare` was not told of, or the text encoders are light.
    """

    needed: ClassVar[frozenset[str]] = frozenset()  # see `Folder`
    idle: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, info: ModelInfo, source: Any, options: LoadOptions) -> None:
        """
        Args:
            source: a pipeline in hand, or a `Folder`.
        """
        self._folder = source if isinstance(source, Folder) else None
        self.info = info if self._folder else replace(info, weights=files_of(source).weights)
        self.options = options
        self._pipe: Any = None if self._folder else source
        self._readers: Any = None
        self._kept: Any = None  # light readers, for the next text
        self._texts: dict[str, Tensor] = {}
        self.device = self._folder.device if self._folder else torch.device(source._execution_device)
        self._engine: Any = None
        self._share: Share | None = None

    @staticmethod
    def describe(files: Files) -> ModelInfo:
        """What the family's configs say."""
        raise NotImplementedError

    @staticmethod
    def kind(info: ModelInfo, path: Path) -> type[DiffusionPipeline]:
        """The class of a folder's pipeline."""
        raise NotImplementedError

    @classmethod
    def load(cls, info: ModelInfo, path: Path, options: LoadOptions) -> Self:
        """The model in a folder."""
        return cls(info, load_pipeline(cls.kind(info, path), path, options, cls.needed, cls.idle), options)

    @classmethod
    def from_pipeline(cls, pipe: Any) -> Self:
        """A model around a pipeline in hand, which is used as it is and comes back unpatched."""
        return cls(cls.describe(files_of(pipe)), pipe, LoadOptions(device=str(pipe._execution_device)))

    @property
    def pipe(self) -> Any:
        """The pipeline: while texts are read the part that reads them, else the part that makes videos."""
        if self._readers is not None:
            return self._readers
        if self._pipe is None:
            assert self._folder is not None
            self._pipe = self._folder.makers()
            if self.options.parallel == "ulysses":
                self._share = split(self.experts, self.device)
        return self._pipe

    @property
    def vae(self) -> Any:
        """The VAE for those who call its parts by hand: offloading brings the weights at its own methods only."""
        vae = self.pipe.vae
        hook = getattr(vae, "_hf_hook", None)
        if hook is not None:
            hook.pre_forward(vae)
        return vae

    @property
    def dtype(self) -> torch.dtype:
        """What the transformer computes in."""
        return self._folder.dtype if self._folder else self._pipe.transformer.dtype

    def prepare(self, texts: Iterable[str]) -> None:
        """Of a folder: encodes texts that are new. What makes videos goes first and is loaded again, unless the text
        encoders are light. A pipeline in hand reads its texts when a denoiser needs them."""
        texts = list(texts)
        if self._folder and not self._texts.keys() >= set(texts):
            if not self._folder.light:
                self._pipe = None
                collect(self.device)
            self.read(texts)

    def read(self, texts: Iterable[str]) -> None:
        """Encodes texts that are new and keeps them, on the CPU. A folder's text encoders come for that and go."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if not new:
            return
        self._readers = (self._kept or self._folder.readers()) if self._folder else None
        try:
            self._texts |= {text: self.encode(text).cpu() for text in new}
        finally:
            if self._readers is not None:
                self._readers.maybe_free_model_hooks()
            self._kept = self._readers if self._folder and self._folder.light else None
            self._readers = None
        if self._folder:
            collect(self.device)

    def text(self, text: str) -> Tensor:
        """What `encode` makes of a text, kept from the first time on."""
        self.read([text])
        return self._texts[text].to(self.device)

    @property
    def engine(self) -> Any:
        """The attention engine that serves methods, chosen when first needed."""
        if self._engine is None:
            from longgen.attention.choose import choose

            self._engine = choose(self.options.attention, self.device, self.dtype, self.info.head_dim)
        return self._engine

    @property
    def attend(self) -> Attend:
        return self.engine.attend

    @property
    def attention(self) -> str:
        """Name of the engine, for the sidecar."""
        return self.engine.name

    @property
    def own_attention(self) -> bool:
        """Whether the engine serves self-attention even where no method asks for it; otherwise diffusers' own does."""
        return self.options.attention not in {"auto", "sdpa"} or self.options.parallel == "ulysses"

    @property
    def share(self) -> Share | None:
        """This process's part of every pass where several processes run it together; known once transformers load."""
        if self.options.parallel == "ulysses":
            _ = self.pipe
        return self._share

    @property
    def revision(self) -> str | None:
        """Commit of a checkpoint that lies in the hub's cache (…/snapshots/<commit>)."""
        origin = Path(str(self.pipe.name_or_path or ""))
        return origin.name if origin.parent.name == "snapshots" else None

    @property
    def experts(self) -> list[Any]:
        """The transformers, high noise first."""
        return load_options.transformers(self.pipe)

    @torch.no_grad()
    def encode(self, text: str) -> Tensor:
        """[1, L, D] in the transformer's dtype, padded as the family's pipeline pads."""
        embeds, *_ = self.pipe.encode_prompt(
            text, do_classifier_free_guidance=False, max_sequence_length=self.info.text_tokens, device=self.device
        )
        return embeds.to(self.dtype)

    def normalise(self, z: Tensor) -> Tensor:
        """The VAE's latents → the transformer's."""
        raise NotImplementedError

    @torch.no_grad()
    def encode_video(self, frames: Tensor) -> Tensor:
        """Pixel frames uint8 [F, H, W, 3] → latents [1, C, T, H, W] fp32, where final latents live: `decode`'s inverse.

        The mean of the VAE's posterior, nothing drawn. The VAE works through time in its own pieces. Latents that lead
        a clip and are never decoded repeat the first, as CogVideoX 1.5 was trained.

        Raises:
            BadInput: F is not n·stride + 1, or the size is not a multiple of the VAE's.
        """
        info, (count, height, width) = self.info, frames.shape[:3]
        if count < 1 or (count - 1) % info.stride:
            raise BadInput(f"{info.id} encodes clips of n·{info.stride} + 1 frames; got {count}")
        if height % info.spatial or width % info.spatial:
            raise BadInput(f"{info.id} encodes sizes in multiples of {info.spatial}; got {height}×{width}")
        z = self.encode_pixels(self.pixels(frames))
        return torch.cat([z[:, :, : info.lead_pad], z], dim=2)

    def pixels(self, frames: Tensor) -> Tensor:
        """uint8 [F, H, W, 3] → [1, 3, F, H, W] in [−1, 1] on the model's device."""
        return frames.to(self.device).permute(3, 0, 1, 2)[None].float() / 255 * 2 - 1

    @torch.no_grad()
    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """[1, 3, F, H, W] in [−1, 1] → latents [1, C, T, H, W] fp32 without leading ones."""
        vae = self.pipe.vae
        return self.normalise(vae.encode(pixels.to(vae.dtype)).latent_dist.mode().float())

    def frames(self, chunks: Iterable[Tensor], chunk: int) -> Iterator[Tensor]:
        """The family's part of `decode`."""
        raise NotImplementedError

    def decode(self, chunks: Iterable[Tensor], chunk: int = 1) -> Iterator[Tensor]:
        """Final latents [1, C, t, H, W], in order → frames [f, 3, height, width] in [0, 1], streamed.

        Args:
            chunk: latents per decoder call, where the decoder's arithmetic leaves it a choice.
        """
        try:
            yield from self.frames(chunks, chunk)
        finally:
            self.pipe.maybe_free_model_hooks()  # a run is over: offloaded weights go, caches are emptied

    @property
    def train_steps(self) -> int:
        return int(self.pipe.scheduler.config.num_train_timesteps)

    def solver(self, name: str | None, steps: int, flow_shift: float | None) -> solvers.SchedulerSolver:
        """A step rule by name over the checkpoint's schedule; None for its own."""
        shift = flow_shift if flow_shift is not None else self.info.flow_shift
        own = solvers.shift_of(self.pipe.scheduler.config)
        return solvers.make(self.pipe.scheduler, name, steps, None if shift == own else shift)

    def to_model(self, x: Tensor) -> Tensor:
        """[1, C, T, H, W] is the transformer's own layout unless a family says otherwise."""
        return x

    def from_model(self, x: Tensor, grid: Any) -> Tensor:
        return x
