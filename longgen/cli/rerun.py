"""`longgen rerun`: a sidecar becomes the same video again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from longgen.cli.options import Json


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
    from longgen.runtime.sidecar import read_sidecar, versions

    told = read_sidecar(Path(run))
    asked = validated({**told.request, "prompt": told.prompt or told.timeline.shots[0].prompt}, run)
    work = Work(output=output, overwrite=overwrite, json=json_output, timeline=told.timeline)
    work.check(asked, [asked.prompt or ""], many=False, dry_run=False)
    if work.session.model_hash != told.weights:
        say(f"warning: the weights of {asked.model} are not those of the first run; the video will differ")
    for name, before in told.conditions.items():
        if work.plans[0].files.get(name) != before:
            say(f"warning: {told.request[name]} is not the file of the first run; the video will differ")
    first = told.versions
    changed = [f"{n} {v} (was {first.get(n)})" for n, v in versions().items() if first.get(n) != v]
    if changed:
        say(f"note: other versions than at the first run: {', '.join(changed)}")
    work.run()
