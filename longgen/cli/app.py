"""The commands by name. Knows typer; every command imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from longgen.cli import bench, compare, decode, eval, generate, info, plan, rerun, schema, story
from longgen.errors import BadInput

app = typer.Typer(
    name="longgen",
    help="Long videos from any pretrained text-to-video diffusion transformer, without training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=False)
def root(
    version: Annotated[bool, typer.Option("--version", help="print the version and leave")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show a traceback when something fails")] = False,
) -> None:
    """Long videos from any pretrained text-to-video diffusion transformer, without training."""


app.command("generate")(generate.generate_command)
app.command("batch")(generate.batch_command)
app.command("plan")(plan.plan_command)
app.command("story")(story.story_command)
app.command("decode")(decode.decode_command)
app.command("eval")(eval.eval_command)
app.command("metrics")(eval.metrics_command)
app.command("compare")(compare.compare_command)
app.command("bench")(bench.bench_command)
app.command("rerun")(rerun.rerun_command)
app.command("models")(info.models_command)
app.command("methods")(info.methods_command)
app.command("doctor")(info.doctor_command)
app.command("schema")(schema.schema_command)


def run(args: list[str]) -> int:
    """Run one command line; usage errors become BadInput."""
    if args == ["--version"]:
        from longgen import __version__

        typer.echo(f"longgen {__version__}")
        return 0
    command = typer.main.get_command(app)
    try:
        result: Any = command.main(args, prog_name="longgen", standalone_mode=False)
    except Exception as error:  # typer carries its own copy of click: its errors are known by what they can do
        if hasattr(error, "format_message"):
            if type(error).__name__ == "NoArgsIsHelpError":
                typer.echo(error.format_message())
                return 0
            raise BadInput(error.format_message().replace("\n", " ")) from None
        if type(error).__name__ == "Abort":
            raise KeyboardInterrupt from None
        raise
    return result if isinstance(result, int) else 0
