"""Two sets of results side by side: paired differences with intervals. Knows records, no video."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longgen.metrics import metric
from longgen.metrics.aggregate import bootstrap_ci
from longgen.metrics.records import Record


@dataclass(frozen=True)
class Difference:
    """One metric, B minus A over the videos that both sets scored.

    Args:
        a, b: means over the pairs. delta: mean of B − A. ci: 95 % paired bootstrap interval, None below 2 pairs.
        pairs: number of pairs.
        verdict: "A", "B" (the better one, when the interval excludes 0), "tie" or "none" for descriptive metrics.
    """

    metric: str
    a: float
    b: float
    delta: float
    ci: tuple[float, float] | None
    pairs: int
    verdict: str

    def as_json(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            "delta": self.delta,
            "ci": self.ci and list(self.ci),
            "pairs": self.pairs,
            "better": self.verdict,
        }


@dataclass(frozen=True)
class Comparison:
    """Differences per metric, and the videos that only one set has."""

    differences: tuple[Difference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "metrics": {d.metric: d.as_json() for d in self.differences},
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
        }


def compare(a: Sequence[Record], b: Sequence[Record]) -> Comparison:
    """Pair two result sets by file name and metric; pairs where either side has no value are left out."""
    left, right = _table(a), _table(b)
    names_a, names_b = {video for _, video in left}, {video for _, video in right}
    ids = [m for m in dict.fromkeys(m for m, _ in left) if any(m == other for other, _ in right)]
    rows = [row for m in ids if (row := _difference(m, left, right)) is not None]
    return Comparison(tuple(rows), tuple(sorted(names_a - names_b)), tuple(sorted(names_b - names_a)))


def _table(records: Sequence[Record]) -> dict[tuple[str, str], float]:
    return {(r.metric, r.video): r.score.value for r in records if r.score.value is not None}


def _difference(
    name: str, left: Mapping[tuple[str, str], float], right: Mapping[tuple[str, str], float]
) -> Difference | None:
    shared = sorted(video for metric_id, video in left if metric_id == name and (name, video) in right)
    if not shared:
        return None
    a, b = ([side[name, video] for video in shared] for side in (left, right))
    gaps = [y - x for x, y in zip(a, b)]
    delta = math.fsum(gaps) / len(gaps)
    ci = bootstrap_ci(gaps)
    better = metric(name).info.better
    verdict = "tie"
    if better == "none":
        verdict = "none"
    elif ci is not None and (ci[0] > 0 or ci[1] < 0):
        verdict = "B" if (delta > 0) == (better == "higher") else "A"
    return Difference(name, math.fsum(a) / len(a), math.fsum(b) / len(b), delta, ci, len(gaps), verdict)
