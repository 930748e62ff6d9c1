"""`longgen decode`: saved latents become a video, apart from sampling."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from longgen.errors import BadInput


def decode_command(
    latents: Annotated[str, typer.Argument(help="a file written by --save-latents")],
    *,
    output: Annotated[str, typer.Option("--output", "-o", help="file (.mp4 .webm .gif .mkv) or folder of PNG")],
    model: Annotated[str, typer.Option("--model", "-m", help="the model that the latents are of")] = "shapes",
    fps: Annotated[float | None, typer.Option("--fps", help="default: what the file says, else the model's")] = None,
    codec: Annotated[str | None, typer.Option("--codec", help="h264, h265, vp9, gif, ffv1, h264rgb, png")] = None,
    crf: Annotated[int | None, typer.Option("--crf", help="quality of lossy codecs")] = None,
    decode_chunk: Annotated[int | None, typer.Option("--decode-chunk", min=1, help="latents per decoder call")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda …")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace existing output")] = False,
) -> None:
    """Decode saved latents to a video in constant memory."""
    from longgen.api import Session, pick_device
    from longgen.cli.progress import Bars, say
    from longgen.media.write import VideoWriter, check_target
    from longgen.runtime.latents import decode_file
    from longgen.types import LoadOptions

    path = Path(latents)
    if not path.is_file():
        raise BadInput(f"latents file {path} does not exist")
    target = check_target(output, overwrite, codec, crf)
    session = Session(model, LoadOptions(device=pick_device(device)))
    rate, count, frames = decode_file(path, session.model, decode_chunk, fps)
    with Bars(count, "decoding") as bars, VideoWriter(target.path, rate, target.codec, target.crf, True) as writer:
        for chunk in frames:
            writer.write(chunk)
            bars.on_frames(len(chunk))
    say(f"{target.path}  {writer.frames} frames")
