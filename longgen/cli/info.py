"""`longgen models`, `methods` and `doctor`: what there is and whether it works here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="print as JSON")]


def methods_command(json_output: Json = False) -> None:
    """The methods, what they need, cost and promise."""
    from longgen import registry
    from longgen.cli.options import as_json

    infos = [registry.method(name).info for name in registry.METHODS]
    if json_output:
        composed = [{"name": n, "method": m, "set": s} for n, (m, s) in registry.COMPOSITIONS.items()]
        typer.echo(as_json([*(_method(i) for i in infos), *composed]))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("method", "slots", "cost", "finality", "paper", "what"):
        table.add_column(column, overflow="fold", no_wrap=column in ("method", "paper"))
    for i in infos:
        table.add_row(i.name, " ".join(i.slots), i.cost, i.finality, i.paper or "–", i.title)
    for name, (parts, settings) in registry.COMPOSITIONS.items():
        given = " ".join(f"{key}={value:g}" for key, value in settings.items())
        table.add_row(name, "", "", "", "–", f"{parts} with {given}")
    _print(table)


def _method(info: Any) -> dict[str, Any]:
    facts = asdict(info)
    facts["needs"] = sorted(info.needs)
    return facts


def models_command(
    model: Annotated[str | None, typer.Argument(help="a folder or hub id; all known families by default")] = None,
    json_output: Json = False,
) -> None:
    """The models, their facts, and which methods run on them (with the reason where one does not)."""
    from longgen.cli.options import as_json
    from longgen.runtime.matrix import matrix

    rows = matrix(model)
    if json_output:
        typer.echo(as_json(rows))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("model", "variant", "native", "size", "fps", "latent stride", "refused methods"):
        table.add_column(column, overflow="fold")
    for row in rows:
        refused = [f"{name} ({why})" for name, why in row["methods"].items() if why]
        native = f"{row['native_frames']} frames"
        size = f"{row['native_size'][1]}x{row['native_size'][0]}"
        table.add_row(
            row["id"], row["variant"], native, size, f"{row['fps']:g}", str(row["stride"]), "; ".join(refused) or "none"
        )
    _print(table)


def doctor_command(json_output: Json = False) -> None:
    """Versions, devices, attention engines with their self-test, and the embedded model."""
    from longgen.cli.options import as_json

    facts = examine()
    if json_output:
        typer.echo(as_json(facts))
        return
    for part in ("versions", "devices", "embedded model"):
        table = Table(title=part, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
        for key, value in facts[part].items():
            table.add_row(key, str(value))
        _print(table)
    table = Table(title="attention engines", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in facts["attention"][0]:
        table.add_column(column, overflow="fold")
    for row in facts["attention"]:
        table.add_row(*(str(v) for v in row.values()))
    _print(table)


def examine() -> dict[str, Any]:
    """All that `doctor` says, as plain values."""
    import torch

    from longgen import attention
    from longgen.errors import BadInput
    from longgen.models import describe
    from longgen.runtime.sidecar import versions, weights_hash

    devices = {"cpu": f"{torch.get_num_threads()} threads"}
    for i in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(i)
        devices[f"cuda:{i}"] = f"{found.name}, {found.total_memory / 2**30:.0f} GiB, sm{found.major}{found.minor}"
    try:
        from longgen.runtime.sidecar import file_hashes

        folder = describe.resolve("shapes")
        embedded = {"folder": str(folder), "weights": weights_hash(file_hashes(folder))}
    except BadInput as error:
        embedded = {"missing": str(error)}
    engines = attention.table("cuda" if torch.cuda.is_available() else "cpu")
    return {"versions": versions(), "devices": devices, "embedded model": embedded, "attention": engines}


def _print(table: Table) -> None:
    from rich.console import Console

    Console().print(table)
