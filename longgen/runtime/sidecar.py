"""The JSON beside a video: everything needed to say how it came about and to make it again.

Knows plans and finished runs. Writes atomically, and reads what it wrote.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from longgen.config import read_text
from longgen.errors import BadInput
from longgen.runtime.plan import Plan
from longgen.types import Shot, Timeline

SCHEMA = 1
PACKAGES = ("longgen", "torch", "diffusers", "transformers", "safetensors", "av", "numpy")
# Larger weight files are identified by their size and header, which holds every tensor's shape.
WHOLE_FILE = 256 * 2**20


def versions() -> dict[str, str]:
    """Installed versions of what can change a result, and Python's."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def file_hashes(folder: Path | None) -> dict[str, str]:
    """`sha256:…` of every JSON and weight file of a model folder; `header-sha256:…` of very large ones."""
    if folder is None or not folder.is_dir():
        return {}
    files = [p for p in sorted(folder.rglob("*")) if p.suffix in {".json", ".safetensors", ".model"}]
    return {str(p.relative_to(folder)): _digest(p) for p in files}


def hashes_of(files: Iterable[Path]) -> dict[str, str]:
    """Hashes of single files by their place, as two experts' files may have one name, and their names."""
    return {f"transformer.{i}/{path.name}": _digest(path) for i, path in enumerate(files)}


def _digest(path: Path) -> str:
    size = path.stat().st_size
    if path.suffix == ".safetensors" and size > WHOLE_FILE:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return f"header-sha256:{hashlib.sha256(file.read(length)).hexdigest()}:{size}"
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def weights_hash(hashes: dict[str, str]) -> str:
    """One hash for a model: over the hashes of its weight files."""
    text = "\n".join(f"{n} {h}" for n, h in sorted(hashes.items()) if n.endswith((".safetensors", ".gguf")))
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""


def peak_memory(device: str) -> dict[str, int]:
    """Peak bytes so far: resident memory of the process, and what torch allocated on an accelerator."""
    scale = 1 if sys.platform == "darwin" else 1024
    peak = {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale}
    if device.startswith("cuda"):
        import torch

        peak["cuda"] = torch.cuda.max_memory_allocated()
    return peak


def compose(
    plan: Plan,
    *,
    frames: int,
    device: str,
    attention: str,
    hashes: dict[str, str],
    revision: str | None,
    timings: dict[str, float],
    forwards: int,
    **more: Any,
) -> dict[str, Any]:
    """The sidecar's content. `frames` is what was written; `timings` are seconds by stage."""
    return {
        "schema": SCHEMA,
        "identity": plan.identity,
        "request": plan.resolved(),
        "methods": [
            {"name": p.name, "slots": list(p.slots), "settings": p.method.settings} for p in plan.composition.parts
        ],
        "prompt": plan.request.prompt,
        "seed": plan.seed,
        "frames": frames,
        "fps": plan.fps,
        "size": {"height": plan.size[0], "width": plan.size[1]},
        "latents": plan.grid.frames,
        "timeline": {"fps": plan.told.fps, "shots": [asdict(s) for s in plan.told.shots]},
        "shot_boundaries": [s.start for s in plan.told.shots[1:]],
        "windows": {"latents": [list(w) for w in plan.windows], "frames": [list(w) for w in plan.windows_in_frames()]},
        "conditions": plan.files,
        "continues": None if plan.source is None else asdict(plan.source),
        "notes": list(plan.notes),
        "model": {"id": plan.info.id, "variant": plan.info.variant, "revision": revision, "files": hashes}
        | {"weights": weights_hash(hashes)},
        "versions": versions(),
        "device": device,
        "attention": attention,
        "calls": forwards,
        "timings": timings,
        "peak_memory": peak_memory(device),
        **more,
    }


def write_json(path: Path, content: Any) -> None:
    """Write JSON under another name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=f".{path.name[:60]}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, ensure_ascii=False, default=str)
            file.write("\n")
        os.chmod(part, 0o644)
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def sidecar_path(output: Path) -> Path:
    """`OUT.mp4` → `OUT.json`; a folder of frames `OUT/` → `OUT.json` beside it."""
    return output.with_suffix(".json") if output.suffix else output.parent / (output.name + ".json")


@dataclass(frozen=True)
class Sidecar:
    """What a finished run says of itself, as far as it is needed to make it again."""

    path: Path
    identity: str
    request: dict[str, Any]
    prompt: str | None
    timeline: Timeline
    model: str
    weights: str
    versions: dict[str, str]
    conditions: dict[str, str]


def read_sidecar(path: Path) -> Sidecar:
    """The sidecar of a run.

    Raises:
        BadInput: no such file, not JSON, a newer schema, or a part is missing or of another kind.
    """
    try:
        told = json.loads(read_text(path, "sidecar"))
        if int(told["schema"]) > SCHEMA:
            raise BadInput(f"{path} has sidecar schema {told['schema']}, of a newer longgen than this one ({SCHEMA})")
        return Sidecar(
            path,
            identity=str(told["identity"]),
            request=dict(told["request"]),
            prompt=told["prompt"],
            timeline=_timeline(told["timeline"]),
            model=str(told["model"]["id"]),
            weights=str(told["model"]["weights"]),
            versions=dict(told["versions"]),
            conditions=dict(told.get("conditions") or {}),
        )
    except json.JSONDecodeError as error:
        raise BadInput(f"{path} is not JSON: {error}") from None
    except KeyError as error:
        raise BadInput(f"{path} is no sidecar of longgen: it lacks {error.args[0]}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path} is no sidecar of longgen: {error}") from None


def _timeline(told: dict[str, Any]) -> Timeline:
    shots = tuple(Shot(**{**shot, "loras": tuple(shot.get("loras", ()))}) for shot in told["shots"])
    if not shots:
        raise ValueError("its timeline has no shots")
    return Timeline(shots, float(told["fps"]))
