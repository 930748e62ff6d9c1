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
                new = euler(
                    old, clean[:, :, s - start : s - start + 1], *(float(rungs[r].sigma) for r in (rung, rung - 1))
                )
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


# --------------------------------------------------------------------------------------------------- laws of the queue


@pytest.mark.parametrize("window", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("group", [1, 2, 3])
@pytest.mark.parametrize("grow", [False, True])
@pytest.mark.parametrize("lookahead", [False, True])
def test_every_latent_takes_every_rung_once(window: int, group: int, grow: bool, lookahead: bool) -> None:
    for total in range(window, 6 * window + 2):
        queue = Queue(total, window, 2 * window, group, lookahead, grow)
        taken: dict[int, list[int]] = {i: [] for i in range(total)}
        for turn in range(queue.iterations):
            lo, hi = queue.held(turn)
            for job in queue.jobs(turn):
                assert job.window[1] - job.window[0] == window
                assert max(lo, 0) <= job.window[0] <= job.update[0] < job.update[1] <= job.window[1] <= hi
                for i in range(*job.update):
                    taken[i].append(queue.rung(i, turn))
        filled = 0 if grow else 1
        for i, rungs in taken.items():
            assert rungs == list(range(queue.rung(i, 0), 0, -1))
            assert filled or rungs[0] == queue.rungs
        emitted = [i for turn in range(queue.iterations) for i in range(*queue.emitted(turn))]
        assert emitted == list(range(total))


@pytest.mark.parametrize("window", [4, 5])
def test_lookahead_never_updates_its_context(window: int) -> None:
    queue = Queue(1000, window, 4 * window)
    turn = 2 * queue.rungs  # steady: the queue is full on both sides
    half = window // 2
    for job in queue.jobs(turn):
        assert job.update[1] == job.window[1]
        assert job.update[0] - job.window[0] in (half, window - half)
    assert len(queue.jobs(turn)) == 8  # 2n windows with lookahead
    assert len(Queue(1000, window, 4 * window, lookahead=False).jobs(turn)) == 4


def test_iterations_are_those_of_the_paper_without_its_wasted_tail() -> None:
    # official code: N + K − f iterations, of which the first K − f only warm up
    assert [Queue(n, 16, 64).iterations for n in (100, 16)] == [100 + 64 - 16, 64]


@pytest.mark.parametrize("span, spacing, shift, n", [
    (0.25, "solver", 1, 4), (0.50, "solver", 3, 4), (0.625, "solver", 5, 4), (0.727, "solver", 8, 4),
    (0.125, "solver", 1, 8), (0.30, "solver", 3, 8), (0.417, "solver", 5, 8), (0.533, "solver", 8, 8),
    (0.25, "uniform", 5, 4), (0.125, "uniform", 8, 8),
])  # fmt: skip
def test_range_of_levels_in_one_window(span: float, spacing: str, shift: float, n: int) -> None:
    window, rungs = 21, 21 * n
    sigma = ladder(flow_schedule(rungs, shift), rungs, spacing).sigma
    widest = max(float(sigma[r + window] - sigma[r]) for r in range(0, rungs, window))
    assert widest == pytest.approx(span, abs=2e-3)


def test_ladder_reads_the_table() -> None:
    schedule = flow_schedule(7, shift=5.0)
    own = ladder(schedule, 7, "solver")
    for name in ("sigma", "alpha", "t", "step"):
        assert torch.equal(getattr(own, name), getattr(schedule.table, name).flip(0))
    finer = ladder(schedule, 40, "uniform")
    assert torch.allclose(finer.sigma, torch.arange(41) / 40, atol=1e-6)
    assert torch.allclose(finer.alpha + finer.sigma, torch.ones(41))
    assert torch.allclose(finer.t, 1000 * finer.sigma, atol=1e-3)  # flow: t belongs to σ at every level


def test_groups_share_a_level_and_rise_along_the_queue() -> None:
    case = bench(frame_local, 25, info=model_info(native=6))
    course = Miga(group=3).course(25, 12, case.info)
    for turn in range(course.queue.iterations):
        rungs = [course.rung(i, turn) for i in range(25)]
        assert rungs == sorted(rungs)
        inside = [r for r in rungs if course.floor < r < course.top]
        assert all(inside.count(r) == 3 for r in set(inside) if r not in (rungs[0], rungs[-1]))


@pytest.mark.parametrize("settings", [{}, {"lookahead": False}, {"group": 2}, {"start": "grow"}, {"flush": False}])
def test_calls_are_counted_without_walking(settings: dict) -> None:
    for total in (*range(4, 40), 97, 200):
        course = Fifo(partitions=2, **settings).course(total, 8, model_info(native=4))
        walked = sum(len(course.queue.jobs(j)) for j in range(course.queue.iterations))
        assert course.calls == course.base + walked


# -------------------------------------------------------------------------------------------------- laws of whole runs


@pytest.mark.parametrize("frames, steps, shift", [(1, 4, 1.0), (3, 7, 5.0), (5, 9, 3.0)])
def test_all_latents_at_one_level_is_ordinary_sampling(frames: int, steps: int, shift: float) -> None:
    info = model_info(native=frames)
    case = bench(mixing, frames, info=info, schedule=flow_schedule(steps, shift))
    queue = Fifo(partitions=steps, group=frames, levels="solver", lookahead=False)
    assert torch.allclose(case.run(queue)[0], case.run(Direct())[0], atol=1e-6)


@pytest.mark.parametrize("start", ["trajectory", "renoise", "grow"])
def test_without_flush_a_latent_forgets_the_length(start: str) -> None:
    runs = [
        bench(mixing, total, info=model_info(native=4)).run(Fifo(partitions=2, flush=False, start=start))[0]
        for total in (4, 9, 30)
    ]
    assert torch.equal(runs[0], runs[2][:, :, :4])
    assert torch.equal(runs[1], runs[2][:, :, :9])


def test_with_flush_all_but_the_last_queue_is_the_same() -> None:
    short, long = (bench(mixing, total, info=model_info(native=4)).run(Fifo(partitions=2))[0] for total in (20, 33))
    assert torch.equal(short[:, :, : 20 - 8 + 1], long[:, :, : 20 - 8 + 1])
    assert not torch.equal(short[:, :, -1], long[:, :, 19])


def test_memory_does_not_depend_on_the_length() -> None:
    def most(total: int) -> int:
        held: list[int] = []
        bench(frame_local, total, info=model_info(native=4)).run(
            Fifo(partitions=2), lambda s: held.append(s.x.shape[2] + s.extra["queue"].shape[2]) or s
        )
        return max(held)

    assert most(80) == most(24) <= 2 * 4 + 3 + 1


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_one_window_over_the_queue_converges_to_the_truth(rho: float) -> None:
    """Exact linear-Gaussian video: with all latents in one call, more levels approach the true covariance."""
    total = 8
    info = model_info(native=total, channels=total)

    def gap(steps: int) -> float:
        basis = torch.eye(total, dtype=torch.float64)[None, :, :, None, None]  # channel c carries basis vector c
        schedule = flow_schedule(steps)
        case = Bench(
            oracle(rho),
            info,
            grid_of(info, total),
            schedule,
            noise=lambda a, b: basis[:, :, a:b],
            solver=Euler(schedule),
        )
        image, _ = case.run(Fifo(partitions=0, start="grow", levels="solver"))
        assert all(len(call.frames) == total for call in case.calls)
        loop = image[0, :, :, 0, 0].T
        return float((loop @ loop.T - ar1_covariance(total, rho)).abs().max())

    gaps = [gap(steps) for steps in (16, 32, 64)]
    assert gaps[1] < 0.7 * gaps[0] and gaps[2] < 0.7 * gaps[1]
    assert gaps[2] < 0.05


# ----------------------------------------------------------------------------------------------------------------- miga


@pytest.mark.parametrize("total", range(6, 38))
def test_last_stage_updates_each_latent_once_per_step(total: int) -> None:
    course = Miga(group=2).course(total, 12, model_info(native=6))
    for step in range(course.last):
        jobs = course.last_jobs(step)
        assert [i for job in jobs for i in range(*job.update)] == list(range(total))
        assert all(
            w[0] <= u[0] < u[1] <= w[1] <= total and w[1] - w[0] == 6 for w, u in ((j.window, j.update) for j in jobs)
        )


def miga_of_lists(case: Bench, settings: dict, guides: int) -> Tensor:
    """The zigzag queue over plain lists of tensors and rungs, windows and guides by rule; then the last stage."""
    total, window, group = case.grid.frames, settings["window_latents"], settings["group"]
    course = Miga(**settings).course(total, case.schedule.steps, case.info)
    rungs, slots, net = (
        ladder(case.schedule, course.top, "uniform"),
        (course.top - course.floor) * group,
        window - guides,
    )
    x = [latent_noise(case.grid, case.seed, i, i + 1) for i in range(total)]
    rung, turn = [course.top] * total, 0
    while any(r > course.floor for r in rung):
        turn += 1
        front, new, done = turn * group - slots, list(x), list(rung)
        slot = 0
        while slot < slots:
            for size in (net - net // 2, net // 2):
                a, b = front + slot, min(front + slot + size, front + slots)
                slot += size
                mine = [i for i in range(max(a, 0), min(b, total)) if i < turn * group]
                if not mine or a >= b:
                    continue
                reach = max(window, min(turn * group, total))
                start = max(0, min(b, reach) - net)
                if start < guides:
                    frames = list(range(window))
                elif start >= guides * group:
                    frames = [start - (group // 2 + m * group) for m in range(guides - 1, -1, -1)]
                    frames += range(start, start + net)
                else:
                    frames = [start - (m + 1) * (start // guides) for m in range(guides - 1, -1, -1)]
                    frames += range(start, start + net)
                levels = Level.cat([rungs[rung[i]] for i in frames])
                clean = case.denoise(Call(torch.cat([x[i] for i in frames], 2), levels, tuple(frames)))
                for i in mine:
                    z = clean[:, :, [frames.index(i, len(frames) - net if start >= guides else 0)]]
                    new[i] = euler(x[i], z, float(rungs[rung[i]].sigma), float(rungs[rung[i] - 1].sigma))
                    done[i] = rung[i] - 1
        x, rung = new, done
    video = torch.cat(x, 2)
    for step in range(course.last):
        now, then = (float(rungs[course.floor - step - d].sigma) for d in (0, 1))
        moved = video.clone()
        for job in course.last_jobs(step):
            (a, b), (u, v) = job.window, job.update
            clean = case.denoise(Call(video[:, :, a:b], rungs[course.floor - step], tuple(range(a, b))))
            moved[:, :, u:v] = euler(video[:, :, u:v], clean[:, :, u - a : v - a], now, then)
        video = moved
    return video


@pytest.mark.parametrize("window, group, guides", [(6, 2, 2), (7, 2, 3), (6, 3, 1), (5, 2, 0)])
def test_miga_equals_lists(window: int, group: int, guides: int) -> None:
    settings = {"window_latents": window, "group": group, "guides": guides, "start": "grow", "finish": 0.25}
    for total in (window, window + 1, 2 * window + 1, 4 * window + 3):
        case = bench(mixing, total, steps=6, info=model_info(native=window))
        got, _ = case.run(Miga(**settings))
        assert torch.allclose(got, miga_of_lists(case, settings, guides), atol=1e-5)
        assert all(len(call.frames) == window for call in case.calls)


def test_guides_of_the_published_size() -> None:
    queue = Miga(group=7).course(200, 54, model_info(native=21)).queue
    assert (queue.guides, queue.own) == (4, 17)
    assert queue.behind(100) == (76, 83, 90, 97)  # 3 + 7m before the window
    assert queue.behind(20) == (0, 5, 10, 15)  # fewer than four groups: evenly spaced
    assert queue.behind(3) == ()


def test_guides_are_never_updated_by_the_call_that_shows_them() -> None:
    queue = Miga(group=3).course(60, 12, model_info(native=9)).queue
    for turn in range(queue.iterations):
        updated = [i for job in queue.jobs(turn) for i in range(*job.update)]
        assert len(updated) == len(set(updated))
        for job in queue.jobs(turn):
            assert not set(job.guides) & set(range(*job.update)) and len(job.latents) == 9
            assert all(queue.rung(g, turn) <= queue.rung(job.update[0], turn) for g in job.guides)
            assert min(job.latents) >= queue.held(turn)[0]


def test_last_stage_with_one_window_is_ordinary_sampling() -> None:
    info, steps = model_info(native=6), 12
    case = bench(mixing, 6, info=info, schedule=flow_schedule(steps))
    method = Miga(group=6, finish=0.5, levels="solver", lookahead=False)  # one group: the queue, too, is one level
    assert torch.allclose(case.run(method)[0], case.run(Direct())[0], atol=1e-6)


def test_second_pass_re_noises_to_the_first_level_of_the_stage() -> None:
    info = model_info(native=6)
    once, twice = (bench(frame_local, 13, info=info, steps=12).run(Miga(group=2, passes=n)) for n in (1, 2))
    course = Miga(group=2).course(13, 12, info)
    case = bench(frame_local, 13, info=info, steps=12)
    rungs = ladder(case.schedule, course.top, "uniform")
    x = add_noise(once[0], latent_noise(case.grid, 0, 0, 13, "miga1"), rungs[course.floor])
    for rung in range(course.floor, 0, -1):
        clean = frame_local(Call(x, rungs[rung], tuple(range(13))))
        x = euler(x, clean, float(rungs[rung].sigma), float(rungs[rung - 1].sigma))
    assert torch.allclose(twice[0], x, atol=1e-5)


def test_published_size_on_wan() -> None:
    course = Miga(group=7).course(81, 54, model_info(native=21))
    assert (course.top, course.floor, course.queue.slots) == (54, 10, 44 * 7)
    assert Fifo().course(81, 50, model_info(native=21)).top == 84
    assert Fifo(partitions=0).course(81, 50, model_info(native=21)).top == 63  # 50 steps rounded up to whole windows


def test_levels_are_printed_and_joined_tokens_refused() -> None:
    info = model_info(native=4)
    assert any("16 levels (4 partitions)" in note for note in Fifo().notes(9, info))
    with pytest.raises(BadInput, match="joins 2"):
        Fifo().check(8, model_info(native=4, patch_t=2))
