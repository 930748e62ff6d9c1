"""The sidecar's words and types, for programs that read runs: `longgen schema run`.

Knows the file's form alone. Commands may add keys of their own beside these.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from longgen.config import Request
from longgen.types import Transition

Span = tuple[int, int]


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ShotFacts(_Facts):
    """One prompt on pixel frames [start, stop); `blend` is the length in frames of a blended entry."""

    prompt: str
    start: int = Field(ge=0)
    stop: int = Field(ge=1)
    id: str
    negative: str | None
    transition: Transition
    blend: int = Field(ge=0)
    seed: int | None
    guidance: float | None
    image: str | None
    loras: tuple[str, ...]


class TimelineFacts(_Facts):
    """Shots that tile the video."""

    fps: float = Field(gt=0)
    shots: tuple[ShotFacts, ...] = Field(min_length=1)


class MethodFacts(_Facts):
    """A method, the slots that it filled, and all its settings with the values used."""

    name: str
    slots: tuple[str, ...]
    settings: dict[str, Any]


class ModelFacts(_Facts):
    """The checkpoint: where it came from, and hashes of its files."""

    id: str
    variant: str
    revision: str | None
    files: dict[str, str]
    weights: str


class WindowFacts(_Facts):
    """Boundaries [a, b) of the loop's windows at the first step."""

    latents: tuple[Span, ...]
    frames: tuple[Span, ...]


class SizeFacts(_Facts):
    """Pixels."""

    height: int
    width: int


class ContinuedFacts(_Facts):
    """A video that begins the output: all its frames, those encoded, and the latents that they became."""

    path: str
    frames: int
    tail: int
    known: int


class RerollFacts(_Facts):
    """What a shot made again changed. `free_latents` and `changed_frames` are [first, stop) and [first, last]."""

    of: str
    shot: str
    seed: int
    free_latents: Span
    latents_equal: bool
    changed_frames: Span | None
    frames_after: int = Field(ge=0)
    largest_after: int = Field(ge=0, le=255)


class RunFacts(BaseModel):
    """The JSON beside a video. `timings` are seconds by stage, `peak_memory` bytes, `calls` those of the model."""

    model_config = ConfigDict(extra="allow", title="longgen run")

    schema_version: int = Field(alias="schema")
    identity: str
    request: Request
    methods: tuple[MethodFacts, ...]
    prompt: str | None
    seed: int
    frames: int = Field(ge=1)
    fps: float = Field(gt=0)
    size: SizeFacts
    latents: int = Field(ge=1)
    timeline: TimelineFacts
    shot_boundaries: tuple[int, ...]
    windows: WindowFacts
    conditions: dict[str, str] = Field(description="hashes of the files that condition the run")
    continues: ContinuedFacts | None = Field(description="the video whose end the run continues")
    notes: tuple[str, ...]
    model: ModelFacts
    versions: dict[str, str]
    device: str
    attention: str
    calls: int
    timings: dict[str, float]
    peak_memory: dict[str, int]
    reroll: RerollFacts | None = None


def json_schema() -> dict[str, Any]:
    """JSON Schema of a sidecar."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **RunFacts.model_json_schema()}
