"""Prompt schedules: which text each latent sees, for any method and model.

Knows the timeline in pixel frames and the model's temporal stride. Does not know embeddings, attention or models: it
answers with weights over texts (`longgen.types.Mix`), and the model's adapter does the mixing. Indices are always
absolute latents of the whole video, so a window, a chunk or a queue of any shape gets the same text for the same
latent; a queue therefore changes its prompt latent by latent, as each one passes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from longgen.errors import BadInput, unknown
from longgen.protocols import PromptSchedule
from longgen.types import Level, Mix, Timeline


def centre(latent: int, stride: int) -> float:
    """Middle of the pixel frames of a latent: latent 0 is frame 0, latent i is frames (i − 1)·s + 1 … i·s.

    >>> [centre(i, 4) for i in range(3)]
    [0.0, 2.5, 6.5]
    """
    return latent * stride - (stride - 1) / 2 if latent else 0.0


def latents_of(frames: int, stride: int) -> int:
    """T, the fewest latents that decode to at least `frames` pixel frames."""
    return -(-(frames - 1) // stride) + 1


def spans(timeline: Timeline, stride: int) -> list[tuple[int, int]]:
    """Latents [a, b) of every shot: those whose centre lies in the shot's frames. They tile [0, T)."""
    total = latents_of(timeline.frames, stride)
    starts = [next((i for i in range(total) if centre(i, stride) >= s.start), total) for s in timeline.shots]
    return list(zip(starts, [*starts[1:], total]))


class Ramps:
    """Texts held per shot, with linear ramps where one shot passes into the next.

    Progress into shot k is p_k = clamp((c − a_k)/(b_k − a_k), 0, 1) at the latent's centre c; shot k weighs
    w_k = p_k · Π_{j>k} (1 − p_j), p_0 = 1, so weights sum to 1 and every transition is monotone.

    Args:
        timeline, stride: shots in pixel frames, and pixel frames per latent.
        guidance, negative: used where a shot sets none.
        space: "text" mixes embeddings, "output" mixes clean estimates (one model run per text in use).
        spherical: mix embeddings on the sphere.
        length: frames of the ramp into a shot entered by `continue`; 0 switches at once, None takes a quarter of the
            shot. `cut` always switches at once, `blend` always uses the shot's own length.
        keys: for `continue`, ramp all the way from the start of the shot before, so that each text is pure at the
            start of its shot (what frame maps of other tools mean by travel); `length` is then unused.
    """

    def __init__(
        self,
        timeline: Timeline,
        stride: int,
        guidance: float,
        negative: str,
        *,
        space: Literal["text", "output"] = "text",
        spherical: bool = False,
        length: float | None = 0,
        keys: bool = False,
    ) -> None:
        if length is not None and length < 0:
            raise BadInput(f"length is a number of frames, 0 or more, got {length}")
        self.timeline, self.stride, self.scale = timeline, stride, guidance
        self.space, self.spherical, self.length, self.keys = space, spherical, length, keys
        shots = timeline.shots
        self.texts: tuple[str, ...] = tuple(dict.fromkeys(s.prompt for s in shots))
        said = [negative if s.negative is None else s.negative for s in shots]
        self.negatives: tuple[str, ...] = tuple(dict.fromkeys(said))
        self._negative_of = [self.negatives.index(n) for n in said]
        self._text_of = torch.zeros(len(shots), len(self.texts), dtype=torch.float64)
        for k, shot in enumerate(shots):
            self._text_of[k, self.texts.index(shot.prompt)] = 1

    def ramp(self, k: int) -> tuple[float, float]:
        """Pixel frames (a, b) over which shot k ≥ 1 comes in; a = b for a switch."""
        shot = self.timeline.shots[k]
        if shot.transition == "cut":
            return shot.start, shot.start
        if shot.transition == "blend":
            return shot.start, shot.start + shot.blend
        if self.keys:
            return self.timeline.shots[k - 1].start, shot.start
        length = (shot.stop - shot.start) / 4 if self.length is None else self.length
        return shot.start, shot.start + min(length, shot.stop - shot.start)

    def shot_weights(self, frames: tuple[int, ...]) -> Tensor:
        """[T, shots] in fp64; rows sum to 1."""
        centres = torch.tensor([centre(i, self.stride) for i in frames], dtype=torch.float64)
        weights = torch.zeros(len(frames), len(self.timeline.shots), dtype=torch.float64)
        weights[:, 0] = 1
        for k in range(1, len(self.timeline.shots)):
            p = _progress(centres, *self.ramp(k))
            weights[:, :k] *= (1 - p)[:, None]
            weights[:, k] = p
        return weights

    def mix(self, frames: tuple[int, ...], level: Level) -> Mix:
        return Mix((self.shot_weights(frames) @ self._text_of).float(), self.space, spherical=self.spherical)

    def negative(self, frames: tuple[int, ...]) -> int:
        """That of the shot in the middle of the call."""
        return self._negative_of[self._shot_in_the_middle(frames)]

    def guidance(self, frames: tuple[int, ...]) -> Tensor | float:
        """Mixed like the prompts; a plain float where all shots agree."""
        scales = [self.scale if s.guidance is None else s.guidance for s in self.timeline.shots]
        if len(set(scales)) == 1:
            return scales[0]
        return (self.shot_weights(frames) @ torch.tensor(scales, dtype=torch.float64)).float()

    def _shot_in_the_middle(self, frames: tuple[int, ...]) -> int:
        middle = (centre(min(frames), self.stride) + centre(max(frames), self.stride)) / 2
        return self.timeline.shots.index(self.timeline.at(int(middle)))


def _progress(centres: Tensor, start: float, stop: float) -> Tensor:
    """0 before `start`, 1 from `stop` on, linear between."""
    if stop <= start:
        return (centres >= start).to(torch.float64)
    return ((centres - start) / (stop - start)).clamp(0, 1)


def hold(timeline: Timeline, stride: int, guidance: float, negative: str) -> Ramps:
    """Each latent sees its own shot's text; only entries declared `blend` are mixed."""
    return Ramps(timeline, stride, guidance, negative)


SCHEDULES: dict[str, Callable[..., PromptSchedule]] = {
    "hold": hold,
}


def build(
    timeline: Timeline, name: str, stride: int, guidance: float, negative: str = "", **options: Any
) -> PromptSchedule:
    """The prompt schedule called `name`.

    Args:
        timeline: shots in pixel frames.
        stride: pixel frames per latent (4 Wan, 8 LTX).
        guidance: scale of classifier-free guidance where a shot sets none.
        negative: negative prompt where a shot sets none.
        options: of the schedule, see `SCHEDULES`.

    Raises:
        BadInput: unknown schedule or option, or a shot so short that no latent falls into it.
    """
    if name not in SCHEDULES:
        raise unknown("prompt schedule", name, SCHEDULES)
    for shot, (start, stop) in zip(timeline.shots, spans(timeline, stride)):
        if start == stop:
            raise BadInput(
                f"shot {shot.id!r} lasts {shot.stop - shot.start} frames, which no latent of {stride} frames falls "
                f"into; make it at least {stride} frames long"
            )
    return SCHEDULES[name](timeline, stride, guidance, negative, **options)
