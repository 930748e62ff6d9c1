"""Hooks inside compiled blocks: one operation that the compiler calls and never looks into.

A hook may do anything in Python: read the layer, the step and the levels, choose windows, write to a bank. If it were
traced, every new value of these would be another graph. As an operation it depends on data alone, behind a number that
each processor holds as a tensor: all layers, steps and phases share one graph without breaks. Knows tensors and
processors; does not know what they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor


class Rows(Protocol):
    """A processor: what it computes from tensors, eagerly, and its number."""

    number: Tensor

    def compute(self, *tensors: Any, **_: Any) -> Sequence[Tensor]: ...


# An operation takes tensors alone, so processors are found by number; they live as long as their patch is worn.
_LIVE: WeakValueDictionary[int, Any] = WeakValueDictionary()
_NUMBERS = count()


def register(processor: Any) -> Tensor:
    """A new number for a processor, int64 [] on the CPU: reading it never waits for an accelerator."""
    number = next(_NUMBERS)
    _LIVE[number] = processor
    return torch.tensor(number)


def run(processor: Rows, tensors: list[Tensor], like: list[int]) -> Sequence[Tensor]:
    """`processor.compute(*tensors)`, as one operation where a compiler is at work.

    Args:
        like: for each output the tensor whose shape and dtype it has.
    """
    if torch.compiler.is_compiling():
        return _operation(processor.number, tensors, like)
    return processor.compute(*tensors)


@torch.library.custom_op(
    "longgen::rows", mutates_args=(), schema="(Tensor number, Tensor[] tensors, int[] like) -> Tensor[]"
)
def _operation(number: Tensor, tensors: list[Tensor], like: list[int]) -> list[Tensor]:
    outputs = _LIVE[int(number)].compute(*tensors)
    return [out.to(tensors[i].dtype).contiguous() for out, i in zip(outputs, like, strict=True)]


@_operation.register_fake
def _(number: Tensor, tensors: list[Tensor], like: list[int]) -> list[Tensor]:
    return [torch.empty_like(tensors[i], memory_format=torch.contiguous_format) for i in like]
