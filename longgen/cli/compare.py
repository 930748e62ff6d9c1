"""`longgen compare`: one prompt and one seed by several methods, side by side in one video and one table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longgen.cli.options import MACHINE, SAMPLING, Json, request, shared
from longgen.config import Request
from longgen.errors import BadInput

if TYPE_CHECKING:
    from longgen.cli.work import Work

GRID = "grid.mp4"


@shared({n: note for n, note in SAMPLING.items() if n != "method"}, MACHINE)
def compare_command(
    *,
    methods: Annotated[str, typer.Option("--methods", help="a,b,c; with ; between them, methods may be composed")],
    output: Annotated[str | None, typer.Option("--output", "-o", help="folder for videos, grid and report")] = None,
    metrics: Annotated[str, typer.Option("--metrics", help="ids or presets, as for eval")] = "long",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="make again what is there")] = False,
    json_output: Json = False,
    **options: Any,
) -> int:
    """The same prompt and noise by several methods: videos, a grid that plays them together, metrics, a report."""
    from longgen.metrics.evaluate import names

    if output is None:
        raise BadInput("compare needs a folder: -o DIR/")
    asked = request(options)
    if asked.prompt is None:
        raise BadInput("no prompt: give --prompt TEXT")
    folder, ids, chosen = Path(output), names(metrics), split_methods(methods)
    works = _checked(asked, chosen, folder, overwrite)
    for work in works:
        work.run()
    return _shown(chosen, [Path(str(work.output)) for work in works], folder, ids, json_output)


def split_methods(text: str) -> list[str]:
    """
    >>> split_methods("direct,fifo"), split_methods("direct; riflex,freenoise")
    (['direct', 'fifo'], ['direct', 'riflex,freenoise'])
    """
    names = [name.strip() for name in text.split(";" if ";" in text else ",")]
    names = list(dict.fromkeys(name for name in names if name))
    if len(names) < 2:
        raise BadInput(f"compare needs two methods or more, for example --methods direct,freenoise (got {text!r})")
    return names


def own_settings(settings: dict[str, Any], method: str) -> dict[str, Any]:
    """Those `method.key` settings that a (composed) method has a use for."""
    parts = {part.strip().partition(".")[0] for part in method.split(",")}
    return {key: value for key, value in settings.items() if key.partition(".")[0] in parts}


def _checked(asked: Request, methods: list[str], folder: Path, overwrite: bool) -> list[Work]:
    """Every method's plan before any video is made, all on one session."""
    from longgen.cli.work import Work

    works: list[Work] = []
    for method in methods:
        name = re.sub(r"[^\w.]+", "+", method)
        own = {"method": method, "set": own_settings(asked.set, method)}
        work = Work(output=str(folder / f"{name}.mp4"), resume=not overwrite, overwrite=overwrite)
        work.session_in_hand = works[0].session if works else None
        work.check(asked.model_copy(update=own), [asked.prompt or ""], many=False, dry_run=False)
        works.append(work)
        asked = asked.model_copy(update={"seed": works[0].plans[0].seed})  # one drawn seed for all
    if lost := set(asked.set) - {key for method in methods for key in own_settings(asked.set, method)}:
        raise BadInput(f"--set {sorted(lost)[0]} belongs to none of the methods compared: {'; '.join(methods)}")
    return works


def _shown(methods: list[str], videos: list[Path], folder: Path, ids: tuple[str, ...], as_json: bool) -> int:
    """The grid, and metrics of all videos with a report beside them."""
    from longgen.cli.eval import evaluate_and_tell
    from longgen.cli.progress import say
    from longgen.media.sheet import comparison_grid
    from longgen.metrics.evaluate import Request as Evaluated
    from longgen.runtime import distribute

    if distribute.rank() != 0:
        return 0
    say(str(comparison_grid(videos, methods, folder / GRID, overwrite=True)))
    return evaluate_and_tell(Evaluated(tuple(videos), ids, out=folder), as_json)
