"""What all tables of the docs are made with: recorded rows of one kind, and Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable
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
