"""SkyReels-V2 as a denoiser. Its blocks and rotary tables are built like Wan's and wear the same patches.

Diffusion forcing gives every latent its own timestep. A block-causal mask (`num_frame_per_block` > 1) becomes a plan
of attention here: the transformer's own is S × S numbers and exists only for whole blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace

import torch
from diffusers import SkyReelsV2DiffusionForcingPipeline, SkyReelsV2Transformer3DModel
from torch import Tensor

from longgen.models.common import PipelineModel
from longgen.models.denoise import Job
from longgen.models.pipeline import PipelineDenoiser
from longgen.models.wan.patching import Tables, installed
from longgen.protocols import Conditions
from longgen.types import Attend, FrameWindow, LogitsHook, Patch, Plan, Site


class SkyReelsDenoiser(PipelineDenoiser):
    """A SkyReels-V2 checkpoint conditioned on prompts."""

    def __init__(self, model: PipelineModel, conditions: Conditions, steps: int) -> None:
        super().__init__(model, conditions, steps)
        self.forcing = isinstance(model.pipe, SkyReelsV2DiffusionForcingPipeline)
        self.block = int(model.pipe.transformer.config.num_frame_per_block)
        self.rate = (
            0 if (conditions.fps or model.info.fps) == 16 else 1
        )  # the network knows 16 and 24 frames per second

    def predict(self, transformer: SkyReelsV2Transformer3DModel, x: Tensor, jobs: Sequence[Job]) -> Tensor:
        forcing = self.forcing or not all(job.call.level.uniform for job in jobs)
        timesteps = self._per_latent(jobs) if forcing else self.timesteps(jobs, per_token=False)
        rates = [self.rate] * len(jobs)
        with self._causal(transformer):
            return transformer(
                x, timesteps, self.tokens(jobs), enable_diffusion_forcing=forcing, fps=rates, return_dict=False
            )[0]

    def _per_latent(self, jobs: Sequence[Job]) -> Tensor:
        """Timesteps [B, T]."""
        rows = [job.call.level.spread(len(job.call.frames)).t.float() for job in jobs]
        return torch.stack(rows).to(self.model.device)

    def install(
        self, transformer: SkyReelsV2Transformer3DModel, patch: Patch, attention: bool
    ) -> AbstractContextManager[Tables]:
        if self.block > 1:  # methods that change attention were refused, so the place of the logits hook is free
            patch, attention = replace(patch, logits=block_causal(self.block)), True
        return installed(transformer, patch, self.stage, attention)

    @contextmanager
    def _causal(self, transformer: SkyReelsV2Transformer3DModel) -> Iterator[None]:
        """The block-causal mask as a patch, during which the transformer makes none of its own."""
        if self.block == 1:
            yield
            return
        with ExitStack() as stack:
            if not self._worn:
                stack.enter_context(self.install(transformer, Patch(), attention=True))
            stack.callback(transformer._set_ar_attention, self.block)
            transformer._set_ar_attention(1)
            yield


def block_causal(block: int) -> LogitsHook:
    """Every latent sees its own block of `block` latents and all blocks before it; the last block may be short."""

    def hook(site: Site, attend: Attend) -> Attend:
        frames = site.grid[0]
        spans = tuple((0, min(frames, (i // block + 1) * block)) for i in range(frames))
        plan = FrameWindow(site.tokens, spans)

        def masked(q: Tensor, k: Tensor, v: Tensor, _: Plan, scale: float = 1.0) -> tuple[Tensor, Tensor]:
            return attend(q, k, v, plan, scale)

        return masked

    return hook
