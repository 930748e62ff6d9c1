"""A run on disk: its state between two steps, and the latents that are final already.

Knows that states hold tensors and plain values only. Does not know loops or models. Every file is written under another
name and renamed, so a kill at any moment leaves the checkpoint before it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from longgen.errors import BadInput
from longgen.types import Final, State

_TENSOR = "__tensor__"


def flatten(value: Any, tensors: dict[str, Tensor], path: str = "state") -> Any:
    """`value` as JSON with every tensor moved to `tensors` under its path. Raises TypeError for anything else."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {_TENSOR: path, "device": value.device.type}
    if isinstance(value, Mapping):
        return {"__map__": [[k, flatten(v, tensors, f"{path}.{k}")] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        items = [flatten(v, tensors, f"{path}.{i}") for i, v in enumerate(value)]
        return {"__tuple__": items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a state holds tensors and plain values only, not {type(value).__name__} at {path}")


def unflatten(value: Any, tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    """The inverse of `flatten`; tensors that lived on an accelerator go to `device`."""
    if isinstance(value, list):
        return [unflatten(v, tensors, device) for v in value]
    if isinstance(value, dict):
        if _TENSOR in value:
            tensor = tensors[value[_TENSOR]]
            return tensor if value["device"] == "cpu" else tensor.to(device)
        if "__tuple__" in value:
            return tuple(unflatten(v, tensors, device) for v in value["__tuple__"])
        return {k: unflatten(v, tensors, device) for k, v in value["__map__"]}
    return value


@dataclass(frozen=True)
class Saved:
    """What a checkpoint gives back."""

    round: int
    state: State
    bank: dict[str, Tensor]
    finals: list[Final]


class Checkpoint:
    """The folder of one run. `identity` is the run's hash: a checkpoint of another run is refused."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder, self.identity = folder, identity
        self._pending: list[Final] = []

    def add(self, finals: list[Final]) -> None:
        """Latents that became final; on disk with the next save."""
        self._pending += [Final(f.start, f.stop, f.x.detach().cpu()) for f in finals]

    def save(self, round: int, state: State, bank: Mapping[str, Tensor]) -> None:
        """State after a step, the bank, and all pending final latents."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for final in self._pending:
            self._write(f"final-{final.start:08d}-{final.stop:08d}.safetensors", {"latents": final.x.contiguous()})
        self._pending.clear()
        tensors: dict[str, Tensor] = {}
        tree = {
            "identity": self.identity,
            "round": round,
            "state": flatten({n: getattr(state, n) for n in ("x", "step", "done", "solver", "extra")}, tensors),
            "bank": flatten(dict(bank), tensors, "bank"),
        }
        # One file for tensors and tree, so that the two can never be of different steps.
        self._write("state.safetensors", tensors, {"tree": json.dumps(tree)})

    def _write(self, name: str, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
        part = self.folder / (name + ".part")
        save_file(tensors, part, metadata)
        os.replace(part, self.folder / name)

    def load(self, device: torch.device) -> Saved | None:
        """What was saved last, or None. Raises BadInput if it belongs to another run."""
        path = self.folder / "state.safetensors"
        if not path.exists():
            return None
        try:
            tensors = load_file(path)
            tree = json.loads(_metadata(path)["tree"])
        except (SafetensorError, KeyError, ValueError) as error:
            raise BadInput(f"checkpoint {path} cannot be read ({error}); remove {self.folder} to start again") from None
        if tree["identity"] != self.identity:
            raise BadInput(
                f"{self.folder} holds a run with other settings; resume with the same options, or remove the folder"
            )
        state = State(**unflatten(tree["state"], tensors, device))
        bank = unflatten(tree["bank"], tensors, device)
        return Saved(tree["round"], state, bank, self._finals())

    def _finals(self) -> list[Final]:
        finals = []
        for path in sorted(self.folder.glob("final-*.safetensors")):
            _, start, stop = path.stem.split("-")
            finals.append(Final(int(start), int(stop), load_file(path)["latents"]))
        return finals

    def remove(self) -> None:
        """The run is done; nothing to resume."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})
