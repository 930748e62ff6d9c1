"""Results on a terminal: tables on standard output, progress on standard error. Knows rich, no formula."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from longgen.metrics.base import MetricInfo
    from longgen.metrics.compare import Comparison
    from longgen.metrics.evaluate import Evaluation

ARROWS = {"higher": "↑", "lower": "↓", "none": " "}


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """A progress bar over `total` videos; silent when standard error is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=total)
        yield lambda path: bar.update(task, advance=1, description=path)


def number(value: float | None) -> str:
    """Four significant digits, or a dash."""
    return "–" if value is None else f"{value:.4g}"


def interval(ci: tuple[float, float] | None) -> str:
    return "" if ci is None else f"{number(ci[0])} … {number(ci[1])}"


def evaluation_table(result: Evaluation) -> None:
    """Summary per metric, then what was skipped or could not be measured, with the reasons."""
    from longgen.metrics import metric

    table = Table(box=None, header_style="bold")
    for name, side in (
        ("metric", "left"),
        ("", "left"),
        ("mean", "right"),
        ("95 % interval", "left"),
        ("videos", "right"),
    ):
        table.add_column(name, justify="right" if side == "right" else "left")
    for name, score in result.summary.items():
        arrow = ARROWS[metric(name).info.better]
        note = interval(score.ci) if score.value is not None else (score.reason or "")
        table.add_row(name, arrow, number(score.value), note, str(score.n))
    console = Console(soft_wrap=True)
    console.print(table)
    for path, reason in result.skipped.items():
        console.print(f"skipped {path}: {reason}", markup=False, highlight=False)
    for name, reason in result.unavailable.items():
        console.print(f"unavailable {name}: {reason}", markup=False, highlight=False)


def comparison_table(result: Comparison, names: tuple[str, str]) -> None:
    """B minus A per metric with its interval; videos without a partner are named."""
    table = Table(box=None, header_style="bold")
    for column in ("metric", "A", "B", "B − A", "95 % interval", "pairs", "better"):
        table.add_column(column)
    for d in result.differences:
        table.add_row(d.metric, number(d.a), number(d.b), number(d.delta), interval(d.ci), str(d.pairs), d.verdict)
    console = Console(soft_wrap=True)
    console.print(f"A = {names[0]}\nB = {names[1]}", markup=False, highlight=False)
    console.print(table)
    for side, videos in (("A", result.only_a), ("B", result.only_b)):
        if videos:
            console.print(f"only in {side}: {', '.join(videos)}", markup=False, highlight=False)


def metric_table(infos: Sequence[MetricInfo]) -> None:
    """All metrics, one line each."""
    table = Table(box=None, header_style="bold")
    for column in ("metric", "", "family", "needs", "VBench", "what it says"):
        table.add_column(column, no_wrap=column == "metric")
    for i in infos:
        needs = ", ".join(sorted(i.needs)) or "–"
        table.add_row(i.id, ARROWS[i.better], i.family, needs, "yes" if i.comparable else "", i.title)
    Console(soft_wrap=True).print(table)
