"""Latents on disk and on their way to frames. Knows the file's form and the streaming decoder's interface."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from longgen.errors import BadInput
from longgen.protocols import Model
from longgen.types import LatentGrid

if TYPE_CHECKING:
    from longgen.runtime.plan import Plan


def to_uint8(frames: Tensor) -> NDArray[np.uint8]:
    """[f, 3, H, W] in [0, 1] → uint8 [f, H, W, 3], rounded to nearest."""
    whole = (frames.clamp(0, 1) * 255).round().to(torch.uint8)
    array: NDArray[np.uint8] = whole.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return array


def decode_chunk(asked: int | None, grid: LatentGrid) -> int:
    """Latents per decoder call: as asked for, else one, or up to 16 where pictures are small.

    One keeps memory lowest. Small pictures take little anyway, and a CPU runs their convolutions two to three times
    faster when a call has many of them.
    """
    return asked or max(1, min(16, 4096 // (grid.height * grid.width)))


def save_latents(path: Path, latents: Tensor, plan: Plan) -> None:
    """One safetensors file, key `latents`, in the transformer's own layout and scale."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".{path.name}.part"
    facts = {"format": "longgen-latents-1", "identity": plan.identity, "model": plan.info.id, "fps": str(plan.fps)}
    facts |= {"frames": str(plan.made), "height": str(plan.size[0]), "width": str(plan.size[1])}
    save_file({"latents": latents.contiguous()}, part, facts)
    os.chmod(part, 0o644)  # safetensors makes private files
    os.replace(part, path)


def read_latents(path: Path, plan: Plan, model: Model) -> Tensor:
    """x [1, C, T, H, W] from a safetensors file's `latents`; BadInput when the shape is not the plan's."""
    latents = load_latents_file(path)
    expected = tuple(model.to_model(torch.empty(plan.grid.shape, device="meta")).shape)
    if tuple(latents.shape) != expected:
        raise BadInput(f"latents in {path} have shape {list(latents.shape)}; this run needs {list(expected)}")
    return model.from_model(latents.float(), plan.grid)


def load_latents_file(path: Path) -> Tensor:
    """The tensor `latents` of a safetensors file."""
    with _readable(path):
        tensors = load_file(path)
    if "latents" not in tensors:
        raise BadInput(f"{path} has no tensor `latents`; it holds {', '.join(sorted(tensors)) or 'nothing'}")
    return tensors["latents"]


def metadata(path: Path) -> dict[str, str]:
    """What `save_latents` wrote beside the tensor; empty for files of others."""
    with _readable(path), safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise BadInput(f"latents file {path} does not exist") from None
    except Exception as error:  # safetensors raises its own and OS errors; each means the same to the user
        raise BadInput(f"{path} is not a readable safetensors file: {error}") from None


def decode_file(
    path: Path, model: Model, chunk: int | None = None, fps: float | None = None
) -> tuple[float, int, Iterator[NDArray[np.uint8]]]:
    """Frame rate, number of frames and the frames uint8 [f, H, W, 3] of a latents file, decoded as a stream.

    The file's own metadata say how many frames were asked for; without them all that decodes is kept.
    """
    raw, told, info = load_latents_file(path), metadata(path), model.info
    if told.get("model") not in (None, info.id):
        raise BadInput(f"{path} holds latents of {told['model']}; give --model {told['model']}")
    height, width = int(told.get("height", info.native_size[0])), int(told.get("width", info.native_size[1]))
    grid = _grid_of(raw, path, model, info.grid(1, height, width))
    frames = min(int(told.get("frames", grid.pixel_frames)), grid.pixel_frames)
    latents = model.from_model(raw.float(), grid).to(model.device)
    decoded = model.decode(iter([latents]), decode_chunk(chunk, grid))
    return fps or float(told.get("fps", info.fps)), frames, trimmed(decoded, frames)


def _grid_of(raw: Tensor, path: Path, model: Model, one: LatentGrid) -> LatentGrid:
    """The grid whose layout in the transformer has the file's shape; only the number of latents is free."""
    for frames in range(1, raw.numel() // max(1, one.channels * one.height * one.width) + 1):
        grid = one.with_frames(frames)
        if model.to_model(torch.empty(grid.shape, device="meta")).shape == raw.shape:
            return grid
    raise BadInput(f"latents in {path} have shape {list(raw.shape)}, which is none of {model.info.variant}'s")


def trimmed(chunks: Iterable[Tensor], frames: int) -> Iterator[NDArray[np.uint8]]:
    """The first `frames` frames of a decoded stream [f, 3, H, W], as uint8 [f, H, W, 3]."""
    for chunk in chunks:
        if frames > 0:
            yield to_uint8(chunk[:frames])
        frames -= len(chunk)
