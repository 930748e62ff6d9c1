"""What a user may ask of one generation: the typed form of the command line and of recipes.

Knows names, types and ranges. Does not know models, files or tensors; imports neither torch nor diffusers.
Precedence: command line, then recipe, then the model's defaults (which a Request leaves as None).
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from longgen.errors import BadInput, unknown

SPELT = {"continue_video": "continue"}  # fields whose option has another name: `continue` is a word of Python
MAX_FRAMES = 1_000_000
Offload = Literal["none", "model", "group", "sequential"]
Attention = Literal[
    "auto", "sdpa", "sdpa-flash", "sdpa-cudnn", "xformers", "flash2", "flash3", "varlen", "flex", "sage"
]
Naming = Literal["index", "vbench"]


class Request(BaseModel):
    """One generation as asked for. Lengths count pixel frames, `duration` seconds; None means the model's default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str | None = None
    negative_prompt: str | None = None
    model: str = "shapes"
    method: str = "auto"
    set: dict[str, Any] = Field(default_factory=dict)
    num_frames: int | None = Field(default=None, ge=1, le=MAX_FRAMES)
    duration: float | None = Field(default=None, gt=0)
    height: int | None = Field(default=None, ge=1, le=16_384)
    width: int | None = Field(default=None, ge=1, le=16_384)
    fps: float | None = Field(default=None, gt=0, le=1000)
    num_inference_steps: int | None = Field(default=None, ge=1, le=10_000)
    guidance_scale: float | None = Field(default=None, ge=0, le=1000)
    flow_shift: float | None = Field(default=None, gt=0, le=1000)
    solver: str | None = None
    seed: int = Field(default=0, ge=-1, lt=2**63)
    schedule: str = "hold"
    dtype: Literal["fp32", "bf16", "fp16"] | None = None
    device: str = "auto"
    attention: Attention = "auto"
    window_batch: int = Field(default=1, ge=1, le=4096)
    parallel: Literal["calls", "ulysses", "ring"] = "calls"
    cache: str = "none"
    offload: Offload = "none"
    vae_tiling: bool = False
    compile: bool = False
    fp8: bool = False
    lora: tuple[str, ...] = ()
    transformer: tuple[str, ...] = ()
    variant: str | None = None
    quantize: str | None = None
    image: str | None = None
    control: str | None = None
    control_levels: Literal["file", "whole"] | None = None
    continue_video: str | None = Field(default=None, validation_alias=AliasChoices("continue_video", "continue"))
    decode_chunk: int | None = Field(default=None, ge=1, le=64)

    @field_validator("*", mode="before")
    @classmethod
    def _finite(cls, value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("must be a finite number")
        return value

    @field_validator("prompt")
    @classmethod
    def _spoken(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("is empty; describe what the video shows")
        return value

    @model_validator(mode="after")
    def _one_length(self) -> Request:
        if self.num_frames is not None and self.duration is not None:
            raise ValueError("give --num-frames or --duration, not both")
        return self


def validated(values: dict[str, Any], source: str = "") -> Request:
    """A Request, or BadInput with one line that names the option, the fault and the legal range."""
    try:
        return Request(**values)
    except ValidationError as error:
        raise BadInput(_line(error, source)) from None


def _line(error: ValidationError, source: str) -> str:
    fault = error.errors()[0]
    where = f"{source}: " if source else ""
    if fault["type"] == "extra_forbidden":
        return where + str(unknown("key", str(fault["loc"][0]), Request.model_fields))
    message = re.sub(r"^Value error, ", "", fault["msg"])
    message = message.replace("Input should be", "must be")
    if not fault["loc"]:
        return where + message
    option = "--" + SPELT.get(str(fault["loc"][0]), str(fault["loc"][0])).replace("_", "-")
    given = fault.get("input")
    shown = "" if "empty" in message else f" (got {given!r})"
    return f"{where}{option} {message}{shown}"


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """`method.key=value` pairs → {"method.key": value}; values are YAML scalars.

    >>> parse_settings(["freenoise.window=33", "windows.weights=flat"])
    {'freenoise.window': 33, 'windows.weights': 'flat'}
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or "." not in name:
            raise BadInput(f"--set takes method.key=value, for example freenoise.window=81 (got {pair!r})")
        settings[name.strip()] = yaml.safe_load(value)
    return settings


def parse_size(text: str) -> tuple[int, int]:
    """`832x480` or `832*480` → (width, height)."""
    match = re.fullmatch(r"\s*(\d+)\s*[x*×]\s*(\d+)\s*", text)
    if not match:
        raise BadInput(f"--size takes WIDTHxHEIGHT, for example 832x480 (got {text!r})")
    return int(match[1]), int(match[2])


def parse_duration(text: str) -> float:
    """`10s`, `1.5`, `2m`, `1m30s` or `500ms` → seconds."""
    match = re.fullmatch(r"\s*(?:(\d+(?:\.\d+)?)m(?!s))?\s*(?:(\d+(?:\.\d+)?)(s|ms)?)?\s*", text)
    if not match or not (match[1] or match[2]):
        raise BadInput(f"--duration takes seconds, for example 10s or 1m30s (got {text!r})")
    seconds = float(match[2] or 0) * (0.001 if match[3] == "ms" else 1.0)
    return float(match[1] or 0) * 60 + seconds


def read_text(path: Path, what: str) -> str:
    """A UTF-8 file of the user's, or BadInput that names it."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadInput(f"{what} {path} does not exist") from None
    except IsADirectoryError:
        raise BadInput(f"{what} {path} is a folder; give a file") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{what} {path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise BadInput(f"{what} {path} cannot be read: {error.strerror}") from None


def read_recipe(path: Path) -> dict[str, Any]:
    """The keys of a recipe file (YAML or JSON mapping)."""
    try:
        data = yaml.safe_load(read_text(path, "recipe"))
    except yaml.YAMLError as error:
        raise BadInput(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise BadInput(f"recipe {path} must be a mapping of options, for example `method: freenoise`")
    return {str(k).replace("-", "_"): v for k, v in data.items()}
