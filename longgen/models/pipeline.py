"""A denoiser over a diffusers transformer: what families share of running jobs and wearing patches.

A family says how its transformer is called (`predict`) and how a patch is put on it (`install`). Knows models as
`PipelineModel`s; does not know any family.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from longgen.models.caches import StepCaches
from longgen.models.common import PipelineModel
from longgen.models.denoise import BaseDenoiser, Job
from longgen.models.patching import Stage
from longgen.protocols import Conditions
from longgen.types import Patch, Site


class Positions(Protocol):
    """Rotary positions of a patched transformer."""

    def place(self, frames: int) -> None:
        """Ready for calls of `frames` latents."""
        ...


class PipelineDenoiser(BaseDenoiser):
    """Adds forwards and patches to the base; families add `predict` and `install`."""

    def __init__(self, model: PipelineModel, conditions: Conditions, steps: int) -> None:
        self.model = model
        self.stage = Stage(model.attend)
        self._steps = steps
        self._worn: list[Positions] = []  # one per expert while a patch is on
        model.read([*conditions.prompts.texts, *([] if model.info.embedded_guidance else conditions.prompts.negatives)])
        self.stage.share = model.share
        self._caches = StepCaches(model.experts)
        super().__init__(model.info, conditions, model.train_steps)

    # the family's part
    def predict(self, transformer: Any, x: Tensor, jobs: Sequence[Job]) -> Tensor:
        """Network outputs for x [B, C, T, H, W] in the transformer's dtype, one row per job; same shape."""
        raise NotImplementedError

    def install(self, transformer: Any, patch: Patch, attention: bool) -> AbstractContextManager[Positions]:
        """Puts a patch on one transformer, with `attention` on its self-attention too, and takes it off."""
        raise NotImplementedError

    def by_latent(self, jobs: Sequence[Job]) -> bool:
        """Whether blocks see latents as entries of the batch; processors then bring those of a video together."""
        return False

    # the common part
    def encode(self, text: str) -> Tensor:
        return self.model.text(text)

    def forward(self, jobs: Sequence[Job]) -> list[Tensor]:
        transformer = self.model.experts[jobs[0].expert]
        x = torch.cat([job.call.x for job in jobs]).to(self.model.device, self.model.dtype)
        self.stage.enter(tuple(self._site(job) for job in jobs), tuple(job.text for job in jobs))
        with self._processors(transformer, jobs), self._caches.context(transformer, jobs, self._steps):
            for positions in self._worn:
                positions.place(x.shape[2])
            return list(self.predict(transformer, x, jobs).float().split(1))

    @contextmanager
    def patched(self, patch: Patch) -> Iterator[None]:
        """Installs the patch in every expert; an empty one leaves diffusers' own processors in place."""
        self._caches.check(patch)
        if patch.empty and not self.model.own_attention:
            yield
            return
        attention = self.model.own_attention or any((patch.attention, patch.logits, patch.kv))
        outer = self._worn
        with ExitStack() as stack:
            self._worn = [stack.enter_context(self.install(t, patch, attention)) for t in self.model.experts]
            try:
                yield
            finally:
                self._worn = outer

    @contextmanager
    def _processors(self, transformer: Any, jobs: Sequence[Job]) -> Iterator[None]:
        """What several texts in a call, latents as a batch or split passes need, where no patch has brought it."""
        split = self.stage.share is not None
        if self._worn or (self.stage.plain and not split and not self.by_latent(jobs)):
            yield
            return
        with self.install(transformer, Patch(), attention=split):
            yield

    def _site(self, job: Job) -> Site:
        call, (p_t, p_h, p_w) = job.call, self.info.patch
        frames, height, width = call.x.shape[2:]
        return Site(
            layer=0,
            layers=self.info.layers,
            branch=job.branch,
            expert=job.expert,
            level=call.level,
            frames=call.frames,
            grid=(frames // p_t, height // p_h, width // p_w),
            key=call.key,
            step=int(call.level.step.min()),
            steps=self._steps,
        )

    def timesteps(self, jobs: Sequence[Job], per_token: bool) -> Tensor:
        """[B], or [B, T·P] where latents have levels of their own or `per_token` asks for it."""
        if not per_token and all(job.call.level.uniform for job in jobs):
            return torch.stack([job.call.level.t for job in jobs]).to(self.model.device)
        rows = [
            job.call.level.spread(len(job.call.frames)).t.float().repeat_interleave(site.tokens)
            for job, site in zip(jobs, self.stage.sites, strict=True)
        ]
        every = torch.stack(rows).to(self.model.device)
        return every if self.stage.share is None else self.stage.share.tokens(every)

    def tokens(self, jobs: Sequence[Job]) -> Tensor:
        """[B, L, D]; shorter rows are padded with zeros, which their processors cut off again."""
        rows = [job.text.tokens for job in jobs]
        longest = max(row.shape[1] for row in rows)
        return torch.cat([pad(row, (0, 0, 0, longest - row.shape[1])) for row in rows])
