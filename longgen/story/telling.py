"""What a story asks of a run: options for `generate`, a timeline once the model's frame rate is known, a title.

Knows stories and requests by their field names. Does not know models or how a request is carried out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from longgen.errors import BadInput
from longgen.story.dialects import Told, detect, open_file, read_source, write
from longgen.story.dialects.source import Source
from longgen.story.file import Clock, to_story
from longgen.story.load import Document
from longgen.story.planner import Endpoint, plan_offline, plan_online
from longgen.story.schedules import check_heard
from longgen.story.schema import Story
from longgen.story.timeline import join_bars, show
from longgen.types import ModelInfo, Timeline

# Options that a story's `defaults` may hold, as `longgen generate` spells them.
OPTIONS = (
    *("model", "method", "set", "schedule", "num_frames", "duration", "size", "height", "width", "fps", "seed"),
    *("num_inference_steps", "guidance_scale", "negative_prompt", "flow_shift", "solver", "dtype", "attention"),
    *("window_batch", "decode_chunk"),
)
LENGTHS, SIZES = ("num_frames", "duration"), ("size", "height", "width")


@dataclass(frozen=True)
class Telling:
    """A story, or the source of one whose times depend on the model's frame rate."""

    source: Source
    dialect: str
    folder: Path | None = None
    story: Story | None = None

    @staticmethod
    def of_file(path: str, dialect: str | None = None) -> Telling:
        """A story file in any dialect, `FILE#3` for the third of a list."""
        source = open_file(path)
        name = dialect or detect(source)
        folder = Path(path).parent
        if name == "story":
            told = read_source(source, Clock(1.0), name, OPTIONS)
            return Telling(source, name, folder, told.story)
        return Telling(source, name, folder)

    @staticmethod
    def of_text(text: str, shots: int | None = None, server: Endpoint | None = None) -> Telling:
        """A paragraph, split into shots by rule, or by the server where one is given."""
        story = plan_online(text, server, shots) if server else plan_offline(text, shots)
        return Telling(Source("", "", Document(None, "the planned story")), "story", None, story)

    def options(self, given: dict[str, Any]) -> dict[str, Any]:
        """Options of a command line over those of the story; a length or a size given replaces the story's."""
        given = {name: value for name, value in given.items() if value is not None and value != []}
        if self.story is None:
            return given
        own = dict(self.story.defaults.options)
        if self.story.model is not None:
            own["model"] = self.story.model
        for group in (LENGTHS, SIZES):
            if any(name in given for name in group):
                own = {name: value for name, value in own.items() if name not in group}
        if isinstance(own.get("set"), dict):
            own["set"] = [f"{key}={value}" for key, value in own["set"].items()] + given.pop("set", [])
        return {**own, **given}

    def timeline(self, asked: Any, info: ModelInfo) -> Timeline:
        """The story in frames, for a request on a model."""
        fps = asked.fps or info.fps
        frames = max(1, round(asked.duration * fps)) if asked.duration is not None else asked.num_frames
        clock = Clock(fps, frames, info.native_frames)
        if self.story is not None:
            told = Told(self.story, self.dialect, self.source, self.folder)
        else:
            told = replace(read_source(self.source, clock, self.dialect), folder=self.folder)
        timeline = told.timeline(clock)
        document = (self.source.document if self.dialect == "story" else None) or Document(None, self.source.name)
        check_heard(timeline, info.stride, [document.where(("shots", k)) for k in range(len(timeline.shots))])
        return timeline

    def title(self, timeline: Timeline) -> str:
        """The prompts between bars, as the run's prompt."""
        return join_bars([shot.prompt for shot in timeline.shots])

    def with_media(self, asked: Any, timeline: Timeline) -> Any:
        """The request with the first shot's image and the shots' LoRAs."""
        first = timeline.shots[0]
        changes: dict[str, Any] = {}
        if first.image is not None:
            if asked.image is not None:
                raise BadInput("the story and --image both give a first frame; keep one")
            changes["image"] = first.image
        if first.loras:
            changes["lora"] = (*asked.lora, *first.loras)
        return asked.model_copy(update=changes)


def shown(timeline: Timeline, dialect: str | None = None) -> str:
    """The timeline as a table, or written in a dialect."""
    return show(timeline) if dialect is None else write(timeline, dialect)


__all__ = ["OPTIONS", "Telling", "shown", "to_story"]
