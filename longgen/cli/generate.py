"""`longgen generate` and `batch`: options in, sessions run, sidecars out. No logic of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from longgen.cli.options import CONTINUE, MACHINE, SAMPLING, Json, request, shared
from longgen.config import Naming, Request
from longgen.errors import BadInput

Out = Annotated[str | None, typer.Option("--output", "-o", help="file (.mp4 .webm .gif .mkv) or folder ending in /")]


@shared(SAMPLING, CONTINUE, MACHINE)
def generate_command(
    *,
    output: Out = None,
    prompt_file: Annotated[str | None, typer.Option("--prompt-file", help="one prompt per line")] = None,
    samples: Annotated[int, typer.Option("--samples", help="videos per prompt, from seed, seed + 1 …")] = 1,
    naming: Annotated[str, typer.Option("--naming", help="names in a folder: index or vbench")] = "index",
    codec: Annotated[str | None, typer.Option("--codec", help="h264, h265, vp9, gif, ffv1, h264rgb, png")] = None,
    crf: Annotated[int | None, typer.Option("--crf", help="quality of lossy codecs, lower is better")] = None,
    save_latents: Annotated[bool, typer.Option("--save-latents", help="write OUT.safetensors too")] = False,
    init_latents: Annotated[str | None, typer.Option("--init-latents", help="start from this noise")] = None,
    preview_every: Annotated[int, typer.Option("--preview-every", help="write OUT.preview.mp4 every K steps")] = 0,
    contact_sheet: Annotated[bool, typer.Option("--contact-sheet", help="write OUT.png with stills")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on where an interrupted run stopped")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace existing output")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan; load and write nothing")] = False,
    json_output: Json = False,
    **options: Any,
) -> None:
    """A long video from a prompt."""
    from longgen.cli.work import Work

    asked, prompts = _prompts(options, prompt_file)
    work = Work(
        output=output,
        samples=samples,
        naming=_naming(naming),
        codec=codec,
        crf=crf,
        save_latents=save_latents,
        init_latents=Path(init_latents) if init_latents else None,
        preview_every=preview_every,
        contact_sheet=contact_sheet,
        resume=resume,
        overwrite=overwrite,
        json=json_output,
    )
    work.check(asked, prompts, many=prompt_file is not None, dry_run=dry_run)
    if dry_run:
        work.show()
    else:
        work.run()


@shared(SAMPLING, CONTINUE, MACHINE)
def batch_command(
    jobs: Annotated[str, typer.Argument(help="prompts, one per line (.txt), or a YAML list of requests")],
    *,
    output: Out = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="only what failed before")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="make again what is there")] = False,
    contact_sheet: Annotated[bool, typer.Option("--contact-sheet", help="write a PNG with stills beside each")] = False,
    save_latents: Annotated[bool, typer.Option("--save-latents", help="write latents beside each")] = False,
    json_output: Json = False,
    **options: Any,
) -> None:
    """Many videos, one model load; what is done already is skipped, what fails is reported at the end."""
    from longgen.cli.batch import run_batch

    if output is None:
        raise BadInput("batch needs a folder: -o DIR/")
    extra = {"overwrite": overwrite, "contact_sheet": contact_sheet, "save_latents": save_latents}
    raise typer.Exit(run_batch(Path(jobs), Path(output), options, retry_failed, json_output, extra))


def _prompts(options: dict[str, Any], prompt_file: str | None) -> tuple[Request, list[str]]:
    from longgen.runtime.outputs import read_prompts

    if prompt_file is not None:
        if options.get("prompt") is not None:
            raise BadInput("give --prompt or --prompt-file, not both")
        prompts = read_prompts(Path(prompt_file))
        return request(options, prompts[0]), prompts
    asked = request(options)
    if asked.prompt is None:
        raise BadInput("no prompt: give --prompt TEXT or --prompt-file FILE")
    return asked, [asked.prompt]


def _naming(name: str) -> Naming:
    if name == "index":
        return "index"
    if name == "vbench":
        return "vbench"
    raise BadInput(f"--naming must be index or vbench (got {name!r})")
