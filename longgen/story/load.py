"""Reading YAML and JSON that nobody vouches for, with the line of every value.

Knows files and plain data. Aliases and anchors are refused (a few lines of them can expand to gigabytes), as are
repeated keys, deep nesting, tags, files over a megabyte and bytes that are not UTF-8.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from longgen.errors import BadInput

MAX_BYTES = 1_000_000
MAX_DEPTH = 16
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where the wheel has it: 20 times faster

Path_ = tuple[str | int, ...]  # where a value stands: ("shots", 2, "prompt")


@dataclass(frozen=True)
class Document:
    """Plain data and the line (from 1) on which each value begins."""

    data: Any
    source: str
    lines: dict[Path_, int] = field(default_factory=dict)

    def where(self, place: Path_) -> str:
        """`story.yaml, line 12, shots[2].prompt`, with the nearest line that is known."""
        known = next((self.lines[place[:n]] for n in range(len(place), -1, -1) if place[:n] in self.lines), None)
        name = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")
        return ", ".join(part for part in (self.source, f"line {known}" if known else "", name) if part)


def read_text(path: Path) -> str:
    """The text of a story file.

    Raises:
        BadInput: missing, a folder, unreadable, over `MAX_BYTES`, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise BadInput(f"story file {path} does not exist") from None
    except IsADirectoryError:
        raise BadInput(f"{path} is a folder; give a story file") from None
    except OSError as error:
        raise BadInput(f"story file {path} cannot be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise BadInput(f"story file {path} is over {MAX_BYTES // 1_000_000} MB; a story is text")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BadInput(f"{path}, line {line}: byte {error.start} is not UTF-8; save the file as UTF-8") from None


def parse(text: str, source: str) -> Document:
    """YAML or JSON as a document."""
    if text.lstrip()[:1] in {"{", "["}:
        try:
            data = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, source))
        except (ValueError, RecursionError):
            pass  # YAML's flow style also begins with a bracket
        else:
            return Document(data, source, _lines(text))
    return _parse_yaml(text, source)


def _unique(pairs: list[tuple[str, Any]], source: str) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise BadInput(f"{source}: the key {key!r} stands twice")
    return dict(pairs)


def _lines(text: str) -> dict[Path_, int]:
    """Lines of a JSON text, which is YAML but for tabs and escapes."""
    try:
        return _parse_yaml(text.replace("\t", " "), "").lines
    except (BadInput, ValueError):
        return {}


def _parse_yaml(text: str, source: str) -> Document:
    try:
        _refuse_bombs(text, source)
        node = yaml.compose(text, Loader=LOADER)
        lines: dict[Path_, int] = {}
        data = None if node is None else _value(node, (), lines, source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f", line {mark.line + 1}" if mark else ""
        raise BadInput(f"{source}{at}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    return Document(data, source, lines)


def _refuse_bombs(text: str, source: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        at = f"{source}, line {event.start_mark.line + 1 if event.start_mark else 1}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise BadInput(f"{at}: aliases (&name, *name) are not allowed; write the text out")
        tag = getattr(event, "tag", None)
        if tag:
            raise BadInput(f"{at}: tags ({tag}) are not allowed; a story is plain text and numbers")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise BadInput(f"{at}: nested more than {MAX_DEPTH} deep")


def _value(node: yaml.Node, place: Path_, lines: dict[Path_, int], source: str) -> Any:
    """A node as plain data; its line goes to `lines`."""
    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        return [_value(child, (*place, i), lines, source) for i, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        found: dict[Any, Any] = {}
        for key_node, child in node.value:
            # A key such as 8:12 is a range of frames here; YAML 1.1 would read it as a number of base 60.
            key = key_node.value if ":" in str(key_node.value) else _scalar(key_node)
            if not isinstance(key, str | int | float):
                raise BadInput(f"{source}, line {key_node.start_mark.line + 1}: a key must be a word or a number")
            if key in found:
                raise BadInput(f"{source}, line {key_node.start_mark.line + 1}: the key {key!r} stands twice")
            found[key] = _value(child, (*place, key if isinstance(key, int) else str(key)), lines, source)
            lines[(*place, key if isinstance(key, int) else str(key))] = key_node.start_mark.line + 1
        return found
    return _scalar(node)


def _scalar(node: yaml.Node) -> Any:
    return yaml.SafeLoader("").construct_object(node, deep=True)
