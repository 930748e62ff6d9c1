"""HunyuanVideo-1.5 as a denoiser: how its transformer is called and patched. Everything else is shared."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from diffusers import HunyuanVideo15Transformer3DModel
from torch import Tensor

from longgen.errors import BadInput
from longgen.models.denoise import Job
from longgen.models.hunyuan.denoiser import HunyuanDenoiser
from longgen.models.hunyuan.patching import Positions
from longgen.models.hunyuan15.info import GLYPHS
from longgen.models.hunyuan15.patching import installed
from longgen.models.hunyuan15.text import unpack
from longgen.types import Patch


class Hunyuan15Denoiser(HunyuanDenoiser):
    """A HunyuanVideo-1.5 checkpoint conditioned on prompts, one text per call.

    Our processors serve every call, patched or not: the model's own need an S × S mask, 12 GB at 121 frames of 720p.
    """

    def predict(self, transformer: HunyuanVideo15Transformer3DModel, x: Tensor, jobs: Sequence[Job]) -> Tensor:
        config, blank = transformer.config, torch.zeros_like(x)
        (words, seen), (glyphs, marked) = unpack(self.tokens(jobs), GLYPHS, config.text_embed_2_dim)
        with nullcontext() if self._worn else self.install(transformer, Patch(), attention=True):
            return transformer(
                hidden_states=torch.cat([x, blank, blank[:, :1]], dim=1),  # no image, and so no mask of one
                timestep=self.timesteps(jobs, per_token=False).to(x.dtype),
                encoder_hidden_states=words,
                encoder_attention_mask=seen,
                encoder_hidden_states_2=glyphs,
                encoder_attention_mask_2=marked,
                image_embeds=x.new_zeros(len(jobs), 0, config.image_embed_dim),
                return_dict=False,
            )[0]

    def install(
        self, transformer: HunyuanVideo15Transformer3DModel, patch: Patch, attention: bool
    ) -> AbstractContextManager[Positions]:
        if patch.cross is not None:
            raise BadInput(f"{self.info.variant} has no text attention to change: {self.info.refusals['cross_text']}")
        return installed(transformer, patch, self.stage, self.info.rope)
