"""A loaded LTX-Video checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import LTXConditionPipeline, LTXPipeline
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift
from diffusers.pipelines.ltx.pipeline_ltx_condition import linear_quadratic_schedule
from torch import Tensor

from longgen.models import solvers
from longgen.models.common import PipelineModel
from longgen.models.files import read_json
from longgen.models.ltx.denoiser import LTXDenoiser
from longgen.models.ltx.info import CONDITION, describe
from longgen.models.ltx.vae import normalise, stream_decode
from longgen.protocols import Conditions
from longgen.types import LatentGrid, ModelInfo


class LTXModel(PipelineModel):
    """LTX-Video 0.9.x: packed latents, free coordinates, a decoder that looks both ways.

    Pipelines differ in two things, in which a model follows its own. LTXPipeline places latent i at i·8 frames and lets
    the schedule shift with the length; LTXConditionPipeline places it at its first frame, max(0, i·8 − 7), and has a
    schedule that is linear at first and quadratic after.
    """

    describe = staticmethod(describe)

    @staticmethod
    def kind(info: ModelInfo, path: Path) -> Any:
        condition = read_json(path / "model_index.json")["_class_name"] == CONDITION
        return LTXConditionPipeline if condition else LTXPipeline

    @property
    def conditions(self) -> bool:
        """Whether this is a checkpoint of LTXConditionPipeline."""
        return isinstance(self.pipe, LTXConditionPipeline)

    def seconds(self, latents: Tensor, fps: float) -> Tensor:
        """When latents [T] are in a clip, in seconds."""
        frames = latents * self.info.stride
        return (frames + 1 - self.info.stride if self.conditions else frames).clamp(min=0) / fps

    def coordinates(self, grid: tuple[int, int, int], fps: float) -> Tensor:
        """Seconds, rows and columns in pixels [1, 3, S] of the tokens of a call of (T, h, w) of them."""
        times = self.seconds(torch.arange(grid[0], dtype=torch.float32), fps)
        rows, columns = (torch.arange(n, dtype=torch.float32) * self.info.spatial for n in grid[1:])
        axes = torch.meshgrid(times, rows, columns, indexing="ij")
        return torch.stack([axis.flatten() for axis in axes])[None].to(self.device)

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
        if self.conditions and name in (None, "default"):
            sigmas = linear_quadratic_schedule(steps).double().numpy()
            return solvers.make(self.pipe.scheduler, name, steps, flow_shift, sigmas=sigmas)
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
        return LTXDenoiser(self, conditions, grid, steps)

    def frames(self, chunks: Iterable[Tensor], chunk: int) -> Iterator[Tensor]:
        return stream_decode(self.vae, chunks, chunk, self.device)

    def to_model(self, x: Tensor) -> Tensor:
        """[1, C, T, H, W] → tokens [1, S, C·p], as the pipeline packs them."""
        p_t, p, _ = self.info.patch
        return self.pipe._pack_latents(x, p, p_t)

    def from_model(self, x: Tensor, grid: LatentGrid) -> Tensor:
        p_t, p, _ = self.info.patch
        return self.pipe._unpack_latents(x, grid.frames // p_t, grid.height // p, grid.width // p, p, p_t)
