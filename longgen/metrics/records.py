"""results.jsonl: one line per video and metric, with its whole recipe; the cache that makes a run resumable."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from longgen import __version__
from longgen.errors import BadInput
from longgen.metrics.base import Metric, Score, Video


@dataclass(frozen=True)
class Record:
    """One result: what was measured, by what, on what, and the score.

    Args:
        video: file name. path: where it lay. hash: SHA-256 of the file, or of the folder's files in order.
        backend: role=weights id, comma separated; "none" without weights.
        inputs: digest of what else the value depends on (prompt, boundaries, given results), by the metric's needs.
        decoder: library and version; frames and fps: what was decoded (all frames, at the file's rate).
    """

    video: str
    path: str
    hash: str
    metric: str
    version: int
    backend: str
    inputs: str
    comparable: bool
    frames: int
    fps: float
    decoder: str
    longgen: str
    score: Score

    @property
    def key(self) -> tuple[str, str, int, str, str]:
        """Equal keys have equal values: the cache is addressed by it."""
        return (self.hash, self.metric, self.version, self.backend, self.inputs)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of all files of an image folder in the order of their names."""
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    return _digest(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=4096)
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for file, _, _ in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def inputs_digest(video: Video, needs: frozenset[str]) -> str:
    """Digest of the knowledge that a metric with these needs looks at; "" when it needs nothing but pixels."""
    facts = {
        "text": [video.prompt, dict(video.entry)],
        "boundaries": video.boundaries,
        "shots": video.shots,
        "given": {k: _plain(v) for k, v in video.given.items()},
        "reference": [file_hash(p) for p in video.reference] if "reference" in needs else [],
    }
    used = {name: value for name, value in facts.items() if name in needs}
    if not used:
        return ""
    return hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    return hashlib.sha256(value.tobytes()).hexdigest() if isinstance(value, np.ndarray) else value


def make(video: Video, digest: str, cls: type[Metric], backend: str, comparable: bool, score: Score) -> Record:
    """The record of a score; also the address under which an earlier one would be found."""
    import av

    info = cls.info
    return Record(
        video=video.path.name,
        path=str(video.path),
        hash=digest,
        metric=info.id,
        version=info.version,
        backend=backend,
        inputs=inputs_digest(video, info.needs - {"reference"} if cls.corpus else info.needs),
        comparable=comparable,
        frames=video.frames,
        fps=round(video.fps, 6),
        decoder=f"PyAV {av.__version__}",
        longgen=__version__,
        score=score,
    )


def to_line(record: Record) -> str:
    """One JSON line; items and extras are rounded to 6 significant digits, values stay exact."""
    data = asdict(record)
    score = data.pop("score")
    score["items"], score["extras"] = _rounded(score["items"]), _rounded(score["extras"])
    return json.dumps(data | score, ensure_ascii=False)


def from_line(line: str) -> Record:
    data = json.loads(line)
    names = Score.__dataclass_fields__
    fields: dict[str, Any] = {k: data.pop(k) for k in list(data) if k in names}
    fields["items"] = tuple(fields["items"])
    fields["ci"] = tuple(fields["ci"]) if fields["ci"] else None
    return Record(**data, score=Score(**fields))


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_rounded(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{float(value):.6g}")
    return value.item() if isinstance(value, np.generic) else value


class Journal:
    """results.jsonl of one folder: read at the start, appended to while running, written in order at the end."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.records: dict[tuple[str, str, int, str, str], Record] = {}
        if path is not None and path.is_file():
            self.records = {r.key: r for r in read(path)}
            if not path.read_bytes().endswith(b"\n"):  # a crash cut the last line: nothing may be appended to it
                write(path, self.records.values())

    def find(self, wanted: Record) -> Record | None:
        """The earlier result under the same key, told of where the video lies now."""
        old = self.records.get(wanted.key)
        return None if old is None else replace(old, video=wanted.video, path=wanted.path)

    def append(self, records: Iterable[Record]) -> None:
        records = list(records)
        self.records.update({r.key: r for r in records})
        if self.path is not None and records:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.writelines(to_line(r) + "\n" for r in records)


def read(path: Path) -> list[Record]:
    """Records of a results.jsonl; a last line cut off by a crash is dropped, any other bad line is bad input."""
    lines = path.read_text(encoding="utf-8").split("\n")
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            records.append(from_line(line))
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):
                break
            raise BadInput(f"{path}: line {number} is no result ({error})") from error
    return records


def write(path: Path, records: Iterable[Record]) -> None:
    """Write records in the order of path and metric, atomically."""
    part = path.with_name(f".{path.name}.part")
    part.write_text("".join(to_line(r) + "\n" for r in sorted(records, key=lambda r: (r.path, r.metric))), "utf-8")
    os.replace(part, path)
