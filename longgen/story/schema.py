"""The story file: its words, types and ranges, as pydantic models and as JSON Schema.

Knows one file format. Does not know frames of a video, models or other dialects; imports no torch.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from longgen.errors import BadInput, unknown

MAX_SHOTS = 1_000
MAX_TEXT = 20_000
MAX_SECONDS = 86_400
Entry = Literal["continue", "blend", "cut"]


def _seconds(value: Any) -> Any:
    """`5`, `"5s"`, `"1m30s"` or `"500ms"` as seconds."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(?:(\d+(?:\.\d+)?)m(?!s))?\s*(?:(\d+(?:\.\d+)?)\s*(s|ms)?)?\s*", value)
    if not match or not (match[1] or match[2]):
        raise ValueError(f"is a time such as 5s or 1m30s, not {value!r}")
    return float(match[1] or 0) * 60 + float(match[2] or 0) * (0.001 if match[3] == "ms" else 1)


Seconds = Annotated[float, BeforeValidator(_seconds)]
Text = Annotated[str, Field(max_length=MAX_TEXT)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Entered(_Strict):
    """What a shot and the defaults share."""

    negative: Text | None = Field(default=None, description="what the shot should not show")
    transition: Entry | None = Field(
        default=None, description="how the shot is entered; a cut ends continuity on purpose"
    )
    blend: Seconds | None = Field(
        default=None, ge=0, le=MAX_SECONDS, description="seconds over which the shot comes in"
    )
    guidance: float | None = Field(default=None, ge=0, le=1000, description="guidance scale")


class ShotSpec(_Entered):
    """One shot. Its length is `duration` (seconds), `frames`, or a share of what is left in proportion to `weight`."""

    prompt: Text = Field(description="what is seen; {name} stands for a character, {{ and }} for braces")
    id: str | None = Field(None, pattern=r"^[\w.-]{1,64}$", description="name for --only; default shot1, shot2 …")
    duration: Seconds | None = Field(None, gt=0, le=MAX_SECONDS, description="seconds")
    frames: int | None = Field(None, ge=1, le=1_000_000, description="pixel frames")
    weight: float | None = Field(None, gt=0, le=1e6, description="share of the time left, default 1")
    blend_frames: int | None = Field(None, ge=0, le=1_000_000, description="frames over which the shot comes in")
    seed: int | None = Field(None, ge=0, lt=2**63, description="seed of this shot's noise")
    image: str | None = Field(None, description="first-frame image, relative to the story file; first shot only")
    loras: tuple[str, ...] = Field((), description="LoRA files, PATH[:scale]; the same in all shots")

    @field_validator("prompt")
    @classmethod
    def _spoken(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty; describe what is seen")
        return value

    @model_validator(mode="after")
    def _one_length(self) -> ShotSpec:
        given = [n for n in ("duration", "frames", "weight") if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} exclude each other; give one")
        if self.blend is not None and self.blend_frames is not None:
            raise ValueError("blend and blend_frames exclude each other; give one")
        if self.transition in ("cut", "continue") and (self.blend or self.blend_frames):
            raise ValueError(f"a shot entered by {self.transition!r} has no blend; use transition: blend")
        return self


class Defaults(_Entered):
    """For shots that do not say otherwise; any other key is an option of `longgen generate`, such as `duration`."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    @property
    def options(self) -> dict[str, Any]:
        """What is meant for `longgen generate`."""
        return {name.replace("-", "_"): value for name, value in (self.model_extra or {}).items()}


class Story(_Strict):
    """A video in shots."""

    version: Literal[1] = 1
    model: str | None = Field(None, description="as --model; the command line wins")
    defaults: Defaults = Field(default_factory=Defaults)
    style: Text = Field(
        "", description="text added to every prompt; {prompt} marks the prompt's place, else it follows"
    )
    characters: dict[str, Text] = Field(default_factory=dict, description="name: description")
    shots: tuple[ShotSpec, ...] = Field(min_length=1, max_length=MAX_SHOTS)

    @field_validator("characters")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not re.fullmatch(r"\w[\w -]{0,63}", name) or name == "prompt":
                raise ValueError(f"{name!r} cannot name a character; use letters, digits, _ and -, but not 'prompt'")
        return value

    def prompt_of(self, index: int, style: bool = True) -> str:
        """The prompt of a shot with characters written out, and style added."""
        text = expand(self.shots[index].prompt, self.characters)
        if not (style and self.style):
            return text
        if "{prompt}" in self.style:
            return expand(self.style, {**self.characters, "prompt": text})
        return f"{text}, {expand(self.style, self.characters)}"


def expand(text: str, characters: dict[str, str]) -> str:
    """`{name}` as the description of a character; `{{` and `}}` are braces.

    Raises:
        BadInput: a name that is no character (the nearest is named), or a brace that stands alone.

    >>> expand("{hero} waves {{now}}", {"hero": "a red fox"})
    'a red fox waves {now}'
    """

    def one(match: re.Match[str]) -> str:
        found = match[0]
        if found in ("{{", "}}"):
            return found[0]
        name = (match[1] or "").strip()
        if len(found) == 1:
            raise BadInput(f"a brace stands alone in {text!r}; write {{{{ or }}}} for a literal one")
        if name not in characters:
            if not characters:
                raise BadInput(
                    f"unknown character {name!r}: the story has no characters; write {{{{{name}}}}} for braces"
                )
            raise unknown("character", name, characters)
        return characters[name]

    return re.sub(r"\{\{|\}\}|\{([^{}]*)\}|[{}]", one, text)


def escape(text: str) -> str:
    """Text of another tool, whose braces mean nothing here.

    >>> escape("a {b}")
    'a {{b}}'
    """
    return text.replace("{", "{{").replace("}", "}}")


def json_schema() -> dict[str, Any]:
    """JSON Schema of a story file, for editors and planners."""
    schema = Story.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "longgen story", **schema}
