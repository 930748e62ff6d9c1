"""The ways in which people already write prompts in time, each turned into the one story.

Knows which dialect a source is written in. Each dialect lives in a module that reads it and writes it back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from longgen.errors import BadInput, unknown
from longgen.story.dialects.documents import CONTINUATION, HOLOCINE, LTX, STORYMEM, VBENCH
from longgen.story.dialects.folders import LONGLIVE, open_folder
from longgen.story.dialects.lines import BARS, LINES, PLAIN, SECONDS, SECTIONS
from longgen.story.dialects.maps import MAPS
from longgen.story.dialects.source import Dialect, Source
from longgen.story.file import Clock, to_story, to_timeline, validate
from longgen.story.load import Document, parse, read_text
from longgen.story.schema import Story
from longgen.types import Timeline

STRUCTURED = (".yaml", ".yml", ".json")


def _sniff_own(source: Source) -> bool:
    """A document that no other dialect knows is a story with a mistake in it; prose with a colon in it is none."""
    data = source.data
    structured = source.name.endswith(STRUCTURED) or source.text.lstrip().startswith("{")
    return isinstance(data, dict) and (structured or any(str(key) in Story.model_fields for key in data))


def _write_own(timeline: Timeline) -> str:
    import yaml

    return yaml.safe_dump(to_story(timeline), sort_keys=False, allow_unicode=True, width=120)


OWN = Dialect("story file", _sniff_own, lambda s, clock: validate(s.document or Document(None, s.name)), _write_own)

# The first that recognises a source reads it. Marks that no prose has come before the document's shape, and prose last.
DIALECTS: dict[str, Dialect] = {
    "seconds": SECONDS,
    "holocine": HOLOCINE,
    "storymem": STORYMEM,
    "ltx": LTX,
    "vbench": VBENCH,
    "continuation": CONTINUATION,
    "longlive": LONGLIVE,
    "sections": SECTIONS,
    "map": MAPS,
    "story": OWN,
    "bars": BARS,
    "lines": LINES,
    "prompt": PLAIN,
}


@dataclass(frozen=True)
class Told:
    """A story as read: in which dialect, from where, and the folder that its paths are relative to."""

    story: Story
    dialect: str
    source: Source
    folder: Path | None = None

    def timeline(self, clock: Clock) -> Timeline:
        """In frames; errors name the file, the line and the key."""
        document = self.source.document if self.dialect == "story" else Document(None, self.source.name)
        return to_timeline(self.story, clock, document, self.folder)


def source_of(text: str, name: str) -> Source:
    """A text with its data, where it is YAML or JSON; a text that only looks like it stays a text."""
    structured = name.endswith(STRUCTURED)
    try:
        document = parse(text, name)
    except BadInput:
        if structured and not any(DIALECTS[n].sniff(Source(text, name)) for n in ("seconds", "map")):
            raise
        return Source(text, name)
    plain = document.data is None or isinstance(document.data, str | int | float)
    return Source(text, name, None if plain else document)


def detect(source: Source) -> str:
    """The name of the dialect; BadInput when there is nothing to read."""
    if not source.text.strip():
        raise source.bad("the story is empty")
    shape = source.data
    for name, dialect in DIALECTS.items():
        textual = name in ("sections", "bars", "lines", "prompt")
        if textual and isinstance(shape, list):
            raise source.bad("a list of this kind is no story; write a mapping with the key shots")
        if dialect.sniff(source):
            return name
    raise source.bad("not a story")


def read_source(source: Source, clock: Clock, dialect: str | None = None, options: tuple[str, ...] = ()) -> Told:
    """A source as a story, in the dialect named or found."""
    if dialect is not None and dialect not in DIALECTS:
        raise unknown("dialect", dialect, DIALECTS)
    name = dialect or detect(source)
    if name == "story":
        return Told(validate(source.document or Document(None, source.name), options), name, source)
    return Told(DIALECTS[name].read(source, clock), name, source)


def open_file(path: str | Path) -> Source:
    """The source in a file or a folder; `FILE#3` picks the third entry of a list of stories."""
    if Path(path).is_dir():
        return open_folder(Path(path))
    file, _, pick = str(path).rpartition("#")
    if not file or not pick.isdecimal() or Path(path).exists():
        file, pick = str(path), ""
    source = source_of(read_text(Path(file)), file)
    if not pick:
        return source
    entries = source.data if isinstance(source.data, list) else [source.data]
    if not 1 <= int(pick) <= len(entries):
        raise BadInput(f"{file}: #{pick} is none of its {len(entries)} stories")
    return replace(source, document=Document([entries[int(pick) - 1]], f"{file}#{pick}"))


def read_file(path: str | Path, clock: Clock, dialect: str | None = None, options: tuple[str, ...] = ()) -> Told:
    """A story file in any dialect, see `open_file`.

    Raises:
        BadInput: one line that names file, line and key.
    """
    return replace(read_source(open_file(path), clock, dialect, options), folder=Path(path).parent)


def write(timeline: Timeline, dialect: str) -> str:
    """The timeline in a dialect; BadInput where it has no words for it."""
    if dialect not in DIALECTS or DIALECTS[dialect].write is None:
        raise unknown("dialect", dialect, [name for name, d in DIALECTS.items() if d.write])
    writer = DIALECTS[dialect].write
    assert writer is not None
    return writer(timeline)
