"""MIGA's self-reflection against a run in plain Python, and where it must do nothing."""

from __future__ import annotations

import math

import pytest
import torch
from fakes import bench, mixing, model_info
from torch import Tensor

from longgen.core.levels import ladder
from longgen.core.noise import latent_noise
from longgen.core.reflect import Redo, likeness
from longgen.methods.fifo import Miga
from longgen.types import Call, Level

SETTINGS = {"group": 2, "guides": 0, "finish": 0.0, "depth": 3, "partitions": 3}


def cosines(x: list[Tensor], others: list[Tensor]) -> float:
    total = 0.0
    for a in x:
        for b in others:
            p, q = (y[0].mean(0).flatten().tolist() for y in (a, b))
            norms = math.sqrt(sum(v * v for v in p)) * math.sqrt(sum(v * v for v in q))
            total += sum(v * w for v, w in zip(p, q)) / norms
    return total / len(x) / len(others)


def test_likeness_is_the_mean_cosine() -> None:
    x, y = torch.randn(1, 3, 2, 4, 5), torch.randn(1, 3, 4, 4, 5)
    assert likeness(x, y) == pytest.approx(cosines(list(x.split(1, 2)), list(y.split(1, 2))))
    assert likeness(x[:, :, :1], x[:, :, :1]) == pytest.approx(1.0)


def test_those_that_came_down_furthest_begin_alone() -> None:
    redo = Redo(4, 8, (3, 3, 2, 2, 1, 1), (5, 5, 6, 6), window=6, keep=3)
    taken = [0] * 6
    for turn in range(3):
        jobs = redo.jobs(turn)
        updated = [i for job in jobs for i in range(*job.update)]
        assert updated == list(range(8, 8 + 2 * (turn + 1))), "each that has joined once, guides never"
        assert all(4 <= j.window[0] <= j.update[0] < j.update[1] <= j.window[1] <= updated[-1] + 1 for j in jobs)
        assert all(j.window[1] - j.window[0] <= 6 for j in jobs)
        for i in updated:
            assert redo.rung(i, turn, 9) == 9 - taken[i - 8]
            taken[i - 8] += 1
    assert tuple(taken) == redo.taken
    assert [redo.rung(i, 1, 9) for i in range(4, 8)] == [5, 5, 6, 6]


def by_hand(x: Tensor, case, method: Miga, turn: int, lo: int, attempt: int) -> Tensor:  # type: ignore[no-untyped-def]
    """The judged group and all noisier ones again, in one window that sees everything (the window is long enough)."""
    course = method.course(case.grid.frames, case.schedule.steps, case.info)
    rungs, top, depth = ladder(case.schedule, course.top, "uniform"), course.top, 3
    rung = {i: course.rung(i, turn) for i in range(lo, lo + x.shape[2])}
    start = min(i for i in rung if top - rung[i] == depth)
    entered = [i for i in rung if i >= start and top - rung[i] >= 1]
    latents = {i: x[:, :, i - lo : i - lo + 1] for i in range(start - 4, start)}
    latents |= {i: latent_noise(case.grid, 0, i, i + 1, f"reflect{turn}/{attempt}") for i in entered}
    now = {i: rung[i] for i in range(start - 4, start)} | dict.fromkeys(entered, top)
    for step in range(depth):
        joined = [i for i in entered if top - rung[i] >= depth - step]
        inside = [*range(start - 4, start), *joined]
        levels = Level.cat([rungs[now[i]] for i in inside])
        clean = case.denoise(Call(torch.cat([latents[i] for i in inside], 2), levels, tuple(inside)))
        for i in joined:
            a, b = float(rungs[now[i]].sigma), float(rungs[now[i] - 1].sigma)
            z = clean[:, :, inside.index(i) : inside.index(i) + 1]
            latents[i] = latents[i] + (b - a) * (latents[i] - z) / a
            now[i] -= 1
    assert all(now[i] == rung[i] for i in entered)
    return torch.cat([latents[i] for i in range(start, start + len(entered))], 2)


def test_the_best_of_several_tries_is_taken() -> None:
    """Every turn against plain Python: the group is judged, made again where it fell, and adopted where that helps."""
    info, frames = model_info(10), 24
    settings = {**SETTINGS, "window_latents": 10, "lookahead": False, "start": "grow"}
    case, plain = bench(mixing, frames, steps=6, info=info), Miga(**settings)
    method, ctx = Miga(**settings, reflect=2, drop=0.0), case.context()
    course = method.course(frames, 6, info)
    state, before, adopted, compared = method.init(ctx), None, 0, 0
    while not state.done:
        expected, _ = plain.step(ctx, state)
        turn, lo, x = expected.step, expected.extra["lo"], expected.x
        rungs = [course.rung(i, turn) for i in range(lo, lo + x.shape[2])]
        judged = [i for i, r in enumerate(rungs) if course.top - r == 3]
        state, _ = method.step(ctx, state)
        if not judged or judged[0] < 4 or turn >= course.queue.iterations:
            assert torch.equal(state.x, x)
            continue
        compared += 1
        a = judged[0]
        guides, group = list(x[:, :, a - 4 : a].split(1, 2)), list(x[:, :, a : a + 2].split(1, 2))
        now, best = cosines(group, guides), x
        if before is not None and before > now:
            for attempt in range(2):
                new = by_hand(x, case, method, turn, lo, attempt)
                found = cosines(list(new[:, :, :2].split(1, 2)), guides)
                if found > now:
                    now, best = found, torch.cat([x[:, :, :a], new, x[:, :, a + new.shape[2] :]], 2)
            adopted += best is not x
        before = now
        assert torch.allclose(state.x, best, atol=1e-5)
        assert state.extra["likeness"] == pytest.approx(now, abs=1e-6)
    assert adopted > 0 and compared > adopted


@pytest.mark.parametrize(("rule", "frames"), [("first", 6), ("first", 13), ("unipc", 19)])
def test_a_whole_run_with_and_without(rule: str, frames: int) -> None:
    def run(**settings: float) -> tuple[Tensor, int]:
        case = bench(mixing, frames, steps=6, info=model_info(6))
        x, _ = case.run(Miga(group=2, rule=rule, **settings))
        assert max(len(c.frames) for c in case.calls) <= 6
        return x, len(case.calls)

    off, calls = run()
    never, same = run(reflect=2, drop=2.0)
    assert torch.equal(off, never) and calls == same, "likeness never falls by 2"
    on, more = run(reflect=2, drop=0.0)
    assert on.isfinite().all() and torch.equal(on, run(reflect=2, drop=0.0)[0]) and more >= calls
