"""Calls over several processes. Knows torch.distributed's group; loops do not know that it exists.

Every process holds the whole latent and runs the same loop; only model calls are dealt out, and their results gathered.
With one call per forward, N processes give the bits of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from longgen.types import Call


def rank() -> int:
    """This process, 0 when alone."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world() -> int:
    """How many processes share the work, 1 when alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def spread(run: Callable[[Sequence[Call]], list[Tensor]], calls: Sequence[Call]) -> list[Tensor]:
    """Deal calls round-robin to the processes, run each share with `run`, give every process all results in order."""
    size, mine = world(), rank()
    if size == 1 or len(calls) == 1:
        return run(calls)
    own = run(calls[mine::size]) if mine < len(calls) else []
    results: list[Tensor | None] = [None] * len(calls)
    for index in range(len(calls)):  # one broadcast per call: shapes may differ, and no padding is ever gathered
        source = index % size
        held = own[index // size] if source == mine else torch.empty_like(calls[index].x, dtype=torch.float32)
        dist.broadcast(held, src=source)
        results[index] = held
    return [result for result in results if result is not None]
