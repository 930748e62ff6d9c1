"""CogVideoX as a denoiser: how its transformer is called and patched. Everything else is shared."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor

from longgen.errors import BadInput
from longgen.models.cogvideox.levels import level_per_latent
from longgen.models.cogvideox.patching import Rotary, installed
from longgen.models.denoise import Job
from longgen.models.images import beside, check_size
from longgen.models.onetext import OneText
from longgen.models.pipeline import PipelineDenoiser
from longgen.protocols import Conditions
from longgen.types import Call, LatentGrid, Level, Patch, Site, per_latent

if TYPE_CHECKING:
    from longgen.models.cogvideox.model import CogVideoXModel


OFFSET = 2.0  # what CogVideoXImageToVideoPipeline always passes


class CogVideoXDenoiser(PipelineDenoiser):
    """A CogVideoX checkpoint conditioned on prompts, and on an image where it was trained to be."""

    model: CogVideoXModel

    def __init__(self, model: CogVideoXModel, conditions: Conditions, grid: LatentGrid, steps: int) -> None:
        super().__init__(model, replace(conditions, prompts=OneText(conditions.prompts, model.info.variant)), steps)
        self._image: Tensor | None = None
        if conditions.image is not None:
            check_size(conditions.image, grid, model.info.spatial)
            first = model.encode_image(conditions.image)
            self._image = torch.cat([first, torch.zeros_like(first)], dim=2)  # nothing beside all latents but the first

    def clean(self, x: Tensor, level: Level, output: Tensor) -> Tensor:
        """z = α·x − σ·v."""
        return per_latent(level.alpha, x) * x - per_latent(level.sigma, x) * output

    def _check(self, calls: Sequence[Call]) -> None:
        super()._check(calls)
        unit = self.info.patch[0]
        for call in calls:
            if call.x.shape[2] % unit:
                raise BadInput(
                    f"{self.info.id} takes calls of whole tokens, {unit} latents each; got {call.x.shape[2]}"
                )
            if not call.level.uniform and "per_latent_level" in self.info.refusals:
                raise BadInput(
                    f"{self.info.id} takes one level per call: {self.info.refusals['per_latent_level']}; "
                    "use a method without levels per latent: windows, extend"
                )

    def _site(self, job: Job) -> Site:
        return replace(super()._site(job), text=job.text.tokens.shape[1])

    def predict(self, transformer: CogVideoXTransformer3DModel, x: Tensor, jobs: Sequence[Job]) -> Tensor:
        rotary = self.model.rotary(x)
        if rotary is not None:
            for worn in self._worn:
                assert isinstance(worn, Rotary)
                rotary = worn.tables(rotary, self.stage.sites[0].tokens)
        t = self.timesteps(jobs, per_token=False)
        context: AbstractContextManager[None] = nullcontext()
        if not jobs[0].call.level.uniform:
            levels = [job.call.level for job in jobs]
            t = torch.cat([level.t for level in levels]).to(x.device)
            cleanest = torch.stack([level.sigma.argmin() for level in levels]).to(x.device)
            context = level_per_latent(transformer, x.shape[2], cleanest)
        if self._image is not None:
            shown = torch.cat([beside(self._image, job.call.frames) for job in jobs])
            x = torch.cat([x, shown.to(x)], dim=1)
        with context:
            out = transformer(
                hidden_states=self.model.to_model(x),
                encoder_hidden_states=self.tokens(jobs),
                timestep=t,
                ofs=None if transformer.config.ofs_embed_dim is None else x.new_full((1,), OFFSET),
                image_rotary_emb=rotary,
                return_dict=False,
            )[0]
        return out.transpose(1, 2)

    def install(
        self, transformer: CogVideoXTransformer3DModel, patch: Patch, attention: bool
    ) -> AbstractContextManager[Rotary]:
        return installed(transformer, patch, self.stage, attention, self.info)
