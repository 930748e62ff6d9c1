"""What all tables of the docs are made with: recorded rows of one kind, and Markdown."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from longgen.shapes.judge import wilson

Row = dict[str, Any]


def load(folder: Path, kind: str) -> list[Row]:
    """Rows of one kind, in the order in which they were recorded."""
    path = folder / f"{kind}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def table(head: Iterable[str], body: Iterable[Iterable[str]]) -> list[str]:
    """A Markdown table, or a line that says that nothing was measured."""
    rows = [list(r) for r in body]
    if not rows:
        return ["Not measured."]
    columns = list(head)
    return [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *(f"| {' | '.join(r)} |" for r in rows)]


def share(hits: int, count: int) -> str:
    """A share in percent with its 95 % Wilson interval."""
    low, high = wilson(hits, count)
    return f"{100 * hits / count:.0f} % ({100 * low:.0f}–{100 * high:.0f})"


def half_interval(values: Sequence[float]) -> float:
    """Half the 95 % interval of a mean, by Student's t as the videos are few; 0 for a single value."""
    from scipy.stats import t  # of the test extra, as whoever makes tables works on the project

    if len(values) < 2:
        return 0.0
    return float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
