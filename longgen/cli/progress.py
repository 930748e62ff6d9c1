"""Progress on standard error: one bar for sampling, one for frames written. Knows rich, not runs."""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from longgen.runtime.sample import Progress as Step

# Of several processes, the first one speaks.
console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")


def say(line: str) -> None:
    """One line for a person, on standard error."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


class Bars:
    """Context manager; `on_step` and `on_frames` are given to a Job."""

    def __init__(self, frames: int, label: str = "sampling") -> None:
        columns = (TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn())
        self.bars = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
        self.sampling = self.bars.add_task(label, total=None)
        self.writing = self.bars.add_task("frames", total=frames)

    def __enter__(self) -> Bars:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def on_step(self, step: Step) -> None:
        self.bars.update(self.sampling, completed=step.done, total=step.total)

    def on_frames(self, count: int) -> None:
        self.bars.advance(self.writing, count)
