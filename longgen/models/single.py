"""Transformers out of one file, safetensors or GGUF, beside a pipeline folder that has all the rest.

All of it is diffusers' own loading; this names what is missing. Knows files and diffusers' classes, not families.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import torch

from longgen.errors import BadInput
from longgen.models.files import dtype_of, read_header

SUFFIXES = (".safetensors", ".gguf")


def check(files: tuple[str, ...], classes: list[str]) -> None:
    """BadInput for files that cannot be read as these transformers. Reads no weights.

    Args:
        classes: diffusers class of each transformer that the pipeline has, high noise first.
    """
    if len(files) > len(classes):
        raise BadInput(f"--transformer was given {len(files)} times, but the model has {len(classes)} transformer(s)")
    for file, name in zip(files, classes, strict=False):
        path = Path(file)
        if path.suffix not in SUFFIXES:
            raise BadInput(f"--transformer takes a .safetensors or .gguf file (got {file})")
        if not path.is_file():
            raise BadInput(f"--transformer {file}: there is no such file")
        if not hasattr(getattr(diffusers, name), "from_single_file"):
            raise BadInput(f"--transformer {file}: diffusers reads no single files of {name}; use its folder")
        if path.suffix == ".safetensors":
            read_header(path)
        elif path.open("rb").read(4) != b"GGUF":
            raise BadInput(f"{file} is not a GGUF file; download it again")
        elif find_spec("gguf") is None:
            raise BadInput(f"--transformer {file} needs the package gguf: pip install gguf")


def dtype(file: str) -> str:
    """Name of the torch dtype to compute in: that of most weights; bfloat16 for GGUF, whose blocks have none."""
    return dtype_of([read_header(Path(file))]) if file.endswith(".safetensors") else "bfloat16"


def load(file: str, name: str, config: Path, dtype: torch.dtype) -> Any:
    """A transformer of class `name` with its config from the folder `config` and its weights from a file.

    Raises:
        BadInput: weights of another model, incomplete ones, or a kind of quantisation that diffusers does not read.
    """
    quantised = {"quantization_config": diffusers.GGUFQuantizationConfig(compute_dtype=dtype)}
    more = quantised if file.endswith(".gguf") else {}
    kind = getattr(diffusers, name)
    try:
        model = kind.from_single_file(file, config=str(config), dtype=dtype, local_files_only=True, **more)
    except (AttributeError, KeyError, ValueError, RuntimeError, OSError) as error:  # as diffusers meets strange keys
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        reason = "it lacks some of the weights" if "meta tensor" in reason else reason
        raise BadInput(f"{file} cannot be read as the {name} of {config.parent}: {reason}") from None
    absent = [n for n, p in model.named_parameters() if p.device.type == "meta"]
    if absent:
        raise BadInput(f"{file} lacks {len(absent)} weights of {name} in {config}, such as {absent[0]}")
    return model
