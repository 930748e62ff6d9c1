"""RAFT through torchvision, whose C_T_V1 weights are the ported original ones that VBench uses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from longgen.metrics.backends import hub
from longgen.metrics.backends.pixels import to_tensor
from longgen.metrics.base import Unavailable

UPDATES = 20
FILE = "raft_large_C_T_V1-22a6c225.pth"


class Raft:
    """(frame, later frame) → flow [H, W, 2] in pixels; inputs in [−1, 1], edges replicated to sides of 8."""

    def __init__(self, model: Any, name: str, comparable: bool, device: str = "cpu", updates: int = UPDATES) -> None:
        self.model, self.id, self.comparable = model.eval().to(device), name, comparable
        self.device, self.updates = device, updates

    @torch.inference_mode()
    def __call__(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
        pair = torch.stack([to_tensor(first), to_tensor(second)]) / 127.5 - 1
        height, width = pair.shape[2:]
        down, right = -height % 8, -width % 8
        pads = (right // 2, right - right // 2, down // 2, down - down // 2)
        a, b = F.pad(pair, pads, mode="replicate").to(self.device)
        flow = self.model(a[None], b[None], num_flow_updates=self.updates)[-1][0].float().cpu()
        flow = flow[:, pads[2] : pads[2] + height, pads[0] : pads[0] + width]
        return np.asarray(flow.permute(1, 2, 0), dtype=np.float32)


def load_raft(spec: str, device: str = "cpu") -> Raft:
    """Role `raft`: `torchvision:raft_large` (weights in torch's hub cache), a weights file, or random:<seed>."""
    try:
        from torchvision.models.optical_flow import raft_large
    except ImportError as error:
        raise Unavailable(f'needs torchvision for RAFT ({FILE}): pip install "longgen[raft]"') from error
    seed = hub.seed_of(spec)
    if seed is not None:
        with hub.seeded(seed):
            return Raft(raft_large(weights=None), spec, False, device, updates=2)
    model = raft_large(weights=None)
    named = spec == "torchvision:raft_large"
    if named:
        from pathlib import Path

        path = Path(torch.hub.get_dir()) / "checkpoints" / FILE
        if not path.is_file():
            url = f"https://download.pytorch.org/models/{FILE}"
            raise Unavailable(f"needs the weights {FILE}, expected in {path} (from {url}), or --backend raft=PATH")
    else:
        path = hub.file_of("raft", spec, "torchvision's RAFT checkpoints")
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return Raft(model, f"torchvision:{path.name}", named, device)
