"""LTX-2's video as a denoiser: how its transformer is called and patched. Everything else is shared.

The transformer runs with its modalities isolated, as the authors' own code runs it for video alone: no attention leads
from sound to picture, so the sound that it must be given is one silent latent that changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import LTX2VideoTransformer3DModel
from torch import Tensor

from longgen.models.denoise import Job
from longgen.models.ltx.denoiser import LTXDenoiser
from longgen.models.ltx.patching import text_mask
from longgen.models.ltx2.patching import CrossProcessor, SelfProcessor


class LTX2Denoiser(LTXDenoiser):
    """An LTX-2 checkpoint conditioned on prompts."""

    processors = (SelfProcessor, CrossProcessor)

    def predict(self, transformer: LTX2VideoTransformer3DModel, x: Tensor, jobs: Sequence[Job]) -> Tensor:
        config, text = transformer.config, self.tokens(jobs)
        frames, height, width = self.stage.sites[0].grid
        told = config.caption_channels if config.use_prompt_embeddings else config.audio_cross_attention_dim
        noisiest = torch.stack([job.call.level.t.max() for job in jobs]).to(self.model.device)
        out = transformer(
            hidden_states=self.model.to_model(x),
            audio_hidden_states=x.new_zeros(len(jobs), 1, config.audio_in_channels),
            encoder_hidden_states=text,
            audio_encoder_hidden_states=x.new_zeros(len(jobs), 1, told),
            timestep=self.timesteps(jobs, per_token=False),
            audio_timestep=noisiest,
            sigma=noisiest,  # what text is modulated by from 2.3 on: one level per call
            encoder_attention_mask=text_mask(text),
            num_frames=frames,
            height=height,
            width=width,
            fps=self.fps,
            audio_num_frames=1,
            isolate_modalities=True,
            return_dict=False,
        )[0]
        p_t, p, _ = self.info.patch
        return self.model.pipe._unpack_latents(out, frames, height, width, p, p_t)
