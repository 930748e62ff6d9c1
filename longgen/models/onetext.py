"""Prompt schedules for networks whose layers carry one text stream per call, as joint attention does.

Knows schedules and mixes. Does not know tokens or models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from longgen.errors import BadInput
from longgen.protocols import PromptSchedule
from longgen.types import Level, Mix


@dataclass(frozen=True)
class OneText:
    """A schedule of which every run of the network sees one text.

    A call whose latents share one row of weights runs once, on that (blended) text. Texts that differ between its
    latents run once each, and a latent mixes the outputs with its weights: so a latent is told what the schedule says
    wherever windows lie, at the price of one more run in calls that two prompts share.

    Raises:
        BadInput: for schedules that need several text streams at once.
    """

    schedule: PromptSchedule
    model: str  # whom the refusals speak of

    @property
    def texts(self) -> tuple[str, ...]:
        return self.schedule.texts

    @property
    def negatives(self) -> tuple[str, ...]:
        return self.schedule.negatives

    def mix(self, frames: tuple[int, ...], level: Level) -> Mix:
        mix = self.schedule.mix(frames, level)
        if mix.space == "output":
            return mix
        if mix.space == "bias" and mix.weights.shape[1] > 1:
            raise BadInput(
                f"{self.model} has one text stream per call and cannot hold several prompts apart by penalties; "
                "use the prompt schedule hold, travel or blend"
            )
        if mix.early is not None:
            raise BadInput(
                f"{self.model} has one text stream through all layers, so early layers cannot have another prompt; "
                "use the prompt schedule hold, travel or blend"
            )
        if bool((mix.weights != mix.weights[:1]).any()):
            return Mix(mix.weights, "output")
        return replace(mix, weights=mix.weights[:1])

    def negative(self, frames: tuple[int, ...]) -> int:
        return self.schedule.negative(frames)

    def guidance(self, frames: tuple[int, ...]) -> Tensor | float:
        return self.schedule.guidance(frames)

    def scale(self, frames: tuple[int, ...]) -> float:
        """The guidance scale of the middle latent, for networks that take one number per call."""
        scale = self.guidance(frames)
        return float(scale[len(frames) // 2]) if isinstance(scale, Tensor) else float(scale)
