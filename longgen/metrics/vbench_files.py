"""VBench's own result files, read and written, so that results are interchangeable. Knows formats, no formula.

`<name>_eval_results.json`: {dimension: [aggregate, [{"video_path", "video_results", …}]]}. Aggregates are fractions;
imaging quality is 0-100 per video and a fraction in the aggregate, as in the official code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longgen.errors import BadInput
from longgen.metrics.base import Score
from longgen.metrics.evaluate import Evaluation
from longgen.metrics.totals import RANGES
from longgen.metrics.videos import read_json

PER_VIDEO_SCALE = {"imaging_quality": 100.0}
EXTRA_KEYS = ("video_sim", "cnt_per_video", "success_frame_count", "frame_count", "frame_results", "cor_num_per_video")


@dataclass(frozen=True)
class Dimension:
    """One dimension of a result file: corpus value and (path, value, further keys) per video."""

    aggregate: float
    videos: tuple[tuple[str, float, Mapping[str, Any]], ...]


def write_results(path: Path, evaluation: Evaluation) -> bool:
    """Write the comparable dimensions of an evaluation in VBench's format; False when it holds none."""
    content: dict[str, Any] = {}
    for name in RANGES:
        records = [r for r in evaluation.records if r.metric == name and r.comparable and r.score.value is not None]
        if name in evaluation.summary and records and evaluation.summary[name].value is not None:
            rows = [{"video_path": r.path, **_row(name, r.score)} for r in records]
            content[name] = [evaluation.summary[name].value, rows]
    if content:
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return bool(content)


def _row(name: str, score: Score) -> dict[str, Any]:
    assert score.value is not None
    extras = {key: score.extras[key] for key in EXTRA_KEYS if key in score.extras}
    value: Any = score.value * PER_VIDEO_SCALE.get(name, 1)
    return {"video_results": bool(value) if name == "dynamic_degree" else value, **extras}


def read_results(path: Path) -> dict[str, Dimension]:
    """Read a VBench result file (official or ours). BadInput when it has another shape."""
    data = read_json(path)
    if not isinstance(data, dict):
        raise BadInput(f"{path}: not a VBench result file, {{dimension: [aggregate, [videos]]}}")
    result = {}
    for name, value in data.items():
        if not (isinstance(value, list) and len(value) >= 2 and isinstance(value[1], list)):
            raise BadInput(f"{path}: {name} is not [aggregate, [videos]]")
        rows = value[1]
        videos = [(r["video_path"], float(r["video_results"]), r) for r in rows if isinstance(r, dict)]
        scale = PER_VIDEO_SCALE.get(name, 1)
        result[name] = Dimension(float(value[0]), tuple((p, v / scale, r) for p, v, r in videos))
    return result
