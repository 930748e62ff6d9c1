"""What a checkpoint is, from its JSON files alone: no weights, no model code.

Knows where model folders come from (the embedded one, a local folder, the hub's cache) and how to read them. The
family's adapter, found through `registry.FAMILIES` by the transformer's class, turns the files into a ModelInfo.

A file `longgen.json` beside `model_index.json` may state what the other files cannot: see `OVERRIDES`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from longgen import registry
from longgen.errors import BadInput, unknown
from longgen.models.files import headers, read_json
from longgen.types import ModelInfo

EMBEDDED = {"shapes": "shapes"}  # name → folder of the assets
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt"]  # never pickles, never code
CONFIG_FILES = {name: f"{name}_config.json" for name in ("scheduler", "tokenizer", "guider")}
WITHOUT_CONFIG = {"tokenizer", "tokenizer_2", "feature_extractor", "image_processor"}
KNOWN = Path(__file__).with_name("known.json")
# Keys of longgen.json → the types that their values may have.
OVERRIDES: dict[str, tuple[type, ...]] = {
    "variant": (str,),
    "native_frames": (int,),
    "native_size": (list,),
    "fps": (int, float),
    "steps": (int,),
    "guidance": (int, float),
    "flow_shift": (int, float),
    "negative_prompt": (str,),
    "max_sequence_length": (int,),
}


@dataclass(frozen=True)
class Files:
    """A model folder's JSON files: `index` is model_index.json, `configs` holds one config per component."""

    id: str
    index: Mapping[str, Any]
    configs: Mapping[str, Mapping[str, Any]]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, int] = field(default_factory=dict)  # component → number of weights, where known

    def config(self, component: str) -> Mapping[str, Any]:
        if component not in self.configs:
            raise BadInput(f"model {self.id} lacks the component {component!r}")
        return self.configs[component]

    def class_of(self, component: str) -> str | None:
        """Class name of a component, None when the pipeline has none."""
        entry = self.index.get(component)
        return entry[1] if isinstance(entry, list | tuple) and len(entry) == 2 else None

    @property
    def text_tokens(self) -> int:
        """Length that prompts are padded to: what the tokenizer was made for, at most the pipelines' usual 512."""
        longest = self.configs.get("tokenizer", {}).get("model_max_length", 512)
        return int(self.overrides.get("max_sequence_length", min(512, int(longest))))


