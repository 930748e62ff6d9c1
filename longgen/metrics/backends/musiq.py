"""MUSIQ (SPAQ) through pyiqa, whose licence is non-commercial: an optional extra, never a default dependency."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from longgen.metrics.backends.pixels import resize, to_tensor
from longgen.metrics.base import Unavailable

LONGEST = 512


class Musiq:
    """Frame → 0-100; a long side over 512 is resized to 512 first."""

    def __init__(self, model: Any, name: str, comparable: bool, device: str = "cpu") -> None:
        self.model, self.id, self.comparable, self.device = model, name, comparable, device

    @torch.inference_mode()
    def __call__(self, frame: NDArray[np.uint8]) -> float:
        x = to_tensor(frame)
        longest = max(x.shape[1:])
        if longest > LONGEST:
            scale = LONGEST / longest
            x = resize(x, (int(x.shape[1] * scale), int(x.shape[2] * scale)))
        return float(self.model((x / 255)[None].to(self.device)))


def load_musiq(spec: str, device: str = "cpu") -> Musiq:
    """Role `musiq`: `pyiqa:musiq-spaq`; pyiqa keeps its weights in torch's hub cache."""
    try:
        import pyiqa
    except ImportError as error:
        reason = 'needs pyiqa for MUSIQ (musiq_spaq_ckpt-358bb6af.pth; non-commercial): pip install "longgen[quality]"'
        raise Unavailable(reason) from error
    name = spec.removeprefix("pyiqa:")
    return Musiq(pyiqa.create_metric(name, device=device), f"pyiqa:{name}", name == "musiq-spaq", device)
