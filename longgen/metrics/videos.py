"""Which videos are meant and what is known about each: prompts, shots, window boundaries. Knows files, no metric."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longgen.errors import BadInput
from longgen.media import open_video
from longgen.media.read import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from longgen.metrics.base import Video

SAMPLE_NUMBER = re.compile(r"-\d+$")


@dataclass(frozen=True)
class Known:
    """What the user tells about the videos beside the files themselves.

    Args:
        prompts: file name or stem → prompt.
        given: kind ("detections", "captions", …) → file name or stem → results of an outside model.
        entries: prompt → entry of the suite (`dimension`, `auxiliary_info`), VBench's standard mode.
        reference: videos of the reference set.
    """

    prompts: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reference: tuple[Path, ...] = ()


def collect(targets: Sequence[str | Path]) -> list[Path]:
    """Videos behind files, folders (searched through), globs and sidecars; sorted by path, each once.

    A folder of images that holds no video is one video.

    Raises:
        BadInput: a target that does not exist or names no video.
    """
    found: dict[str, Path] = {}
    for target in targets:
        hits = [h for path in _expand(str(target)) for h in _videos_of(path)]
        if not hits:
            raise BadInput(f"{target}: no video there; files {', '.join(sorted(VIDEO_SUFFIXES))} or a folder of PNG")
        found.update({str(h): h for h in hits})
    return [found[key] for key in sorted(found)]


def _expand(target: str) -> list[Path]:
    if Path(target).exists():
        return [Path(target)]
    hits = [Path(p) for p in sorted(glob.glob(target, recursive=True))] if glob.has_magic(target) else []
    if not hits:
        raise BadInput(f"{target}: no such file or folder")
    return hits


def _videos_of(path: Path) -> list[Path]:
    if path.is_dir():
        inside = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()]
        if not inside and any(p.suffix.lower() in IMAGE_SUFFIXES for p in path.iterdir()):
            return [path]
        return inside
    if path.suffix.lower() == ".json":
        return [v for suffix in sorted(VIDEO_SUFFIXES) if (v := path.with_suffix(suffix)).is_file()]
    return [path]


def sidecar_of(path: Path) -> Mapping[str, Any]:
    """The sidecar's content, or an empty mapping when there is none beside the video."""
    side = path.with_suffix(".json")
    if not side.is_file() or side == path:
        return {}
    data = read_json(side)
    return data if isinstance(data, dict) else {}


def boundaries_of(sidecar: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Frames at which a window begins or ends inside the video; None when the sidecar lists no windows."""
    windows = sidecar.get("windows")
    frames = windows.get("frames") if isinstance(windows, Mapping) else None
    if not isinstance(frames, list) or not frames:
        return None
    edges = {int(edge) for window in frames for edge in window}
    return tuple(sorted(edges - {min(edges), max(edges)}))


def shots_of(sidecar: Mapping[str, Any]) -> tuple[tuple[int, str], ...] | None:
    """(first frame, prompt) of each shot of the sidecar's timeline; None when it has none."""
    timeline = sidecar.get("timeline")
    shots = timeline.get("shots") if isinstance(timeline, Mapping) else None
    if not isinstance(shots, list):
        return None
    return tuple((int(s["start"]), str(s["prompt"])) for s in shots)


def prompt_of(path: Path, known: Known, sidecar: Mapping[str, Any]) -> str | None:
    """The prompt by the user's file, the sidecar, or a file name that is a sentence (`<prompt>-<i>.mp4`)."""
    for key in (path.name, path.stem):
        if key in known.prompts:
            return known.prompts[key]
    if isinstance(sidecar.get("prompt"), str):
        return str(sidecar["prompt"])
    stem = SAMPLE_NUMBER.sub("", path.stem)
    return stem if " " in stem or stem in known.entries else None


def describe(path: Path, known: Known) -> Video:
    """Open one video and gather what is known about it. BadInput when it cannot be read."""
    sidecar = sidecar_of(path)
    prompt = prompt_of(path, known, sidecar)
    entry = known.entries.get(prompt or "", {})
    given = {kind: table[key] for kind, table in known.given.items() for key in (path.stem, path.name) if key in table}
    return Video(
        open_video(path),
        prompt=prompt,
        boundaries=boundaries_of(sidecar),
        shots=shots_of(sidecar),
        entry=entry.get("auxiliary_info", {}),
        given=given,
        reference=known.reference,
        dimensions=frozenset(entry["dimension"]) if entry else None,
    )


def read_prompts(path: Path, videos: Sequence[Path]) -> dict[str, str]:
    """`--prompts`: JSON {file name or stem: prompt} (VBench's form), or text, a line per video in sorted order."""
    if path.suffix.lower() == ".json":
        data = read_json(path)
        if not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values()):
            raise BadInput(f"{path}: must be a JSON object of file name → prompt")
        return data
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if len(lines) != len(videos):
        raise BadInput(f"{path}: has {len(lines)} prompts for {len(videos)} videos")
    return {video.name: line for video, line in zip(videos, lines)}


def read_entries(path: Path) -> dict[str, Mapping[str, Any]]:
    """`--full-info`: VBench's full-info JSON, prompt → entry."""
    data = read_json(path)
    if not isinstance(data, list) or not all(isinstance(e, dict) and "prompt_en" in e for e in data):
        raise BadInput(f'{path}: must be a JSON list of objects with "prompt_en" and "dimension"')
    return {e["prompt_en"]: {"dimension": [], **e} for e in data}


def read_given(specs: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """`--given KIND=FILE`: JSON of file name → results, or an .npz of arrays for embeddings."""
    tables: dict[str, Mapping[str, Any]] = {}
    for spec in specs:
        kind, _, file = spec.partition("=")
        if not file:
            raise BadInput(f"--given {spec}: must be KIND=FILE, for example detections=detections.json")
        tables[kind] = _table(Path(file))
    return tables


def _table(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".npz":
        import numpy as np

        if not path.is_file():
            raise BadInput(f"{path}: no such file")
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    data = read_json(path)
    if not isinstance(data, dict):
        raise BadInput(f"{path}: must be a JSON object of file name → results")
    return data


def read_text(path: Path) -> str:
    """UTF-8 text of a file; BadInput when it is missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not a readable UTF-8 file ({error})") from error


def read_json(path: Path) -> Any:
    """Parsed JSON; BadInput names the line that is wrong."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}: not JSON (line {error.lineno}: {error.msg})") from error
