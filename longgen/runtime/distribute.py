"""Work over several processes, started by torchrun or accelerate. Knows torch.distributed's group; loops do not.

Many videos: each process makes its share alone. One video: every process holds the whole latent and runs the same loop;
only model calls are dealt out, and their results gathered, so that with one call per forward N processes give the bits
of one. A single call's forwards, the sides of guidance, are dealt out in the same way. Or all processes run every pass
together, each a share of its tokens (Ulysses): equal to 1e-5.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from longgen.config import Request
from longgen.errors import BadInput
from longgen.runtime.compose import Composition
from longgen.types import Call, LatentGrid, ModelInfo

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


def launched() -> int:
    """How many processes the launcher started, known before they have met."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check(request: Request, info: ModelInfo, composition: Composition, grid: LatentGrid) -> None:
    """Refuse to run passes together where a model, a method or a length cannot be split. Loads nothing."""
    if request.parallel == "calls":
        return
    size, ask = launched(), f"--parallel {request.parallel}"
    if "split_pass" not in info.capabilities:
        reason = info.refusals.get("split_pass", "diffusers has no plan that splits its tokens")
        raise BadInput(f"{ask} cannot run {info.variant}: {reason}; leave it at calls")
    for part in composition.parts:
        if part.method.info.mixes_heads or "kv" in part.slots:
            raise BadInput(f"{ask} gives each process some of the heads, but {part.name} needs all; leave it at calls")
    if size < 2:
        raise BadInput(f"{ask} splits a pass over processes; start several, as with torchrun --nproc_per_node 2")
    if info.heads % size:
        raise BadInput(f"{ask} over {size} processes: {info.variant} has {info.heads} heads, which must divide evenly")
    for _, latents in composition.loop.calls(grid.frames, request.num_inference_steps or info.steps, info):
        if latents // info.patch[0] * grid.tokens % size:
            raise BadInput(
                f"{ask} over {size} processes: a call of {latents} latents has {latents * grid.tokens} tokens, which "
                "must divide evenly; choose another length, size or number of processes"
            )


def told(value: Any) -> Any:
    """Process 0's value, in every process."""
    if not grouped():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def deal(forwards: Sequence[Callable[[], list[Tensor]]], like: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Run forwards round-robin in the processes, give every process all results in order.

    Args:
        like: tensors of the shapes of each forward's results, which are fp32.
    """
    size, mine = world(), rank()
    if size == 1 or len(forwards) == 1:
        return [forward() for forward in forwards]
    own = {i: [x.contiguous() for x in forwards[i]()] for i in range(mine, len(forwards), size)}
    results = []
    for index, shapes in enumerate(like):
        source = index % size
        made = own[index] if source == mine else [torch.empty(x.shape, device=x.device) for x in shapes]
        for result in made:
            dist.broadcast(result, src=source)
        results.append(made)
    return results


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
