"""Work over several processes, started by torchrun or accelerate. Knows torch.distributed's group; loops do not.

Many videos: each process makes its share alone. One video: every process holds the whole latent and runs the same loop;
only model calls are dealt out, and their results gathered, so that with one call per forward N processes give the bits
of one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor

from longgen.types import Call

_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


def join() -> None:
    """Join the group that the launcher described in the environment; nothing to do for a single process."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available())


def grouped() -> bool:
    """True when several processes share this process's work."""
    return dist.is_available() and dist.is_initialized() and not _ALONE.get()


def rank() -> int:
    """This process, 0 when alone."""
    return dist.get_rank() if grouped() else 0


def world() -> int:
    """How many processes share the work, 1 when alone."""
    return dist.get_world_size() if grouped() else 1


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process works for itself: it makes all calls and writes its own files."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def barrier() -> None:
    """Wait for all processes, so that none leaves while another still needs the group."""
    if grouped():
        dist.barrier()


def spread(run: Callable[[Sequence[Call]], list[Tensor]], calls: Sequence[Call]) -> list[Tensor]:
    """Deal calls round-robin to the processes, run each share with `run`, give every process all results in order."""
    size, mine = world(), rank()
    if size == 1 or len(calls) == 1:
        return run(calls)
    own = run(calls[mine::size]) if mine < len(calls) else []
    results: list[Tensor] = []
    for index, call in enumerate(calls):  # one broadcast per call: shapes may differ, and nothing is padded
        source = index % size
        result = own[index // size] if source == mine else torch.empty_like(call.x, dtype=torch.float32)
        dist.broadcast(result, src=source)
        results.append(result)
    return results
