"""Which engine serves a run: the one asked for, or the fastest that passes its self-test.

Knows the order of preference per GPU generation. Does not know models or methods.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch

from longgen import registry
from longgen.attention.engine import Engine, kinds
from longgen.errors import BadInput
from longgen.types import Dense, Plan

ENV = "LONGGEN_ATTN"

# Fastest first, by CUDA generation. Measured by others on dense attention: FA3 650, cuDNN 600, FA2 370 TFLOP/s (H100).
ORDER: dict[int, tuple[str, ...]] = {
    10: ("sdpa-cudnn", "sdpa-flash"),
    9: ("flash3", "sdpa-cudnn", "sdpa-flash"),
    8: ("sdpa-flash", "flash2"),
}
LAST = ("sdpa-efficient", "sdpa-math")


def engine(name: str) -> Engine:
    """The engine of this name; BadInput lists the valid ones."""
    made = registry.lookup(registry.ENGINES, "attention engine", name)()
    assert isinstance(made, Engine)
    return made


def choose(
    name: str | None, device: torch.device | str, dtype: torch.dtype, head_dim: int, plans: Iterable[Plan] = (Dense(),)
) -> Engine:
    """The engine for these tensors and plans.

    Args:
        name: an engine, or None or "auto" for what the variable LONGGEN_ATTN says, else the fastest that is correct.
        plans: what it must serve; instances, of which only the classes matter.

    Raises:
        BadInput: unknown name, or the engine asked for cannot serve; the reason is given. There is no fallback then.
    """
    device = torch.device(device)
    wanted = name if name not in (None, "auto") else os.environ.get(ENV) or "auto"
    needed = {Dense}.union(*(kinds(p) for p in plans))
    if wanted != "auto":
        chosen = engine(wanted)
        reason = refusal(chosen, device, dtype, head_dim, needed)
        if reason is not None:
            raise BadInput(f"attention engine {wanted} cannot be used: {reason}; use auto, or see `longgen doctor`")
        return chosen
    reasons = []
    for candidate in candidates(device):
        found = engine(candidate)
        reason = refusal(found, device, dtype, head_dim, needed)
        if reason is None:
            return found
        reasons.append(f"{candidate}: {reason}")
    raise BadInput(f"no attention engine works on {device} with {dtype} and head dim {head_dim}: {'; '.join(reasons)}")


def candidates(device: torch.device) -> tuple[str, ...]:
    """Engines that `auto` tries on a device, in this order."""
    if device.type != "cuda" or torch.version.hip is not None:
        return ("sdpa", "sdpa-math")
    major = min(torch.cuda.get_device_capability(device)[0], max(ORDER))
    return (*ORDER.get(major, ()), *LAST)


def refusal(found: Engine, device: torch.device, dtype: torch.dtype, head_dim: int, needed: set[type]) -> str | None:
    """None, or why an engine cannot serve."""
    missing = sorted(kind.__name__ for kind in needed - found.supports)
    if missing:
        return f"it does not serve {', '.join(missing)} plans"
    return found.probe(device, dtype, head_dim)


def table(device: torch.device | str, dtype: torch.dtype | None = None, head_dim: int = 64) -> list[dict[str, Any]]:
    """One row per engine for `longgen doctor`.

    Args:
        dtype: of the self-test; bf16 on CUDA and fp32 elsewhere by default.

    Returns:
        dicts with engine, package, version (None: not installed), plans, ok, and reason ("" when ok).
    """
    device = torch.device(device)
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    rows = []
    for name in registry.ENGINES:
        found = engine(name)
        reason = found.probe(device, dtype, head_dim)
        plan_names = ", ".join(sorted(kind.__name__ for kind in found.supports))
        rows.append(
            {
                "engine": name,
                "package": found.package,
                "version": found.version,
                "plans": plan_names,
                "ok": reason is None,
                "reason": reason or "",
            }
        )
    return rows