def assets() -> Path:
    """The folder of embedded models: inside an installed package, or at the root of a source tree."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "assets"
    return inside if inside.is_dir() else package.parent / "assets"


def resolve(model: str | Path, local_files_only: bool = False, json_only: bool = False) -> Path:
    """The folder of a model: the name of an embedded one, a local folder, or a hub id.

    A hub id is taken from the local cache where possible and downloaded otherwise (`json_only`: without weights).

    Raises:
        BadInput: no such folder or name; hub not reachable.
    """
    name = str(model)
    if name in EMBEDDED:
        folder = assets() / EMBEDDED[name]
        if not (folder / "model_index.json").is_file():
            raise BadInput(f"the embedded model {name!r} is not installed (expected {folder})")
        return folder
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    if name.endswith((".safetensors", ".gguf")):
        raise BadInput(
            f"{name} is one file, and a model is a folder: give the pipeline that it belongs to, "
            f"--model FOLDER_OR_HUB_ID --transformer {name}"
        )
    if HUB_ID.fullmatch(name) and not name.startswith("."):
        return _from_hub(name, local_files_only, json_only)
    if "/" in name or name.startswith("."):
        raise BadInput(f"no such model folder: {name}")
    raise unknown("model", name, [*EMBEDDED, "a local folder", "a hub id such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers"])


def _from_hub(name: str, local_files_only: bool, json_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json"] if json_only else HUB_FILES
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=local_files_only))
    except Exception as error:  # the hub client's transport errors change with its version; all mean the same here
        raise BadInput(
            f"cannot fetch {name!r} from the model hub ({type(error).__name__}), nor is it in the local cache; "
            "download it elsewhere and pass the folder: --model PATH"
        ) from None


def read_folder(path: Path, id: str | None = None) -> Files:
    """All JSON files of a diffusers pipeline folder that describing it needs."""
    if not (path / "model_index.json").is_file():
        raise BadInput(f"{path} is not a diffusers pipeline folder: it lacks model_index.json")
    index = read_json(path / "model_index.json")
    configs: dict[str, Mapping[str, Any]] = {}
    for component, entry in index.items():
        if isinstance(entry, list) and len(entry) == 2 and entry[1]:
            file = path / component / CONFIG_FILES.get(component, "config.json")
            if file.is_file() or component not in WITHOUT_CONFIG:
                configs[component] = read_json(file)
    return Files(id or str(path), index, configs, read_overrides(path), count_weights(path, index))


def read_overrides(path: Path) -> dict[str, Any]:
    """The checked content of `longgen.json`, empty when there is none."""
    file = path / "longgen.json"
    if not file.is_file():
        return {}
    values = {key: value for key, value in read_json(file).items() if not key.startswith("_")}
    for key, value in values.items():
        if key not in OVERRIDES:
            raise unknown(f"key in {file}", key, OVERRIDES)
        if not isinstance(value, OVERRIDES[key]) or isinstance(value, bool):
            wanted = " or ".join(t.__name__ for t in OVERRIDES[key])
            raise BadInput(f"{file}: {key} must be {wanted}, found {value!r}")
        if isinstance(value, int | float) and not (value > 0 and math.isfinite(value)):
            raise BadInput(f"{file}: {key} must be positive, found {value!r}")
    size = values.get("native_size")
    if size is not None and not (len(size) == 2 and all(isinstance(v, int) and v > 0 for v in size)):
        raise BadInput(f"{file}: native_size must be [height, width] in pixels, found {size!r}")
    return values


def family(files: Files) -> ModuleType:
    """The adapter module for the transformer's class."""
    name = files.class_of("transformer")
    if name not in registry.FAMILIES:
        raise BadInput(
            f"model {files.id} has a transformer of class {name}, which is not supported; "
            f"supported: {', '.join(sorted(registry.FAMILIES))}"
        )
    return import_module(registry.FAMILIES[name])


def describe(model: str | Path) -> ModelInfo:
    """Geometry, native length, defaults and capabilities of a model, from JSON files alone.

    Checkpoints of `known.json` need no folder and no network.

    Raises:
        BadInput: missing folder or file, unsupported class, hub not reachable.
    """
    name = str(model)
    files = known(name) if name in known_ids() else read_folder(resolve(model, json_only=True), name)
    return replace(family(files).describe(files), weights=files.weights)


def known_ids() -> list[str]:
    """Hub ids whose configs are shipped, for planning without them at hand."""
    return [name for name in read_json(KNOWN) if not name.startswith("_")]


def known(name: str) -> Files:
    """The shipped configs of a checkpoint."""
    entry = read_json(KNOWN)[name]
    return Files(name, entry["index"], entry["configs"], weights=entry.get("weights", {}))


def catalogue() -> list[ModelInfo]:
    """The embedded models that are installed, then the known checkpoints."""
    present = [name for name in EMBEDDED if (assets() / EMBEDDED[name] / "model_index.json").is_file()]
    return [describe(name) for name in (*present, *known_ids())]


def count_weights(path: Path, components: Iterable[str]) -> dict[str, int]:
    """Numbers of weights by component, from the headers of the files that are there; no word of those that are not."""
    found = {}
    for component in components:
        if (path / component).is_dir():
            try:
                tensors = [entry for header in headers(path / component) for entry in header.values()]
            except BadInput:  # loading will say what is wrong with it
                continue
            found[component] = sum(math.prod(entry["shape"]) for entry in tensors)
    return found


def check_weights(path: Path, files: Files, variant: str | None = None, but: Sequence[str] = ()) -> None:
    """BadInput for missing, truncated or pickled weights of any component, `but` some. Reads headers only."""
    for component in files.configs:
        if component not in WITHOUT_CONFIG | {"scheduler", "guider", *but}:
            for _ in headers(path / component, variant):
                pass
