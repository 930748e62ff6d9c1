"""`longgen schema`: the JSON Schema of the files that people write."""

from __future__ import annotations

from typing import Annotated

import typer

from longgen.cli.options import as_json
from longgen.errors import unknown


def schema_command(
    kind: Annotated[str, typer.Argument(help="story, recipe or run")],
) -> None:
    """The JSON Schema of a file format, for editors and programs."""
    if kind == "story":
        from longgen.story.schema import json_schema

        typer.echo(as_json(json_schema()))
    elif kind == "recipe":
        from longgen.config import Request

        typer.echo(as_json(Request.model_json_schema()))
    elif kind == "run":
        from longgen.runtime.facts import json_schema as run_schema

        typer.echo(as_json(run_schema()))
    else:
        raise unknown("schema", kind, ("story", "recipe", "run"))
