"""`longgen eval` and `longgen metrics`: score videos, add up published scores, compare two folders. No formula here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longgen.errors import BadInput

if TYPE_CHECKING:
    from longgen.metrics.evaluate import Evaluation, Request
    from longgen.metrics.records import Record

DEFAULT = "vbench-free,long"


def eval_command(
    targets: Annotated[list[str] | None, typer.Argument(help="videos, folders, globs or sidecars")] = None,
    *,
    metrics: Annotated[str, typer.Option("--metrics", help="ids or presets: vbench, vbench-free, long, all")] = DEFAULT,
    totals: Annotated[str | None, typer.Option("--totals", help="JSON of VBench scores: print the totals")] = None,
    compare: Annotated[
        tuple[str, str] | None, typer.Option("--compare", help="two folders of results or videos: paired differences")
    ] = None,
    prompts: Annotated[str | None, typer.Option("--prompts", help="JSON file name → prompt, or a line each")] = None,
    full_info: Annotated[str | None, typer.Option("--full-info", help="VBench's full-info JSON")] = None,
    static_filter: Annotated[bool, typer.Option("--static-filter", help="flicker counts static videos only")] = False,
    given: Annotated[list[str] | None, typer.Option("--given", help="KIND=FILE, results of outside models")] = None,
    backend: Annotated[list[str] | None, typer.Option("--backend", help="ROLE=hf:ID|PATH|random:N|call:m:f")] = None,
    reference: Annotated[str | None, typer.Option("--reference", help="folder of reference videos")] = None,
    device: Annotated[str, typer.Option("--device", help="where backends run: cpu, cuda, cuda:1")] = "cpu",
    output: Annotated[str | None, typer.Option("--output", "-o", help="folder for results and report")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> int:
    """Score videos: VBench dimensions and long-video diagnostics, in one pass over each file."""
    if sum(x is not None for x in (targets or None, totals, compare)) != 1:
        raise BadInput("eval takes one of: paths of videos, --totals FILE, --compare A B")
    if totals is not None:
        return _totals(Path(totals), as_json)

    from longgen.metrics.backends import read_specs
    from longgen.metrics.evaluate import Request, names
    from longgen.metrics.videos import Known, collect, read_entries, read_given, read_prompts

    ids, specs = names(metrics), read_specs(backend or [])
    known = Known(
        given=read_given(given or []),
        entries=read_entries(Path(full_info)) if full_info else {},
        reference=tuple(collect([reference])) if reference else (),
    )
    if compare is not None:
        sides = [_side(folder, Request((), ids, known, specs, device=device)) for folder in compare]
        return _compare(compare, sides, Path(output) if output else None, as_json)
    videos = tuple(collect(targets or []))
    if prompts is not None:
        known = Known(read_prompts(Path(prompts), videos), known.given, known.entries, known.reference)
    request = Request(videos, ids, known, specs, Path(output) if output else None, static_filter, device)
    return evaluate_and_tell(request, as_json)


def metrics_command(as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """List the metrics: what each measures, which way is better, what it needs."""
    from longgen.metrics import METRICS, metric
    from longgen.report.console import metric_table

    infos = [metric(name).info for name in METRICS]
    if as_json:
        rows = [vars(i) | {"needs": sorted(i.needs), "low": _finite(i.low), "high": _finite(i.high)} for i in infos]
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        metric_table(infos)


def _finite(value: float) -> float | None:
    return value if abs(value) != float("inf") else None


def evaluate_and_tell(request: Request, as_json: bool) -> int:
    """Score the videos of a request, write its folder, print a table or JSON; the exit code."""
    from longgen.metrics.evaluate import evaluate
    from longgen.report.console import evaluation_table, progress
    from longgen.report.files import write_all

    if request.out is not None and request.out.exists() and not request.out.is_dir():
        raise BadInput(f"{request.out}: is a file; -o takes a folder")
    with progress(len(request.videos)) as tick:
        result = evaluate(request, tick)
    if result is None:  # a helper process of accelerate launch: process 0 speaks
        return 0
    if request.out is not None:
        write_all(result, request.out)
    typer.echo(json.dumps(result.as_json(), indent=1, ensure_ascii=False)) if as_json else evaluation_table(result)
    return _code(result)


def _code(result: Evaluation) -> int:
    """1 when an asked-for metric cannot run here or no video could be read."""
    return 1 if result.unavailable or len(result.skipped) == len(result.paths) else 0


def _side(folder: str, request: Request) -> list[Record]:
    """Records of one side of a comparison: its results.jsonl, or its videos scored now."""
    from dataclasses import replace

    from longgen.metrics.evaluate import RESULTS, evaluate
    from longgen.metrics.records import read
    from longgen.metrics.videos import collect
    from longgen.report.console import progress

    file = Path(folder) / RESULTS
    if file.is_file():
        return read(file)
    videos = tuple(collect([folder]))
    with progress(len(videos)) as tick:
        result = evaluate(replace(request, videos=videos), tick)
    return list(result.records) if result else []


def _compare(names: tuple[str, str], sides: list[list[Record]], out: Path | None, as_json: bool) -> int:
    from longgen.metrics.compare import compare
    from longgen.report.console import comparison_table

    result = compare(*sides)
    if not result.differences:
        raise BadInput(f"{names[0]} and {names[1]} share no video and metric; videos are paired by file name")
    text = json.dumps({"dirs": list(names), **result.as_json()}, indent=1, ensure_ascii=False)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "comparison.json").write_text(text + "\n", encoding="utf-8")
    typer.echo(text) if as_json else comparison_table(result, names)
    return 0


def _totals(path: Path, as_json: bool) -> int:
    from longgen.metrics.totals import totals_from_object
    from longgen.metrics.videos import read_json

    result: Any = totals_from_object(read_json(path), str(path)).as_json()
    if as_json:
        typer.echo(json.dumps(result))
        return 0
    for name, value in result.items():
        if name == "missing":
            typer.echo(f"missing: {', '.join(value)}" if value else "nothing is missing")
        else:
            typer.echo(f"{name:9} " + ("not all its dimensions are there" if value is None else f"{value:.2f} %"))
    return 0
