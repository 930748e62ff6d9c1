"""The LAION aesthetic head: a linear map from unit CLIP-L/14 features to a score of about 1-10."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longgen.errors import BadInput
from longgen.metrics.backends import hub

SOURCE = "github.com/LAION-AI/aesthetic-predictor"


class Head:
    """w · e + b."""

    def __init__(self, weight: Tensor, bias: Tensor, name: str, comparable: bool) -> None:
        self.weight = weight.double().numpy().ravel()
        self.bias = float(bias)
        self.id, self.comparable = name, comparable

    def __call__(self, embedding: NDArray[np.float32]) -> float:
        if embedding.size != self.weight.size:
            raise BadInput(
                f"the aesthetic head {self.id} takes {self.weight.size} features, CLIP gave {embedding.size}"
            )
        return float(embedding.astype(np.float64) @ self.weight + self.bias)


def load_laion(spec: str, device: str = "cpu") -> Head:
    """Role `laion`: `sa_0_4_vit_l_14_linear.pth` (tensors only, no code is unpickled), or .safetensors."""
    seed = hub.seed_of(spec)
    if seed is not None:
        with hub.seeded(seed):
            return Head(torch.randn(1, 16), torch.randn(1), spec, False)
    path = hub.file_of("laion", spec, SOURCE)
    state = _tensors(path)
    return Head(state["weight"], state["bias"], path.name, path.name == "sa_0_4_vit_l_14_linear.pth")


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    loaded: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return loaded
