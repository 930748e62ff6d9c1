"""Wan as a denoiser: how its transformers are called and patched. Everything else is shared."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from diffusers import WanTransformer3DModel
from torch import Tensor

from longgen.models.denoise import Job
from longgen.models.pipeline import PipelineDenoiser
from longgen.models.wan.patching import Tables, installed
from longgen.types import Patch


class WanDenoiser(PipelineDenoiser):
    """A Wan checkpoint conditioned on prompts."""

    def predict(self, transformer: WanTransformer3DModel, x: Tensor, jobs: Sequence[Job]) -> Tensor:
        timesteps = self.timesteps(jobs, per_token=bool(self.model.pipe.config.expand_timesteps))
        return transformer(x, timesteps, self.tokens(jobs), return_dict=False)[0]

    def install(
        self, transformer: WanTransformer3DModel, patch: Patch, attention: bool
    ) -> AbstractContextManager[Tables]:
        return installed(transformer, patch, self.stage, attention)
