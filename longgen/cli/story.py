"""`longgen story`: a story becomes a timeline, the timeline a video. No logic of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longgen.cli.options import MACHINE, SAMPLING, Json, as_json, request, shared
from longgen.errors import BadInput

if TYPE_CHECKING:
    from longgen.cli.work import Work
    from longgen.story.telling import Telling
    from longgen.types import Timeline


@shared(SAMPLING, MACHINE)
def story_command(
    story: Annotated[str | None, typer.Argument(help="story file in any dialect, or a run's sidecar")] = None,
    *,
    from_text: Annotated[str | None, typer.Option("--from", help="a paragraph, split into shots")] = None,
    shots: Annotated[int | None, typer.Option("--shots", min=1, help="with --from: at most this many shots")] = None,
    endpoint: Annotated[str | None, typer.Option("--endpoint", help="OpenAI-compatible URL that splits --from")] = None,
    endpoint_model: Annotated[str, typer.Option("--endpoint-model", help="its model")] = "default",
    endpoint_key: Annotated[str, typer.Option("--endpoint-key-env", help="variable with its key")] = "OPENAI_API_KEY",
    dialect: Annotated[str | None, typer.Option("--dialect", help="how the file is written; found by default")] = None,
    show: Annotated[bool, typer.Option("--show", help="print the timeline; load and write nothing")] = False,
    show_as: Annotated[str | None, typer.Option("--as", help="with --show: in this dialect, such as story")] = None,
    only: Annotated[str | None, typer.Option("--only", help="make this shot of a saved run again")] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="file (.mp4 .webm .gif .mkv)")] = None,
    clips: Annotated[bool, typer.Option("--clips", help="write each shot to OUT.shots/ too")] = False,
    storyboard: Annotated[bool, typer.Option("--storyboard", help="write OUT.png: stills, prompts, times")] = False,
    codec: Annotated[str | None, typer.Option("--codec", help="h264, h265, vp9, gif, ffv1, h264rgb, png")] = None,
    crf: Annotated[int | None, typer.Option("--crf", help="quality of lossy codecs, lower is better")] = None,
    save_latents: Annotated[bool, typer.Option("--save-latents", help="needed for --only later")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on where an interrupted run stopped")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace existing output")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan; load and write nothing")] = False,
    json_output: Json = False,
    **options: Any,
) -> None:
    """A video in shots, from a story file or a paragraph."""
    from longgen.cli.again import make_again
    from longgen.cli.work import Work
    from longgen.story.planner import Endpoint
    from longgen.story.telling import Telling, shown, to_story

    if (story is None) == (from_text is None):
        raise BadInput("give a story file, or --from TEXT")
    if options.get("prompt") is not None:
        raise BadInput("a story has its prompts in its file; use `longgen generate` for --prompt")
    work = Work(output, codec=codec, crf=crf, save_latents=save_latents, contact_sheet=storyboard, resume=resume)
    work.overwrite, work.json = overwrite, json_output
    _belongs({"--shots": shots, "--endpoint": endpoint}, "--from", from_text is not None)
    _belongs({"--as": show_as}, "--show", show)
    _belongs({"--dialect": dialect}, "a story file", story is not None)
    if only is not None:
        _belongs({"--show": show or None, "--dry-run": dry_run or None}, "a whole story, not to --only", False)
        make_again(work, Path(story or ""), only, options)
        _beside(work, clips)
        return
    if story is not None:
        telling = Telling.of_file(story, dialect)
    else:
        server = Endpoint(endpoint, endpoint_model, os.environ.get(endpoint_key, "")) if endpoint else None
        telling = Telling.of_text(from_text or "", shots, server)
    asked = request(telling.options(options))
    timeline = _timeline(work, telling, asked)
    if show:
        typer.echo(as_json(to_story(timeline)) if json_output else shown(timeline, show_as))
        return
    work.check(telling.with_media(asked, timeline), [telling.title(timeline)], many=False, dry_run=dry_run)
    if dry_run:
        work.show()
        return
    work.run()
    _beside(work, clips)


def _belongs(given: dict[str, Any], to: str, there: bool) -> None:
    """An option that would do nothing is refused."""
    for name, value in given.items():
        if value is not None and not there:
            raise BadInput(f"{name} belongs to {to}")


def _timeline(work: Work, telling: Telling, asked: Any) -> Timeline:
    from longgen.api import Session, load_options

    work.session_in_hand = session = Session(asked.model, load_options(asked))
    work.timeline = telling.timeline(asked, session.info)
    return work.timeline


def _beside(work: Work, clips: bool) -> None:
    from longgen.cli.progress import say
    from longgen.media.clips import write_clips
    from longgen.story.subtitles import write_beside

    for plan, target in zip(work.plans, work.targets, strict=True):
        assert target is not None
        timeline = plan.told
        for path in write_beside(target.path, timeline):
            say(str(path))
        if clips:
            spans = [(s.id, s.start, s.stop) for s in timeline.shots]
            folder = target.path.with_name(target.path.stem + ".shots")
            for path in write_clips(target.path, spans, folder, target.path.suffix or ".mp4"):
                say(str(path))
