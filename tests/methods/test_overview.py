"""overview against direct and windows called by hand, and where it is one of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fakes import TwoStep, bench, flow_schedule, mixing, model_info
from torch import Tensor

from longgen.methods.direct import Direct
from longgen.methods.overview import Overview
from longgen.methods.windows import Windows
from longgen.types import State


def by_hand(frames: int, steps: int, whole: int, **options: Any) -> Tensor:
    """The first steps by one loop, the others by the other; state and solver memory go from hand to hand."""
    case = bench(mixing, frames, steps, info=model_info(4), **options)
    ctx = case.context()
    state: State = Direct().init(ctx)
    while not state.done:
        state, _ = (Direct() if state.step < whole else Windows()).step(ctx, state)
    return state.x


@pytest.mark.parametrize(("steps", "until", "whole"), [(4, 0.45, 2), (16, 0.45, 7), (6, 0.5, 3), (5, 0.1, 0)])
@pytest.mark.parametrize("two", [False, True])
def test_first_direct_then_windows(steps: int, until: float, whole: int, two: bool) -> None:
    for frames in range(1, 20, 3):
        options: dict[str, Any] = {"solver": TwoStep(flow_schedule(steps))} if two else {}
        ours, _ = bench(mixing, frames, steps, info=model_info(4), **options).run(Overview(until=until))
        assert torch.equal(ours, by_hand(frames, steps, whole, **options)), frames


@pytest.mark.parametrize(("until", "other"), [(0.0, Windows()), (1.0, Direct())])
def test_ends_are_windows_and_direct(until: float, other: Any) -> None:
    for frames in (3, 9, 14):
        ours, theirs = (bench(mixing, frames, info=model_info(4)).run(m)[0] for m in (Overview(until=until), other))
        assert torch.equal(ours, theirs)


def test_calls_view_and_notes() -> None:
    info = model_info(9)
    assert Overview().calls(33, 16, info) == [(7, 33), (9 * 5, 9)]
    assert Overview().view(33, info) == 33 and Overview(until=0.0).view(33, info) == 9
    assert "45% of the steps see all 33 latents, the others 5 windows of 9" in Overview().notes(33, info)[0]


def test_a_later_round_keeps_its_place_in_the_steps() -> None:
    """A restart at a later row sees the whole video only while the row is early."""
    case = bench(mixing, 13, 8, info=model_info(4), start=2)
    case.run(Overview(until=0.5))
    assert [len(call.frames) for call in case.calls[:3]] == [13, 13, 4]
