"""`longgen.generate(…)` and the session behind every command: a model loaded once, runs carried out on it.

Knows how requests become plans, plans become jobs. Prints nothing; the command line adds progress bars.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from longgen.config import Request, validated
from longgen.errors import BadInput
from longgen.media.write import check_target
from longgen.models import describe
from longgen.protocols import Model, PromptSchedule
from longgen.runtime import plan as planning
from longgen.runtime import sidecar, sources
from longgen.runtime.plan import Plan
from longgen.runtime.run import Job, Outcome, execute
from longgen.runtime.sample import conditions, texts
from longgen.types import LoadOptions, ModelInfo, Timeline


@dataclass(frozen=True)
class Result:
    """What `generate` returns.

    Args:
        frames: uint8 [F, H, W, 3], exactly the frames asked for.
        latents: final latents [1, C, T, H, W] fp32, before de-normalisation.
        sidecar: content of the JSON that lies beside a written video.
        path: the video file, if one was asked for.
    """

    frames: NDArray[np.uint8]
    latents: Tensor
    sidecar: dict[str, Any]
    path: Path | None = None


class Session:
    """A model, described at once and loaded when first needed; reused over any number of runs."""

    def __init__(self, model: str | Path | Any = "shapes", options: LoadOptions | None = None) -> None:
        """
        Args:
            model: "shapes", a folder, a hub id, or a diffusers pipeline in hand (used as it is, handed back unpatched).
        """
        self.options = options or LoadOptions()
        self._source = model
        self._model: Model | None = None
        self._hashes: dict[str, str] | None = None
        if isinstance(model, str | Path):
            self.info: ModelInfo = describe.describe(model)
        else:
            from longgen.models.common import files_of

            self._model = describe.family(files_of(model)).from_pipeline(model)
            self.info = self._model.info

    @property
    def folder(self) -> Path | None:
        """Where the weights lie; None for a pipeline in hand. A hub id is fetched here, not before."""
        return describe.resolve(self._source) if isinstance(self._source, str | Path) else None

    @property
    def model(self) -> Model:
        """The loaded model."""
        if self._model is None:
            folder = self.folder
            assert folder is not None
            files = describe.read_folder(folder, str(self._source))
            self._model = describe.family(files).load(self.info, folder, self.options)
        return self._model

    @property
    def hashes(self) -> dict[str, str]:
        """Hashes of the model folder's files, taken once."""
        if self._hashes is None:
            single = [Path(file) for file in self.options.transformers]
            self._hashes = sidecar.file_hashes(self.folder) | sidecar.hashes_of(single)
        return self._hashes

    @property
    def model_hash(self) -> str:
        """One hash for the weights, as every recorded row carries it."""
        return sidecar.weights_hash(self.hashes)

    def plan(self, request: Request, timeline: Timeline | None = None) -> Plan:
        """The request with this model's defaults, checked against it. Loads no weights."""
        plan = planning.make(request, self.info, timeline)
        if self.info.variant != "shapes":
            return plan
        from longgen.shapes import grammar

        strange = [s.prompt for s in plan.timeline.shots if grammar.find(s.prompt) is None]
        warned = [f"warning: {p!r} is outside what the embedded model knows: {grammar.vocabulary()}" for p in strange]
        return replace(plan, notes=(*plan.notes, *warned))

    def prepare(self, plans: Iterable[Plan], prompts: PromptSchedule | None = None) -> None:
        """Reads the texts of several runs at once, so that text encoders are loaded once for all of them."""
        self.model.prepare([text for plan in plans for text in texts(plan, conditions(plan, prompts).prompts)])

    def run(self, plan: Plan, job: Job, prompts: PromptSchedule | None = None) -> Outcome:
        """Carry out a plan; loads the model if it is not loaded."""
        media = sources.media(plan)
        return execute(plan, self.model, conditions(plan, prompts, **media), job, self.hashes)


def load_options(request: Request) -> LoadOptions:
    """How the request wants its model loaded; `auto` picks CUDA where there is one. BadInput for a missing device."""
    return LoadOptions(
        device=pick_device(request.device),
        dtype=request.dtype,
        attention=request.attention,
        offload=request.offload,
        layerwise_fp8=request.fp8,
        vae_tiling=request.vae_tiling,
        compile=request.compile,
        cache=request.cache,
        loras=request.lora,
        transformers=request.transformer,
        variant=request.variant,
        quantize=request.quantize,
        window_batch=request.window_batch,
        parallel=request.parallel,
    )


def pick_device(name: str) -> str:
    """A torch device name that exists on this machine."""
    import torch

    present = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        present.append("mps")
    if name == "auto":
        local = os.environ.get("LOCAL_RANK")  # one device per process under torchrun and accelerate
        return ("cuda" if local is None else f"cuda:{local}") if torch.cuda.is_available() else "cpu"
    if name not in present and not (name == "cuda" and torch.cuda.is_available()):
        raise BadInput(f"--device {name!r} is not on this machine; it has {', '.join(present)}")
    return name


def generate(
    prompt: str,
    model: str | Path | Any = "shapes",
    method: str = "auto",
    num_frames: int | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Result:
    """A long video from one prompt (`|` separates shots).

    Args:
        prompt: what the video shows.
        model: "shapes", a folder, a hub id, or a diffusers pipeline in hand.
        method: names of methods, composed with commas.
        num_frames: pixel frames; the model's native length by default.
        settings: {"method.key": value}.
        output: video file to write, with its sidecar; nothing is written by default.
        options: any other field of `longgen.config.Request`, such as seed, guidance_scale, num_inference_steps.
    Raises:
        BadInput: with one line that says what is wrong and what would be right.
    """
    named = model if isinstance(model, str | Path) else "pipeline"
    values = {"prompt": prompt, "model": str(named), "method": method, "num_frames": num_frames, **options}
    request = validated({**values, "set": dict(settings or {})})
    target = None if output is None else check_target(output, overwrite, None, None)
    session = Session(model, load_options(request))
    outcome = session.run(session.plan(request), Job(target=target, keep=True))
    assert outcome.frames is not None and outcome.latents is not None
    return Result(outcome.frames, outcome.latents, outcome.sidecar, None if target is None else target.path)
