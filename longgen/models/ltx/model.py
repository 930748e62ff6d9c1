"""A loaded LTX-Video checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import LTXPipeline
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift
from torch import Tensor

from longgen.models import solvers
from longgen.models.common import PipelineModel, files_of, load_pipeline
from longgen.models.ltx.denoiser import LTXDenoiser
from longgen.models.ltx.info import describe
from longgen.models.ltx.vae import normalise, stream_decode
from longgen.protocols import Conditions
from longgen.types import LatentGrid, LoadOptions, ModelInfo


class LTXModel(PipelineModel):
    """LTX-Video 0.9.x: packed latents, free coordinates, a decoder that looks both ways."""

    @classmethod
    def load(cls, info: ModelInfo, path: Path, options: LoadOptions) -> LTXModel:
        return cls(info, load_pipeline(LTXPipeline, path, options), options)

    @classmethod
    def from_pipeline(cls, pipe: Any) -> LTXModel:
        return cls(describe(files_of(pipe)), pipe, LoadOptions(device=str(pipe._execution_device)))

    @torch.no_grad()
    def encode(self, text: str) -> Tensor:
        """[1, L, D] in the transformer's dtype; rows that the pipeline would mask are zero."""
        embeds, mask, _, _ = self.pipe.encode_prompt(
            text, do_classifier_free_guidance=False, max_sequence_length=self.info.text_tokens, device=self.device
        )
        return (embeds * mask[..., None]).to(self.dtype)

    def solver(self, name: str | None, steps: int, flow_shift: float | None) -> solvers.SchedulerSolver:
        """The pipeline's own schedule *for the native length*, whatever the length of the video.

        LTXPipeline lets the shift grow with the number of tokens without bound: at four times the native length it is
        5·10⁴, at eight times the schedule is NaN. The shift that the checkpoint was trained with is the native one.
        """
        own = self.pipe.scheduler.config
        if not own.get("use_dynamic_shifting", False) or name not in (None, "default"):
            return super().solver(name, steps, flow_shift)
        height, width = self.info.native_size
        tokens = self.info.native_latents * (height // self.info.spatial) * (width // self.info.spatial)
        mu = calculate_shift(
            tokens,
            own.get("base_image_seq_len", 256),
            own.get("max_image_seq_len", 4096),
            own.get("base_shift", 0.5),
            own.get("max_shift", 1.15),
        )
        if flow_shift is not None:  # the shift is e^mu
            mu = float(np.log(flow_shift))
        return solvers.make(self.pipe.scheduler, name, steps, sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)

    def normalise(self, z: Tensor) -> Tensor:
        return normalise(self.pipe.vae, z)

    def denoiser(self, conditions: Conditions, grid: LatentGrid, steps: int) -> LTXDenoiser:
        return LTXDenoiser(self, conditions, steps)

    def decode(self, chunks: Iterable[Tensor], chunk: int = 1) -> Iterator[Tensor]:
        """Final latents [1, C, t, H, W], in order → frames [f, 3, height, width] in [0, 1], streamed."""
        try:
            yield from stream_decode(self.pipe.vae, chunks, chunk, self.device)
        finally:
            self.pipe.maybe_free_model_hooks()

    def to_model(self, x: Tensor) -> Tensor:
        """[1, C, T, H, W] → tokens [1, S, C·p], as the pipeline packs them."""
        p_t, p, _ = self.info.patch
        return self.pipe._pack_latents(x, p, p_t)

    def from_model(self, x: Tensor, grid: LatentGrid) -> Tensor:
        p_t, p, _ = self.info.patch
        return self.pipe._unpack_latents(x, grid.frames // p_t, grid.height // p, grid.width // p, p, p_t)
