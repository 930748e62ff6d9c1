"""One pass over several processes (Ulysses, arXiv 2309.14509): each holds some of the tokens, and inside attention all
tokens of some of the heads.

Around the blocks diffusers' own context parallelism splits and gathers. The exchange inside is here, because hooks must
see whole latents. Knows process groups and diffusers' plans for splitting. Does not know families or hooks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig
from diffusers.hooks.context_parallel import apply_context_parallel
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from longgen.errors import BadInput


@dataclass(frozen=True)
class Share:
    """This process's part of every pass: the tokens [rank·S/n, (rank + 1)·S/n), and as many heads of the N."""

    rank: int
    size: int

    def tokens(self, x: Tensor) -> Tensor:
        """[B, S, …] → this process's tokens [B, S/n, …]."""
        return x.chunk(self.size, dim=1)[self.rank]

    def heads(self, x: Tensor) -> Tensor:
        """[B, L, N, D] → this process's heads [B, L, N/n, D]."""
        return x.chunk(self.size, dim=2)[self.rank]

    def inside(self, x: Tensor) -> Tensor:
        """Some tokens of all heads [B, S/n, N, D] → all tokens of some heads [B, S, N/n, D]."""
        sent = x.unflatten(2, (self.size, -1)).permute(2, 0, 1, 3, 4)  # [n, B, S/n, N/n, D]
        return self._exchange(sent).transpose(0, 1).flatten(1, 2)

    def outside(self, x: Tensor) -> Tensor:
        """The way back: [B, S, N/n, D] → [B, S/n, N, D]."""
        sent = x.unflatten(1, (self.size, -1)).transpose(0, 1)  # [n, B, S/n, N/n, D]
        return self._exchange(sent).permute(1, 2, 0, 3, 4).flatten(2, 3)

    def _exchange(self, sent: Tensor) -> Tensor:
        """Entry i goes to process i, and what comes back is in the order of processes."""
        sent = sent.contiguous()
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent)
        return received


def split(transformers: Iterable[Any], device: torch.device) -> Share:
    """Splits the tokens of every pass of these transformers over all processes, for good.

    Of a plan only the hidden states are split and gathered. Rotary tables stay whole, because the tokens are whole
    again where they are used; so do texts, which every process reads with its own tokens.

    Raises:
        BadInput: there is one process only, or a model without a plan.
    """
    if not dist.is_initialized() or dist.get_world_size() < 2:
        raise BadInput("--parallel ulysses splits a pass over processes; start several: torchrun --nproc_per_node 2 …")
    rank, size = dist.get_rank(), dist.get_world_size()
    config = ContextParallelConfig(ulysses_degree=size)
    config.setup(rank, size, device, init_device_mesh(device.type, (1, size), mesh_dim_names=("ring", "ulysses")))
    for transformer in transformers:
        plan = transformer._cp_plan
        if plan is None:
            raise BadInput(f"--parallel ulysses: diffusers has no plan that splits {type(transformer).__name__}")
        entry = next(name for name, parts in plan.items() if "hidden_states" in parts)  # the first block, or the model
        split_there = {"hidden_states": plan[entry]["hidden_states"]}
        apply_context_parallel(transformer, config, {entry: split_there, "proj_out": plan["proj_out"]})
    return Share(rank, size)
