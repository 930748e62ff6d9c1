"""LTX-Video as a denoiser: how its transformer is called and patched. Everything else is shared."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from diffusers import LTXVideoTransformer3DModel
from torch import Tensor

from longgen.models.denoise import Job
from longgen.models.images import check_size, hold_first
from longgen.models.ltx.patching import Coordinates, CrossProcessor, SelfProcessor, installed, text_mask
from longgen.models.pipeline import PipelineDenoiser
from longgen.protocols import Conditions
from longgen.types import Call, LatentGrid, Patch

if TYPE_CHECKING:
    from longgen.models.ltx.model import LTXModel


class LTXDenoiser(PipelineDenoiser):
    """An LTX-Video checkpoint conditioned on prompts, and on an image as its clean first latent."""

    model: LTXModel
    processors: ClassVar[tuple[type[SelfProcessor], type[CrossProcessor]]] = (SelfProcessor, CrossProcessor)

    def __init__(self, model: LTXModel, conditions: Conditions, grid: LatentGrid, steps: int) -> None:
        super().__init__(model, conditions, steps)
        self.fps = conditions.fps or model.info.fps
        self._first: Tensor | None = None
        if conditions.image is not None:
            check_size(conditions.image, grid, model.info.spatial)
            self._first = model.encode_video(conditions.image[None])

    def placed(self, call: Call) -> Call:
        return call if self._first is None else hold_first(call, self._first)

    def predict(self, transformer: LTXVideoTransformer3DModel, x: Tensor, jobs: Sequence[Job]) -> Tensor:
        info, text = self.info, self.tokens(jobs)
        frames, height, width = grid = self.stage.sites[0].grid
        coordinates = self.model.coordinates(grid, self.fps) if self.model.conditions else None
        out = transformer(
            hidden_states=self.model.to_model(x),
            encoder_hidden_states=text,
            timestep=self.timesteps(jobs, per_token=False),
            encoder_attention_mask=text_mask(text),
            num_frames=frames,
            height=height,
            width=width,
            video_coords=None if coordinates is None else coordinates.expand(len(jobs), -1, -1),
            rope_interpolation_scale=(info.stride / self.fps, info.spatial, info.spatial),
            return_dict=False,
        )[0]
        p_t, p, _ = info.patch
        return self.model.pipe._unpack_latents(out, frames, height, width, p, p_t)

    def install(
        self, transformer: LTXVideoTransformer3DModel, patch: Patch, attention: bool
    ) -> AbstractContextManager[Coordinates]:
        seconds = partial(self.model.seconds, fps=self.fps)
        return installed(transformer, patch, self.stage, attention, seconds, *self.processors)
