"""The default method by length, as data, chosen from the rows of docs/quality.md and docs/guide/stories.md.

Up to four native lengths `ultravico` is not surely worse than any method in prompts kept, drift or jumps, and its
paper shows as much on large checkpoints. Beyond, one call over everything is too dear: `wide` keeps most of it at the
price of windows. A model with absolute positions knows none beyond its native length, so its windows are native; and
stories are told as `bench story` found best.
"""

from __future__ import annotations

from longgen.types import ModelInfo

NATIVE = "freenoise.noise,windows"
# (longest length as a multiple of the native one, method)
CLASSES: tuple[tuple[float, str], ...] = ((1.0, "direct"), (4.0, "ultravico"), (float("inf"), "wide"))


def default_method(ratio: float, info: ModelInfo, shots: int = 1) -> str:
    """The method for a video of so many shots, `ratio` times as long as the model's native clip."""
    if ratio > 1 and ("rope" in info.refusals or shots > 1):
        return NATIVE
    return next(method for limit, method in CLASSES if ratio <= limit)
