"""Docs tables of stories: every schedule and method on the reporting half, and the default that the other half chose.

Knows the rows of `longgen bench story`. Stories with an even index choose, the others report, so no figure on a page
was used to pick what stands beside it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from longgen.bench.markdown import Row, half_interval, load, table
from longgen.bench.story import CELLS
from longgen.bench.story_scores import ATTRIBUTES
from longgen.shapes.judge import wilson

Cell = tuple[str, str, str]  # transition, schedule, method
Stories = dict[tuple[int, int], Row]  # (shots, index) → one story's figures
AIM_KEPT, AIM_LEAKED = 0.95, 2.0


def cells(folder: Path, half: int, shots: int | None = None) -> dict[Cell, Stories]:
    """Stories of one half (0 chooses, 1 reports) by transition, schedule and method, of the newest settings alone."""
    rows = [r for r in load(folder, "story") if "stories" in r]
    found: dict[Cell, Stories] = {}
    for row in rows:
        if _settings(row) == _settings(rows[-1]) and shots in (None, row["shots"]):
            cell = found.setdefault((row["transition"], row["schedule"], row["method"]), {})
            cell |= {(row["shots"], int(i)): s for i, s in row["stories"].items() if int(i) % 2 == half}
    return {cell: stories for cell, stories in found.items() if stories}


def _settings(row: Row) -> tuple[Any, ...]:
    return row["steps"], row["shot_frames"], row["model_hash"]


def ratio(kept: Sequence[float], base: Sequence[float]) -> tuple[float, float]:
    """Σ kept / Σ base and half its 95 % interval (delta method over stories; 0 for one story)."""
    share = sum(kept) / sum(base)
    if len(kept) < 2:
        return share, 0.0
    rest = [k - share * b for k, b in zip(kept, base, strict=True)]
    return share, half_interval(rest) / statistics.fmean(base)


def mean(values: Sequence[float]) -> tuple[float, float]:
    """The mean and half its 95 % interval (0 for one value)."""
    return statistics.fmean(values), half_interval(values)


def by_tale(stories: Stories, read: Callable[[Row], float]) -> list[float]:
    """One figure per tale: its short stories are beginnings of its long one, so they are averaged, not counted."""
    tales: dict[int, list[float]] = {}
    for (_, index), story in stories.items():
        tales.setdefault(index, []).append(read(story))
    return [statistics.fmean(values) for values in tales.values()]


def _part(name: str, attribute: int, story: Row) -> float:
    return float(story[name][attribute])


def figures(stories: Stories) -> dict[str, Any]:
    """A cell's figures: (value, half interval) for shares, (share, low, high) for transitions in place."""
    told = list(stories.values())
    found: dict[str, Any] = {
        a: ratio(*(by_tale(stories, partial(_part, name, i)) for name in ("kept", "base")))
        for i, a in enumerate(ATTRIBUTES)
    }
    hits, count = sum(s["in_place"] for s in told), sum(len(s["errors"]) for s in told)
    found["in_place"] = (hits / count, *wilson(hits, count))
    found["leaked"] = mean(by_tale(stories, lambda s: 100 * (s["leaked"] - s["confused"])))
    found["told"] = mean(by_tale(stories, lambda s: s["told"]))
    found["base_told"] = mean(by_tale(stories, lambda s: s["base_told"]))
    found["aims"] = min(found[a][0] for a in ATTRIBUTES) >= AIM_KEPT and found["leaked"][0] <= AIM_LEAKED
    return found


def story(folder: Path, args: list[str]) -> list[str]:
    """One transition (`transition=cut`), all counts or one (`shots=3`): every schedule and method on the half that
    reports, best first."""
    asked = dict(a.split("=") for a in args)
    shots = int(asked["shots"]) if "shots" in asked else None
    told = [(c, s, figures(s)) for c, s in cells(folder, 1, shots).items() if c[0] == asked["transition"]]
    told.sort(key=lambda item: -item[2]["told"][0])
    head = ["method", "schedule", "stories", *ATTRIBUTES, "in place", "leakage (points)", "all four", "base's own"]
    return table(head, [_cells(c, len(s), f) for c, s, f in told])


def _cells(cell: Cell, count: int, found: dict[str, Any]) -> list[str]:
    place, low, high = found["in_place"]
    told = [_percent(*found[a]) for a in ATTRIBUTES]
    told += [f"{100 * place:.0f} % ({100 * low:.0f}–{100 * high:.0f})", "{:+.1f} ± {:.1f}".format(*found["leaked"])]
    return [f"`{cell[2]}`", f"`{cell[1]}`", str(count), *told, _percent(*found["told"]), _percent(*found["base_told"])]


def _percent(value: float, half: float) -> str:
    return f"{100 * value:.1f} ± {100 * half:.1f} %"


def choose(folder: Path, transition: str) -> Cell | None:
    """On the half that chooses, and among what was measured on the most stories: the simplest schedule and method (the
    first of `bench.story.CELLS`) whose share of frames right in all four words is not surely below the largest."""
    found = {c: s for c, s in cells(folder, 0).items() if c[0] == transition}
    most = max((len(s) for s in found.values()), default=0)
    found = {c: s for c, s in found.items() if len(s) == most}
    if not found:
        return None
    best = max(found.values(), key=lambda stories: statistics.fmean(t["told"] for t in stories.values()))
    tied = (c for c, (behind, half) in ((c, _behind(best, s)) for c, s in found.items()) if behind + half >= 0)
    return min(tied, key=lambda c: CELLS.index(c) if c in CELLS else len(CELLS))


def choice(folder: Path, args: list[str]) -> list[str]:
    """Per transition what the choosing half picks, and how far the others fall behind it on the reporting half."""
    body = []
    for transition in ("cut", "continue", "blend"):
        best = choose(folder, transition)
        told = cells(folder, 1)
        if best is None or best not in told:
            continue
        body.append([transition, _name(best), "chosen", _percent(*mean(by_tale(told[best], lambda s: s["told"])))])
        rest = [(c, _behind(told[best], s)) for c, s in told.items() if c[0] == transition and c != best]
        for cell, (difference, half) in sorted((r for r in rest if r[1]), key=lambda r: -r[1][0]):
            body.append([transition, _name(cell), f"{100 * difference:+.1f} ± {100 * half:.1f} points", ""])
    return table(["transition", "method, schedule", "beside the chosen one", "all four words right"], body)


def _behind(best: Stories, other: Stories) -> tuple[float, float]:
    """Difference of "all four" from the best, over the stories of both; empty where there are none."""
    both = sorted(set(best) & set(other))
    differences = {i: {"told": other[i]["told"] - best[i]["told"]} for i in both}
    return mean(by_tale(differences, lambda s: s["told"])) if both else (-math.inf, 0.0)


def _name(cell: Cell) -> str:
    return f"`{cell[2]}`, `{cell[1]}`"


def by_count(folder: Path, args: list[str]) -> list[str]:
    """The chosen ones at each number of shots, on the half that reports."""
    body = []
    for transition in ("cut", "continue", "blend"):
        best = choose(folder, transition)
        for shots in (2, 3, 6):
            told = cells(folder, 1, shots)
            if best in told:
                found = figures(told[best])
                aims = "yes" if found["aims"] else "**no**"
                body.append([transition, str(shots), *_cells(best, len(told[best]), found), aims])
    head = ["transition", "shots", "method", "schedule", "stories", *ATTRIBUTES, "in place", "leakage (points)"]
    return table([*head, "all four", "base's own", "aims met"], body)


TABLES = {"story": story, "story-choice": choice, "story-counts": by_count}
