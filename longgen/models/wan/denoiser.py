"""Wan as a denoiser: text encoding, one forward per job, patches in every expert.

Knows WanPipeline's conventions. Guidance, experts and text mixing are the base class's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from longgen.models.caches import StepCaches
from longgen.models.denoise import BaseDenoiser, Job
from longgen.models.wan.patching import Installed, Stage, installed
from longgen.protocols import Conditions
from longgen.types import LatentGrid, Patch, Site

if TYPE_CHECKING:
    from longgen.models.wan.model import WanModel


class WanDenoiser(BaseDenoiser):
    """A Wan checkpoint conditioned on prompts."""

    def __init__(self, model: WanModel, conditions: Conditions, grid: LatentGrid, steps: int) -> None:
        self._model = model
        self._steps = steps
        self._stage = Stage(model.attend)
        self._active: list[Installed] = []  # one per expert while a patch is on
        self._caches = StepCaches(model.experts)
        super().__init__(model.info, conditions, model.train_steps)

    def encode(self, text: str) -> Tensor:
        """[1, L, D]: zero-padded to the checkpoint's length without a mask, as WanPipeline does."""
        return self._model.encode(text)

    def forward(self, jobs: Sequence[Job]) -> list[Tensor]:
        first = jobs[0]
        transformer = self._model.experts[first.expert]
        x = torch.cat([job.call.x for job in jobs]).to(self._model.device, self._model.dtype)
        self._stage.sites = tuple(self._site(job) for job in jobs)
        self._stage.texts = tuple(job.text for job in jobs)
        with self._text_processors(transformer, jobs):
            for state in self._active:
                state.place(x.shape[2])
            with self._caches.context(transformer, jobs, self._steps):
                v = transformer(x, self._timesteps(jobs), self._tokens(jobs), return_dict=False)[0]
        return list(v.float().split(1))

    @contextmanager
    def patched(self, patch: Patch) -> Iterator[None]:
        """Installs the patch in every expert; an empty one leaves diffusers' own processors in place."""
        self._caches.check(patch)
        if patch.empty and not self._model.own_attention:
            yield
            return
        attention = self._model.own_attention or any((patch.attention, patch.logits, patch.kv))
        with ExitStack() as stack:
            outer = self._active
            self._active = [
                stack.enter_context(installed(t, patch, self._stage, attention)) for t in self._model.experts
            ]
            try:
                yield
            finally:
                self._active = outer

    @contextmanager
    def _text_processors(self, transformer: torch.nn.Module, jobs: Sequence[Job]) -> Iterator[None]:
        """Text attention for several texts in one call, where no patch has brought it already."""
        if self._active or all(job.text.plain for job in jobs):
            yield
            return
        with installed(transformer, Patch(), self._stage, attention=False):
            yield

    def _site(self, job: Job) -> Site:
        call, (_, p_h, p_w) = job.call, self.info.patch
        frames, height, width = call.x.shape[2:]
        return Site(
            layer=0,
            layers=self.info.layers,
            branch=job.branch,
            expert=job.expert,
            level=call.level,
            frames=call.frames,
            grid=(frames, height // p_h, width // p_w),
            key=call.key,
            step=int(call.level.step.min()),
            steps=self._steps,
        )

    def _timesteps(self, jobs: Sequence[Job]) -> Tensor:
        """[B], or [B, T·P] where latents have levels of their own or the checkpoint was trained so."""
        device = self._model.device
        if all(job.call.level.uniform for job in jobs) and not self._model.expand_timesteps:
            return torch.stack([job.call.level.t for job in jobs]).to(device)
        rows = []
        for job, site in zip(jobs, self._stage.sites, strict=True):
            t = job.call.level.spread(len(job.call.frames)).t.float()
            rows.append(t.repeat_interleave(site.tokens))
        return torch.stack(rows).to(device)

    def _tokens(self, jobs: Sequence[Job]) -> Tensor:
        """[B, L, D]; shorter rows are padded with zeros, which their processors cut off again."""
        rows = [job.text.tokens for job in jobs]
        longest = max(row.shape[1] for row in rows)
        return torch.cat([torch.nn.functional.pad(row, (0, 0, 0, longest - row.shape[1])) for row in rows])
