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
    """A schedule in which every latent of a call sees the text of the call's middle latent, blended or not.

    Mixes of clean estimates pass unchanged: each of their runs has one text by itself.

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
        middle = len(frames) // 2
        return replace(mix, weights=mix.weights[middle : middle + 1])

    def negative(self, frames: tuple[int, ...]) -> int:
        return self.schedule.negative(frames)

    def guidance(self, frames: tuple[int, ...]) -> Tensor | float:
        return self.schedule.guidance(frames)

    def scale(self, frames: tuple[int, ...]) -> float:
        """The guidance scale of the middle latent, for networks that take one number per call."""
        scale = self.guidance(frames)
        return float(scale[len(frames) // 2]) if isinstance(scale, Tensor) else float(scale)
