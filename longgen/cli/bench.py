"""`longgen bench NAME`: measure and record. The only writer of rows in docs/results/."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from longgen.errors import BadInput, unknown


def bench_command(
    name: Annotated[str, typer.Argument(help="which benchmark; `list` names them, `tables` rewrites docs from rows")],
    *,
    option: Annotated[
        list[str] | None, typer.Option("--option", help="key=value for the benchmark; may be repeated")
    ] = None,
    results: Annotated[str | None, typer.Option("--results", help="folder for rows (default docs/results)")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="print the rows as JSON")] = False,
) -> None:
    """Run one benchmark and record its rows."""
    import inspect

    import yaml

    from longgen import registry
    from longgen.bench import BENCHES
    from longgen.bench.rows import RESULTS, Rows
    from longgen.cli.options import as_json

    if name == "list":
        typer.echo("\n".join(BENCHES))
        return
    folder = Path(results) if results else RESULTS
    if name == "tables":
        from longgen.bench.tables import rewrite

        typer.echo("\n".join(rewrite(folder)))
        return
    if name not in BENCHES:
        raise unknown("benchmark", name, BENCHES)
    run = registry.load(BENCHES[name])
    options: dict[str, Any] = {}
    for pair in option or []:
        key, equals, value = pair.partition("=")
        known = [p for p in inspect.signature(run).parameters if p != "rows"]
        if not equals:
            raise BadInput(f"--option takes key=value (got {pair!r})")
        if key not in known:
            raise unknown(f"option of bench {name}", key, known)
        options[key] = yaml.safe_load(value)
    rows = Rows(name, folder)
    before = dict(rows.rows)
    run(rows, **options)
    if json_output:
        typer.echo(as_json([row for key, row in rows.rows.items() if before.get(key) is not row]))
