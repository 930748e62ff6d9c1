"""Model folders on disk: JSON files, and safetensors files checked by their headers before anything loads.

Knows the diffusers folder layout. Does not know families, tensors or devices.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from longgen.errors import BadInput

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
TORCH_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64", "F8_E4M3": "float8_e4m3fn"}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; BadInput when it is missing, not JSON or not an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"model folder {path.parent} lacks {path.name}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadInput(f"{path} must hold a JSON object, found {type(value).__name__}")
    return value


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: tensor name → {dtype, shape, data_offsets}.

    Checked against the file's size, so that a truncated download is found before weights load.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        if length + 8 > size:
            raise BadInput(f"{path} is truncated or not a safetensors file ({size} bytes); download it again")
        try:
            header = json.loads(file.read(length))
        except (UnicodeDecodeError, json.JSONDecodeError):
            raise BadInput(f"{path} is not a safetensors file; convert the weights to safetensors") from None
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    end = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    if end != size:
        raise BadInput(f"{path} is truncated: {size} bytes of {end}; download it again")
    return tensors


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """The safetensors files of one component, shards by their index. BadInput names what is missing."""
    if not folder.is_dir():
        raise BadInput(f"model folder {folder.parent} lacks the component {folder.name}/")
    suffix = f".{variant}" if variant else ""
    indices = sorted(folder.glob(f"*.safetensors.index{suffix}.json"))
    if indices:
        names = sorted(set(read_json(indices[0]).get("weight_map", {}).values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or not names:
            raise BadInput(f"{folder} lacks {', '.join(missing) or 'all shards'}, named by {indices[0].name}")
        return [folder / name for name in names]
    found = [folder / f"{stem}{suffix}.safetensors" for stem in ("diffusion_pytorch_model", "model")]
    present = [path for path in found if path.is_file()]
    if present:
        return present[:1]
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
    if pickles:
        raise BadInput(
            f"{folder} holds pickled weights ({pickles[0]}); only safetensors are loaded: convert them first"
        )
    raise BadInput(f"{folder} lacks weights: expected {found[0].name} or {found[1].name}")


def headers(folder: Path, variant: str | None = None) -> Iterator[Mapping[str, Any]]:
    """Checked headers of a component's files."""
    return (read_header(path) for path in weight_files(folder, variant))


def stored_dtype(folder: Path, variant: str | None = None) -> str:
    """Name of the torch dtype that most weights of a component are stored in."""
    return dtype_of(headers(folder, variant))


def dtype_of(headers: Iterable[Mapping[str, Any]]) -> str:
    """Name of the torch dtype of most weights in files with these headers."""
    sizes: Counter[str] = Counter()
    for header in headers:
        for entry in header.values():
            sizes[entry["dtype"]] += math.prod(entry["shape"])
    return TORCH_DTYPES.get(sizes.most_common(1)[0][0], "float32") if sizes else "float32"
