"""`longgen rerun`: a sidecar becomes the same video again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from longgen.cli.options import Json
from longgen.errors import BadInput


def rerun_command(
    run: Annotated[str, typer.Argument(help="the JSON beside a video")],
    *,
    output: Annotated[str, typer.Option("--output", "-o", help="file (.mp4 .webm .gif .mkv)")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace existing output")] = False,
    json_output: Json = False,
) -> None:
    """Make a video again from its sidecar: the same settings, timeline and seed."""
    from longgen.cli.progress import say
    from longgen.cli.work import Work
    from longgen.config import validated
    from longgen.runtime.sidecar import versions

    told = read_sidecar(Path(run))
    asked = validated({**told["request"], "prompt": told["prompt"] or told["timeline"]["shots"][0]["prompt"]}, run)
    work = Work(output=output, overwrite=overwrite, json=json_output, timeline=timeline_of(told))
    work.check(asked, [asked.prompt or ""], many=False, dry_run=False)
    if work.session.model_hash != told["model"]["weights"]:
        say(f"warning: the weights of {asked.model} are not those of the first run; the video will differ")
    changed = [
        f"{n} {v} (was {told['versions'].get(n)})" for n, v in versions().items() if told["versions"].get(n) != v
    ]
    for name, before in (told.get("conditions") or {}).items():
        if work.plans[0].files.get(name) != before:
            say(f"warning: {told['request'][name]} is not the file of the first run; the video will differ")
    if changed:
        say(f"note: other versions than at the first run: {', '.join(changed)}")
    work.run()


def read_sidecar(path: Path) -> dict[str, Any]:
    """The sidecar's content, or BadInput when the file is none."""
    from longgen.config import read_text

    try:
        told = json.loads(read_text(path, "sidecar"))
    except json.JSONDecodeError as error:
        raise BadInput(f"{path} is not JSON: {error}") from None
    missing = [k for k in ("request", "timeline", "model", "versions") if not (isinstance(told, dict) and k in told)]
    if missing:
        raise BadInput(f"{path} is no sidecar of longgen: it lacks {', '.join(missing)}")
    return dict(told)


def timeline_of(told: dict[str, Any]) -> Any:
    """The timeline that a sidecar holds."""
    from longgen.types import Shot, Timeline

    shots = [Shot(**{**s, "loras": tuple(s.get("loras", ()))}) for s in told["timeline"]["shots"]]
    return Timeline(tuple(shots), float(told["timeline"]["fps"]))
