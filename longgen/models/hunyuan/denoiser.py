"""HunyuanVideo as a denoiser: how its transformer is called and patched. Everything else is shared.

Guidance is a number that the network was distilled to understand: one run per call, and no negative prompt. Only a
checkpoint without that input has two sides of guidance, as HunyuanVideoPipeline's `true_cfg_scale` does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from diffusers import HunyuanVideoTransformer3DModel
from torch import Tensor

from longgen.errors import BadInput
from longgen.models.denoise import Job
from longgen.models.hunyuan.patching import Positions, installed
from longgen.models.hunyuan.text import unpack
from longgen.models.onetext import OneText
from longgen.models.pipeline import PipelineDenoiser
from longgen.protocols import Conditions
from longgen.types import Call, Patch

if TYPE_CHECKING:
    from longgen.models.hunyuan.model import HunyuanModel


class HunyuanDenoiser(PipelineDenoiser):
    """A HunyuanVideo checkpoint conditioned on prompts, one text per call."""

    model: HunyuanModel
    prompts: OneText

    def __init__(self, model: HunyuanModel, conditions: Conditions, steps: int) -> None:
        one = OneText(conditions.prompts, model.info.variant)
        super().__init__(model, replace(conditions, prompts=one), steps)

    def predict(self, transformer: HunyuanVideoTransformer3DModel, x: Tensor, jobs: Sequence[Job]) -> Tensor:
        pooled, words, mask = unpack(self.tokens(jobs), self.model.pooled_width)
        used = mask.any(dim=0)  # what is padding in every row is not computed at all
        scales = [self.prompts.scale(job.call.frames) for job in jobs]
        return transformer(
            hidden_states=x,
            timestep=self.timesteps(jobs, per_token=False).float(),
            encoder_hidden_states=words[:, used],
            encoder_attention_mask=mask[:, used].to(x.dtype),
            pooled_projections=pooled,
            guidance=torch.tensor(scales, device=x.device, dtype=x.dtype) * 1000.0,
            return_dict=False,
        )[0]

    def install(
        self, transformer: HunyuanVideoTransformer3DModel, patch: Patch, attention: bool
    ) -> AbstractContextManager[Positions]:
        if patch.cross is not None:
            raise BadInput(f"{self.info.variant} has no text attention to change: {self.info.refusals['cross_text']}")
        return installed(transformer, patch, self.stage, self.info.rope)

    def _check(self, calls: Sequence[Call]) -> None:
        super()._check(calls)
        if not all(call.level.uniform for call in calls):
            raise BadInput(f"one noise level per latent is not possible: {self.info.refusals['per_latent_level']}")

    def _guidance(self, call: Call) -> float | Tensor | None:
        return None if self.info.embedded_guidance else super()._guidance(call)
