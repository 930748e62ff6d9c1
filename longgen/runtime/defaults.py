"""The default method per length class, as data: beyond the native length what published comparisons favour for any
model at flat memory. The rows of docs/quality.md are too few yet to choose from."""

from __future__ import annotations

from longgen.types import ModelInfo

# (longest length as a multiple of the native one, method)
CLASSES: tuple[tuple[float, str], ...] = ((1.0, "direct"), (float("inf"), "freenoise.noise,windows"))


def default_method(ratio: float, info: ModelInfo) -> str:
    """The method for a video `ratio` times as long as the model's native clip."""
    return next(method for limit, method in CLASSES if ratio <= limit)
