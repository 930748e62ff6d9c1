"""Which method runs on which model, and why not where it does not. From declarations alone."""

from __future__ import annotations

from typing import Any

from longgen import registry
from longgen.errors import BadInput
from longgen.models import describe
from longgen.runtime.compose import check, compose
from longgen.types import ModelInfo

LENGTHS = 2.5  # as a multiple of the native length: pairs are judged on a video that is long


def matrix(model: str | None = None) -> list[dict[str, Any]]:
    """One row per model: its facts and {method: None or the reason of refusal}."""
    infos = [describe.describe(model)] if model else describe.catalogue()
    return [row(info) for info in infos]


def row(info: ModelInfo) -> dict[str, Any]:
    """A model's facts, and every method's verdict."""
    return {
        "id": info.id,
        "family": info.family,
        "variant": info.variant,
        "native_frames": info.native_frames,
        "native_size": list(info.native_size),
        "fps": info.fps,
        "stride": info.stride,
        "steps": info.steps,
        "guidance": info.guidance,
        "flow_shift": info.flow_shift,
        "needs_image": info.needs_image,
        "capabilities": sorted(info.capabilities),
        "methods": {name: refusal(name, info) for name in registry.METHODS},
    }


def refusal(method: str, info: ModelInfo) -> str | None:
    """Why the method cannot run on the model, or None."""
    frames = int(info.native_latents * LENGTHS)
    try:
        check(compose(method).fit(info), frames - frames % info.patch[0], info)
    except BadInput as error:
        return str(error)
    return None
