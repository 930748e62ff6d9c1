"""Counts the bytes that live tensors hold while a block runs, on any device, from the operations themselves."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """`with PeakMemory() as memory: …`, then `memory.peak`: most bytes alive at once of storages made inside.

    Weights and other tensors from before count nothing, views of them included.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor):
                self._track(leaf.untyped_storage(), new=False)
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._track(leaf.untyped_storage(), new=True)
        return out

    def _track(self, storage: torch.UntypedStorage, new: bool) -> None:
        key = storage._cdata
        if key in self.live:
            return
        self.live[key] = storage.nbytes() if new else 0
        self.now += self.live[key]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.now -= self.live.pop(key, 0)
