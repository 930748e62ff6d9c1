"""The part of a denoiser that all families share: which model runs a call needs, and what becomes of their outputs.

A call becomes jobs: one per expert in use, side of guidance, and text that is mixed in the output space. Jobs of one
kind from several calls share a forward. A family says how texts are encoded, how jobs run, and what the network
predicts.

Order, always: guidance in fp32 per expert → experts recombined per latent → clean estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor

from longgen.errors import BadInput
from longgen.models.texts import TextPlan, outputs
from longgen.protocols import Conditions, Deal, Forward
from longgen.types import Branch, Call, Level, ModelInfo, Patch, per_latent


def in_turn(forwards: Sequence[Forward], like: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Runs all forwards here. `like` has tensors of the shapes of their results, for those who run them elsewhere."""
    return [forward() for forward in forwards]


@dataclass(frozen=True)
class Job:
    """One run of one expert on one call. `slot` tells apart runs of one call that mix texts in the output space."""

    call: Call
    expert: int
    branch: Branch
    text: TextPlan
    slot: int = 0


def flow_clean(x: Tensor, level: Level, v: Tensor) -> Tensor:
    """z = x − σ·v."""
    return x - per_latent(level.sigma, x) * v


class BaseDenoiser:
    """`protocols.Denoiser` but for what a family adds: `encode`, `forward`, `patched`, and `clean` if it is no flow."""

    def __init__(self, info: ModelInfo, conditions: Conditions, train_steps: int = 1000) -> None:
        for name in ("image", "control"):
            if getattr(conditions, name) is not None and name not in info.capabilities:
                raise BadInput(f"{info.id} takes no {name}: {info.refusals.get(name, 'the checkpoint lacks it')}")
        if info.needs_image and conditions.image is None:
            raise BadInput(f"{info.id} makes videos from an image; give one: --image FILE")
        self.info = info
        self.prompts = conditions.prompts
        self._boundary = None if info.boundary is None else info.boundary * train_steps
        self._encoded = lru_cache(maxsize=None)(self.encode)
        self._texts = [self._encoded(text) for text in self.prompts.texts]

    def encode(self, text: str) -> Tensor:
        """[1, L, D] on the model's device and dtype, padded as the family's pipeline pads."""
        raise NotImplementedError

    def forward(self, jobs: Sequence[Job]) -> list[Tensor]:
        """Raw network outputs [1, C, T, H, W], in fp32, of jobs of one shape, expert and branch."""
        raise NotImplementedError

    def patched(self, patch: Patch) -> AbstractContextManager[None]:
        """Installs the patch in every expert and takes it off bitwise, also after an exception."""
        raise NotImplementedError

    def placed(self, call: Call) -> Call:
        """The call as the network is to see it: families whose image is a clean latent put it in here."""
        return call

    def clean(self, x: Tensor, level: Level, output: Tensor) -> Tensor:
        """Clean estimate from the noisy latents and the guided output, fp32."""
        return flow_clean(x, level, output)

    def denoise(self, call: Call) -> Tensor:
        """Clean estimate [1, C, T, H, W] in fp32."""
        return self.denoise_batch([call])[0]

    @torch.no_grad()
    def denoise_batch(self, calls: Sequence[Call], deal: Deal = in_turn) -> list[Tensor]:
        """Clean estimates of several calls; those of one shape share forwards.

        Args:
            deal: runs the forwards (sides of guidance, experts, texts), which do not depend on each other.
        """
        self._check(calls)
        calls = [self.placed(call) for call in calls]
        groups: dict[tuple[int, bool, int, torch.Size, bool], list[tuple[int, Job, Tensor | None]]] = {}
        for i, call in enumerate(calls):
            for job, weight in self._jobs(call):
                kind = (job.expert, job.branch != "cond", job.slot, call.x.shape, call.level.uniform)
                groups.setdefault(kind, []).append((i, job, weight))
        sums: list[dict[tuple[int, Branch], Tensor]] = [{} for _ in calls]
        order = [groups[kind] for kind in sorted(groups, key=lambda kind: kind[:3])]
        forwards = [partial(self.forward, [job for _, job, _ in members]) for members in order]
        outputs = deal(forwards, [[job.call.x for _, job, _ in members] for members in order])
        for members, made in zip(order, outputs, strict=True):
            for (i, job, weight), output in zip(members, made, strict=True):
                part = output if weight is None else per_latent(weight, output) * output
                side = (job.expert, job.branch)
                sums[i][side] = sums[i][side] + part if side in sums[i] else part
        return [self._combine(call, sides) for call, sides in zip(calls, sums, strict=True)]

    def _check(self, calls: Sequence[Call]) -> None:
        limit = self.info.rope.limit
        for call in calls:
            frames = call.x.shape[2]
            if len(call.frames) != frames:
                raise ValueError(f"a call of {frames} latents names {len(call.frames)} frames")
            if limit is not None and frames // self.info.patch[0] > limit:
                raise BadInput(
                    f"a call of {frames} latents exceeds the {limit} positions that {self.info.id} knows; "
                    "use a method with short calls: windows, fifo, extend"
                )

    def _experts(self, level: Level) -> Tensor:
        """Expert of each level, like level.t in shape: 0 from the boundary upward in noise, 1 below it."""
        if self._boundary is None:
            return torch.zeros_like(level.t, dtype=torch.long)
        return (level.t < self._boundary).long()

    def _jobs(self, call: Call) -> list[tuple[Job, Tensor | None]]:
        guided = self._guidance(call) is not None
        runs = outputs(self.prompts.mix(call.frames, call.level), self._texts)
        jobs: list[tuple[Job, Tensor | None]] = []
        for expert in self._experts(call.level).unique().tolist():
            jobs += [(Job(call, expert, "cond", text, slot), weight) for slot, (text, weight) in enumerate(runs)]
            if guided:
                negative = self._encoded(self.prompts.negatives[self.prompts.negative(call.frames)])
                jobs.append((Job(call, expert, "uncond", TextPlan(negative)), None))
        return jobs

    def _guidance(self, call: Call) -> float | Tensor | None:
        """The call's guidance scale; None where it is off. As in the pipelines, a scale up to 1 means off."""
        scale = self.prompts.guidance(call.frames)
        if isinstance(scale, Tensor):
            return scale.clamp(min=1) if bool((scale > 1).any()) else None
        return float(scale) if scale > 1 else None

    def _combine(self, call: Call, sides: dict[tuple[int, Branch], Tensor]) -> Tensor:
        x = call.x.float()
        scale = self._guidance(call)
        outputs: dict[int, Tensor] = {}
        for expert in {expert for expert, _ in sides}:
            output = sides[expert, "cond"]
            if scale is not None:
                uncond = sides[expert, "uncond"]
                factor = per_latent(scale, x) if isinstance(scale, Tensor) else scale
                output = uncond + factor * (output - uncond)
            outputs[expert] = output
        if len(outputs) == 1:
            (output,) = outputs.values()
        else:
            low = per_latent(self._experts(call.level), x).bool()  # [1, 1, T, 1, 1]
            output = torch.where(low, outputs[1], outputs[0])
        return self.clean(x, call.level, output)
