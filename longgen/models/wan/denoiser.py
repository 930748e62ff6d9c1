"""Wan as a denoiser: how its transformers are called and patched. Everything else is shared."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from longgen.core.noise import latent_noise
from longgen.models.denoise import Job
from longgen.models.images import at_one_level, check_size, hold_first, noisiest
from longgen.models.pipeline import PipelineDenoiser
from longgen.models.wan.image import Seen, see
from longgen.models.wan.patching import Tables, installed, latents_as_batch
from longgen.protocols import Conditions
from longgen.types import Call, LatentGrid, Level, Patch

if TYPE_CHECKING:
    from longgen.models.wan.model import WanModel


class WanDenoiser(PipelineDenoiser):
    """A Wan checkpoint conditioned on prompts, and on an image as its kind takes one.

    Image-to-video checkpoints see it beside the noise, and with it the known latents of a call, those below its highest
    level (`extend.condition=native`): the image of a clip that goes on. Wan2.2-TI2V has it as its clean first latent.
    """

    def __init__(self, model: WanModel, conditions: Conditions, grid: LatentGrid, steps: int) -> None:
        super().__init__(model, conditions, steps)
        self._noise = partial(latent_noise, grid, conditions.seed)
        self._seen: Seen | None = None
        self._first: Tensor | None = None
        if conditions.image is not None:
            check_size(conditions.image, grid, model.info.spatial)
            if model.info.needs_image:
                self._seen = see(model, conditions.image, grid.frames)
            else:
                self._first = model.encode_video(conditions.image[None])

    def placed(self, call: Call) -> Call:
        return call if self._first is None else hold_first(call, self._first)

    def predict(self, transformer: WanTransformer3DModel, x: Tensor, jobs: Sequence[Job]) -> Tensor:
        if self._seen is not None:
            return self._predict_seen(transformer, x, jobs, self._seen)
        if self.by_latent(jobs):
            levels = [job.call.level.spread(x.shape[2]).t for job in jobs]
            with latents_as_batch(transformer):
                return transformer(x, torch.cat(levels).to(x.device), self.tokens(jobs), return_dict=False)[0]
        timesteps = self.timesteps(jobs, per_token=self._per_token)
        return transformer(x, timesteps, self.tokens(jobs), return_dict=False)[0]

    @property
    def _per_token(self) -> bool:
        """Wan2.2-TI2V is given a timestep for every token, as its pipeline does it."""
        return bool(self.model.pipe.config.get("expand_timesteps"))

    def by_latent(self, jobs: Sequence[Job]) -> bool:
        if self._per_token or self.stage.share is not None or "per_latent_level" not in self.info.capabilities:
            return False
        return not all(job.call.level.uniform for job in jobs)

    def _predict_seen(self, transformer: WanTransformer3DModel, x: Tensor, jobs: Sequence[Job], seen: Seen) -> Tensor:
        shown = [at_one_level(job.call, self._noise) for job in jobs]
        noisy = torch.cat([call.x for call in shown]).to(x)
        shows = torch.cat([seen.of(job.call) for job in jobs]).to(x)
        timesteps = torch.stack([call.level.t for call in shown]).to(x.device)
        clip = None if seen.clip is None else seen.clip.expand(len(jobs), -1, -1)
        return transformer(torch.cat([noisy, shows], dim=1), timesteps, self.tokens(jobs), clip, return_dict=False)[0]

    def _experts(self, level: Level) -> Tensor:
        """Known latents go with the others, to the expert of their level."""
        return super()._experts(level if self._seen is None else noisiest(level)).expand_as(level.t)

    def install(
        self, transformer: WanTransformer3DModel, patch: Patch, attention: bool
    ) -> AbstractContextManager[Tables]:
        return installed(transformer, patch, self.stage, attention)
