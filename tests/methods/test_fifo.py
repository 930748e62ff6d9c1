"""fifo and miga against a queue kept in a plain Python list, and their laws at every length."""

from __future__ import annotations

import pytest
import torch
from fakes import Bench, Euler, ar1_covariance, bench, flow_schedule, frame_local, grid_of, mixing, model_info, oracle
from torch import Tensor

from longgen.core.levels import ladder
from longgen.core.noise import latent_noise
from longgen.core.queue import Queue
from longgen.errors import BadInput
from longgen.methods.direct import Direct
from longgen.methods.fifo import Fifo, Miga
from longgen.types import Call, Final, Level, add_noise


def levels_of(rungs: Level, entries: list[tuple[int, int, Tensor]]) -> Level:
    return Level.cat([rungs[rung] for _, rung, _ in entries])


def euler(x: Tensor, clean: Tensor, now: float, then: float) -> Tensor:
    """x + (σ' − σ)·v with v = (x − clean)/σ."""
    return x + (then - now) * (x - clean) / now


def queue_of_lists(case: Bench, method: Fifo) -> list[Tensor]:
    """The published queue, as a list of slots that hold (latent, rung, tensor) or None; shifted by list operations.

    Windows lie where FIFO-Diffusion and its Open-Sora-Plan port put them; one that meets an empty slot is moved off it.
    Starts from fresh noise ("grow"), or from a common-level clip whose latents are taken as they pass their rung.
    """
    total, info, window = case.grid.frames, case.info, method.view(case.grid.frames, case.info)
    course = method.course(total, case.schedule.steps, info)
    group, top = course.queue.group, course.queue.rungs
    rungs = ladder(case.schedule, top, method.levels)
    source = [latent_noise(case.grid, case.seed, i, i + 1) for i in range(total)]
    slots: list[tuple[int, int, Tensor] | None] = [None] * (window - 1 + top * group)  # context, then the queue
    if method.start == "grow":
        first = group
        waiting = [(i, top, source[i]) for i in range(window)]
        entered = waiting[:group]
    else:
        first = min(window, top * group)
        clip, stage = torch.cat(source[:window], 2), {}
        for rung in range(top, 0, -1):
            for i in range(window):
                due = top - (first - 1 - i) // group if i < first else top
                if due == rung:
                    stage[i] = (i, rung, clip[:, :, i : i + 1].clone())
            clean = case.denoise(Call(clip, rungs[rung], tuple(range(window))))
            clip = euler(clip, clean, float(rungs[rung].sigma), float(rungs[rung - 1].sigma))
        entered = [stage[i] for i in range(first)]
    slots[len(slots) - len(entered) :] = entered
    arrived, out, half = len(entered), [], window // 2 if method.lookahead else 0
    while len(out) < total:
        ahead = [(i, top, source[i]) for i in range(arrived, max(arrived, window))]  # noise that fills the first window
        line: list[tuple[int, int, Tensor] | None] = slots + list(ahead)
        moved = list(slots)
        edge, blocks = window - 1, []
        while edge < len(slots):
            for size in (window - half, half) if half else (window,):
                blocks.append((edge, min(edge + size, len(slots))))
                edge += size
        for a, b in blocks:
            inside = [s for s in range(a, b) if s < len(slots) and slots[s] is not None]
            if not inside or a >= b:
                continue
            start = b - window
            while start + window <= len(line) and line[start] is None:
                start += 1
            while start + window > len(line) or line[start + window - 1] is None:
                start -= 1
            entries = [e for e in line[start : start + window] if e is not None]
            assert len(entries) == window
            x = torch.cat([e[2] for e in entries], 2)
            clean = case.denoise(Call(x, levels_of(rungs, entries), tuple(e[0] for e in entries)))
            for s in inside:
                i, rung, old = slots[s]
                new = euler(old, clean[:, :, s - start : s - start + 1], *(float(rungs[r].sigma) for r in (rung, rung - 1)))
                moved[s] = (i, rung - 1, new)
        leaving = [e for e in moved[window - 1 : window - 1 + group] if e is not None]
        assert all(rung == 0 for _, rung, _ in leaving)
        out += [x for _, _, x in leaving]
        coming: list[tuple[int, int, Tensor] | None] = [None] * group
        for k in range(group):
            if arrived < total:
                coming[k] = (arrived, top, source[arrived])
                arrived += 1
        slots = moved[group:] + coming
    return out


CASES = [
    (total, window, settings)
    for window in (2, 3, 4, 5)
    for total in (window, window + 1, 2 * window + 1, 4 * window, 6 * window + 1)
    for settings in (
        {"partitions": 2},
        {"partitions": 3, "lookahead": False},
        {"partitions": 1, "start": "grow"},
        {"partitions": 2, "group": 2, "start": "grow", "levels": "solver"},
        {"partitions": 2, "group": 2},
    )
]


@pytest.mark.parametrize("total, window, settings", CASES)
def test_equals_a_queue_of_lists(total: int, window: int, settings: dict) -> None:
    case = bench(mixing, total, steps=6, info=model_info(native=window))
    method = Fifo(**settings)
    got, events = case.run(method)
    finals = [(e.start, e.stop) for e in events if isinstance(e, Final)]
    assert [i for a, b in finals for i in range(a, b)] == list(range(total))
    wanted = torch.cat(queue_of_lists(case, method)[:total], 2)
    assert torch.allclose(got, wanted, atol=1e-5), (got - wanted).abs().max()
