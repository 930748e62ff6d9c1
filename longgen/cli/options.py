"""The options that commands share, once. Knows spellings and help texts; validation is `longgen.config`'s."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from longgen.config import Request, parse_duration, parse_settings, parse_size, read_recipe, validated
from longgen.errors import BadInput

F = TypeVar("F", bound=Callable[..., Any])
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]


def _opt(kind: Any, *flags: str, help: str, panel: str, metavar: str | None = None) -> Any:
    return Annotated[kind, typer.Option(*flags, help=help, rich_help_panel=panel, metavar=metavar, show_default=False)]


TEXT, PATH, INT, FLOAT, BOOL = str | None, str | None, int | None, float | None, bool | None
LIST = list[str] | None

# field of Request (or of the command) → its option; every default is None, so that a recipe can speak.
SAMPLING: dict[str, Any] = {
    "prompt": _opt(TEXT, "--prompt", "-p", help="what the video shows; | separates shots", panel="What"),
    "negative_prompt": _opt(TEXT, "--negative-prompt", help="what it should not show", panel="What"),
    "num_frames": _opt(INT, "--num-frames", help="length in frames", panel="What"),
    "duration": _opt(TEXT, "--duration", help="length as 10s or 1m30s", panel="What"),
    "size": _opt(TEXT, "--size", help="WIDTHxHEIGHT in pixels", panel="What"),
    "height": _opt(INT, "--height", help="pixels", panel="What"),
    "width": _opt(INT, "--width", help="pixels", panel="What"),
    "fps": _opt(FLOAT, "--fps", help="frames per second of the file", panel="What"),
    "image": _opt(PATH, "--image", help="picture that it begins with", panel="What"),
    "control": _opt(PATH, "--control", help="depth, pose or edge video that steers it (Wan-VACE)", panel="What"),
    "control_levels": _opt(
        TEXT, "--control-levels", help="grey levels of --control: file, or whole: one range for all of it", panel="What"
    ),
    "model": _opt(TEXT, "--model", "-m", help="shapes (embedded), a diffusers folder, or a hub id", panel="How"),
    "method": _opt(TEXT, "--method", help="names from `longgen methods`, composed with commas", panel="How"),
    "set": _opt(LIST, "--set", help="method.key=value; may be repeated", panel="How", metavar="METHOD.KEY=VALUE"),
    "schedule": _opt(TEXT, "--schedule", help="how prompts change over time: hold, travel, blend, …", panel="How"),
    "num_inference_steps": _opt(INT, "--num-inference-steps", help="denoising steps", panel="How"),
    "guidance_scale": _opt(FLOAT, "--guidance-scale", help="1 switches guidance off", panel="How"),
    "flow_shift": _opt(FLOAT, "--flow-shift", help="timestep shift of flow models", panel="How"),
    "solver": _opt(
        TEXT,
        "--solver",
        help="default, euler, unipc, dpm++, sde-dpm++ or ancestral",
        panel="How",
    ),
    "seed": _opt(INT, "--seed", help="-1 draws one and records it", panel="How"),
    "config": _opt(PATH, "--config", help="recipe with any of these options; the command line wins", panel="How"),
}
# Not for stories, whose file says all that is seen.
CONTINUE: dict[str, Any] = {
    "continue_video": _opt(PATH, "--continue", help="video that this one begins with and goes on from", panel="What"),
}
MACHINE: dict[str, Any] = {
    "dtype": _opt(TEXT, "--dtype", help="fp32, bf16 or fp16", panel="Machine"),
    "device": _opt(TEXT, "--device", help="auto, cpu, cuda, cuda:1 …", panel="Machine"),
    "attention": _opt(TEXT, "--attention", help="auto or an engine from `longgen doctor`", panel="Machine"),
    "window_batch": _opt(INT, "--window-batch", help="windows per forward", panel="Machine"),
    "parallel": _opt(
        TEXT, "--parallel", help="what several processes share: calls, or every pass (ulysses)", panel="Machine"
    ),
    "decode_chunk": _opt(INT, "--decode-chunk", help="latents per decoder call", panel="Machine"),
    "offload": _opt(TEXT, "--offload", help="none, model, group or sequential", panel="Machine"),
    "vae_tiling": _opt(BOOL, "--vae-tiling/--no-vae-tiling", help="decode in spatial tiles", panel="Machine"),
    "compile": _opt(BOOL, "--compile/--no-compile", help="compile the repeated blocks", panel="Machine"),
    "fp8": _opt(BOOL, "--fp8/--no-fp8", help="keep the transformer's weights in 8 bits", panel="Machine"),
    "cache": _opt(TEXT, "--cache", help="none, or a step cache such as first_block:0.1", panel="Machine"),
    "transformer": _opt(
        LIST, "--transformer", help="the transformer's weights in one file, .safetensors or .gguf", panel="Machine"
    ),
    "lora": _opt(LIST, "--lora", help="PATH[:scale]; may be repeated", panel="Machine", metavar="PATH[:SCALE]"),
    "variant": _opt(TEXT, "--variant", help="weights of this variant, such as fp16", panel="Machine"),
    "quantize": _opt(TEXT, "--quantize", help="quantised loading through diffusers", panel="Machine"),
}


def shared(*groups: dict[str, Any]) -> Callable[[F], F]:
    """Gives a command `f(*, own…, **options)` the options of the groups; unset ones arrive as None."""

    def wrap(function: F) -> F:
        own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.kind != p.VAR_KEYWORD]
        extra = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=note)
            for group in groups
            for name, note in group.items()
        ]
        function.__signature__ = inspect.Signature([*own, *extra])  # type: ignore[attr-defined]
        function.__annotations__ = {p.name: p.annotation for p in [*own, *extra]}
        return function

    return wrap


def request(options: dict[str, Any], prompt: str | None = None) -> Request:
    """Recipe and command line as one Request; the command line wins."""
    given = {name: value for name, value in options.items() if value is not None and value != []}
    config = given.pop("config", None)
    values: dict[str, Any] = {}
    if config is not None:
        values = _normal(read_recipe(Path(config)))
        validated(values, str(config))
    given = _normal(given)
    if "num_frames" in given or "duration" in given:
        values.pop("num_frames", None)
        values.pop("duration", None)
    values = {**values, **given, "set": {**values.get("set", {}), **given.get("set", {})}}
    if prompt is not None:
        values["prompt"] = prompt
    return validated(values)


def _normal(values: dict[str, Any]) -> dict[str, Any]:
    """Sizes, durations and settings from the forms that people type."""
    values = dict(values)
    if (size := values.pop("size", None)) is not None:
        if {"height", "width"} & set(values):
            raise BadInput("give --size or --height and --width, not both")
        values["width"], values["height"] = parse_size(str(size))
    if isinstance(values.get("duration"), str):
        values["duration"] = parse_duration(values["duration"])
    if isinstance(values.get("set"), list):
        values["set"] = parse_settings(values["set"])
    return values


def as_json(value: Any) -> str:
    """Indented JSON, as every `--json` prints it."""
    return json.dumps(value, indent=1, ensure_ascii=False, default=str)
