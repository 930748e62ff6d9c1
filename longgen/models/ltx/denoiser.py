"""LTX-Video as a denoiser: how its transformer is called and patched. Everything else is shared."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from diffusers import LTXVideoTransformer3DModel
from torch import Tensor

from longgen.models.denoise import Job
from longgen.models.ltx.patching import Coordinates, installed, text_mask
from longgen.models.pipeline import PipelineDenoiser
from longgen.protocols import Conditions
from longgen.types import Patch

if TYPE_CHECKING:
    from longgen.models.ltx.model import LTXModel


class LTXDenoiser(PipelineDenoiser):
    """An LTX-Video checkpoint conditioned on prompts."""

    model: LTXModel

    def __init__(self, model: LTXModel, conditions: Conditions, steps: int) -> None:
        super().__init__(model, conditions, steps)
        self.fps = conditions.fps or model.info.fps

    def predict(self, transformer: LTXVideoTransformer3DModel, x: Tensor, jobs: Sequence[Job]) -> Tensor:
        info, text = self.info, self.tokens(jobs)
        frames, height, width = self.stage.sites[0].grid
        out = transformer(
            hidden_states=self.model.to_model(x),
            encoder_hidden_states=text,
            timestep=self.timesteps(jobs, per_token=False),
            encoder_attention_mask=text_mask(text),
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(info.stride / self.fps, info.spatial, info.spatial),
            return_dict=False,
        )[0]
        p_t, p, _ = info.patch
        return self.model.pipe._unpack_latents(out, frames, height, width, p, p_t)

    def install(
        self, transformer: LTXVideoTransformer3DModel, patch: Patch, attention: bool
    ) -> AbstractContextManager[Coordinates]:
        return installed(transformer, patch, self.stage, attention, self.info.stride / self.fps)
