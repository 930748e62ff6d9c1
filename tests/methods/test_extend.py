"""extend against chunks written out in plain Python, its prefix laws, and the adain stabiliser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from fakes import Bench, TwoStep, bench, flow_schedule, frame_local, mixing, model_info, vp_schedule
from torch import Tensor

from longgen.core.noise import latent_noise
from longgen.errors import BadInput
from longgen.methods.adain import Adain
from longgen.methods.direct import Direct
from longgen.methods.extend import Extend
from longgen.protocols import Context, Method
from longgen.types import Call, Event, Final, State, per_latent


def walk(loop: Method, ctx: Context) -> tuple[list[State], list[Event]]:
    """Every state and event of a run."""
    states, events = [loop.init(ctx)], list[Event]()
    while not states[-1].done:
        state, new = loop.step(ctx, states[-1])
        states.append(state)
        events += new
    return states, events


def chunk_by_chunk(case: Bench, window: int, overlap: int, known: Sequence[Tensor] = ()) -> Tensor:
    """Plain loops: each chunk from its own noise, its prefix put back at every level with that same noise."""
    total, table = case.grid.frames, case.schedule.table
    video: list[Tensor] = list(known)
    while len(video) < total:
        start = max(0, min(len(video) - overlap, total - window)) if video else 0
        frames = range(start, min(start + window, total))
        noise = [latent_noise(case.grid, case.seed, i, i + 1) for i in frames]
        x = list(noise)
        for row in range(case.schedule.steps):
            a, s = float(table.alpha[row]), float(table.sigma[row])
            a2, s2 = float(table.alpha[row + 1]), float(table.sigma[row + 1])
            x = [a * video[i] + s * e if i < len(video) else old for i, e, old in zip(frames, noise, x)]
            clean = case.denoise(Call(torch.cat(x, 2), case.schedule[row], tuple(frames))).split(1, 2)
            x = [a2 * z + s2 * (old - a * z) / s for old, z in zip(x, clean)]
        video += [x[i - start] for i in frames if i >= len(video)]
    return torch.cat(video, 2)


@pytest.mark.parametrize("window, overlap", [(2, 1), (3, 1), (4, 2), (5, 3)])
def test_equals_chunks_in_plain_python(window: int, overlap: int) -> None:
    for total in range(1, 6 * window + 1):
        case = bench(mixing, total, info=model_info(native=window))
        method = Extend(overlap_latents=overlap)
        got, events = case.run(method)
        assert torch.allclose(got, chunk_by_chunk(case, min(window, total), overlap), atol=1e-5)
        finals = [i for e in events if isinstance(e, Final) for i in range(e.start, e.stop)]
        assert finals == list(range(total))  # overlaps come out once


@pytest.mark.parametrize("window, overlap", [(2, 1), (4, 2), (5, 3)])
def test_a_known_beginning_is_continued_as_a_chunk_would_be(window: int, overlap: int) -> None:
    for total in range(overlap + 1, 5 * window + 1):
        case, method = bench(mixing, total, info=model_info(native=window)), Extend(overlap_latents=overlap)
        known = torch.randn(case.grid.with_frames(method.prefix(case.info)).shape)
        _, events = walk(method, replace(case.context(), known=known))
        finals = [e for e in events if isinstance(e, Final)]
        got = torch.cat([e.x for e in finals], 2)
        want = chunk_by_chunk(case, min(window, total), overlap, known.split(1, 2))
        assert torch.allclose(got, want, atol=1e-5) and torch.equal(got[:, :, :overlap], known)
        assert [i for e in finals for i in range(e.start, e.stop)] == list(range(total))


def test_an_end_known_from_a_run_goes_on_as_that_run_did() -> None:
    """Chunks know nothing but the latents that they continue, their noise and their place."""
    case = bench(frame_local, 13, info=model_info(native=4))
    whole = case.run(Extend(overlap_latents=1))[0]
    rest = bench(lambda call: frame_local(replace(call, frames=tuple(f + 6 for f in call.frames))), 7,
                 info=model_info(native=4))  # fmt: skip
    rest.noise = lambda start, stop: latent_noise(case.grid, case.seed, start + 6, stop + 6)
    _, events = walk(Extend(overlap_latents=1), replace(rest.context(), known=whole[:, :, 6:7]))
    assert torch.allclose(torch.cat([e.x for e in events if isinstance(e, Final)], 2), whole[:, :, 6:], atol=1e-6)


def test_what_follows_a_known_beginning_is_matched_to_it() -> None:
    case, seen = bench(mixing, 10, info=model_info(native=4)), []
    known = torch.randn(case.grid.with_frames(1).shape)

    def stabilise(x: Tensor, reference: Tensor) -> Tensor:
        seen.append(reference)
        return x

    walk(Extend(overlap_latents=1), replace(case.context(), known=known, stabilise=stabilise))
    assert len(seen) == 3 and all(torch.equal(reference, known) for reference in seen)


@pytest.mark.parametrize("schedule", [flow_schedule(5, 3.0), vp_schedule(5)])
@pytest.mark.parametrize("solver", [None, TwoStep])
def test_prefix_keeps_its_noise_at_every_level(schedule, solver) -> None:  # type: ignore[no-untyped-def]
    case = bench(mixing, 14, info=model_info(native=5), schedule=schedule)
    case.solver = solver(schedule) if solver else None
    ctx, method = case.context(), Extend(overlap_latents=2)
    states, events = walk(method, ctx)
    video = torch.cat([e.x for e in events if isinstance(e, Final)], 2)
    seen = 0
    for state in states[:-1]:
        chunk, row = state.extra["chunk"], state.extra["row"]
        start, stop = method.windows(14, case.info)[chunk]
        known = method.windows(14, case.info)[chunk - 1][1] - start if chunk else 0
        noise = latent_noise(case.grid, 0, start, stop)[:, :, :known]
        level = schedule[row]
        wanted = per_latent(level.alpha, noise) * video[:, :, start : start + known] + level.sigma * noise
        assert torch.allclose(state.x[:, :, :known], wanted, atol=1e-6)
        seen += known > 0
    assert seen == 5 * (len(method.windows(14, case.info)) - 1)


def test_one_chunk_is_one_pass_to_the_bit() -> None:
    case = bench(mixing, 3, info=model_info(native=5))
    assert torch.equal(case.run(Extend())[0], case.run(Direct())[0])


def test_chunks_but_the_last_forget_the_length() -> None:
    info = model_info(native=4)
    short, long = (bench(mixing, t, info=info).run(Extend(overlap_latents=1))[0] for t in (13, 31))
    assert torch.equal(short, long[:, :, :13])  # 13 latents are whole chunks: 4 + 3·3


def test_memory_does_not_depend_on_the_length() -> None:
    def most(total: int) -> int:
        case = bench(frame_local, total, info=model_info(native=4))
        states, _ = walk(Extend(), replace(case.context(), stabilise=Adain().stabilise))
        return max(s.x.shape[2] + s.extra["last"].shape[2] + s.extra["first"].shape[2] for s in states)

    assert most(100) == most(13) == 3 * 4


def test_native_condition_shows_a_clean_prefix() -> None:
    case = bench(mixing, 9, info=model_info(native=5))
    video, _ = case.run(Extend(condition="native", overlap_latents=2))
    prefixes = {0: 0, 3: 2, 4: 4}  # chunks [0, 5), [3, 8), [4, 9): the last ends at T and has a longer prefix
    assert {call.frames[0] for call in case.calls} == set(prefixes)
    for call in case.calls:
        a, known = call.frames[0], prefixes[call.frames[0]]
        level = call.level.spread(5)
        assert torch.equal(level.sigma[:known], torch.zeros(known)) and torch.equal(level.t[:known], torch.zeros(known))
        assert float(level.sigma[known:].min()) > 0
        assert torch.equal(call.x[:, :, :known], video[:, :, a : a + known])


def test_native_condition_noised_a_little() -> None:
    case = bench(mixing, 8, info=model_info(native=5))
    video, _ = case.run(Extend(condition="native", overlap_latents=2, condition_noise=0.02))
    call = case.calls[-1]
    assert torch.allclose(call.level.sigma[:2], torch.tensor(0.02)) and torch.allclose(
        call.level.t[:2], torch.tensor(20.0)
    )
    fresh = latent_noise(case.grid, 0, 3, 5, "condition")
    assert torch.allclose(call.x[:, :, :2], 0.98 * video[:, :, 3:5] + 0.02 * fresh, atol=1e-6)


def test_an_inpainted_prefix_noised_a_little() -> None:
    """σ = 0.1 on what is continued, drawn once per latent; what was emitted stays as it was."""
    case = bench(mixing, 7, info=model_info(native=4))
    states, events = walk(Extend(overlap_latents=1, condition_noise=0.1), case.context())
    emitted = events[3].x[:, :, 3]
    fresh = latent_noise(case.grid, 0, 3, 4, "condition")[:, :, 0]
    assert torch.allclose(states[-1].x[:, :, 0], 0.9 * emitted + 0.1 * fresh, atol=1e-6)
    finals = torch.cat([e.x for e in events if isinstance(e, Final)], 2)
    assert torch.equal(finals[:, :, 3], emitted)


def test_soft_prefix_lies_between_held_and_free() -> None:
    def last_prefix(soft: float) -> tuple[Tensor, Tensor]:
        case = bench(mixing, 7, info=model_info(native=4))
        states, events = walk(Extend(overlap_latents=1, soft=soft), case.context())
        return states[-1].x[:, :, 0], events[3].x[:, :, 3]  # as chunk 1 ended with it, as chunk 0 emitted it

    (held, emitted), (half, _), (free, _) = (last_prefix(soft) for soft in (0.0, 0.5, 1.0))
    assert torch.equal(held, emitted)
    assert 0 < float((half - held).abs().max()) < float((free - held).abs().max())


def test_refusals() -> None:
    plain = model_info(native=4, capabilities=frozenset({"windows"}), refusals={"prefix_condition": "not trained so"})
    with pytest.raises(BadInput, match="not trained so"):
        Extend(condition="native").check(9, plain)
    with pytest.raises(BadInput, match="overlap of at least one"):
        Extend(overlap_latents=0).check(9, plain)
    with pytest.raises(BadInput, match="belongs to condition inpaint"):
        Extend(condition="native", soft=0.5).check(9, model_info())


# ---------------------------------------------------------------------------------------------------------------- adain


def test_adain_laws() -> None:
    x, reference = 2 + 3 * torch.randn(1, 4, 3, 5, 5), torch.randn(1, 4, 7, 5, 5)
    assert torch.equal(Adain(strength=0.0).stabilise(x, reference), x)
    full = Adain(strength=1.0).stabilise(x, reference)
    assert torch.allclose(full.mean((2, 3, 4)), reference.mean((2, 3, 4)), atol=1e-5)
    assert torch.allclose(full.var((2, 3, 4), correction=0), reference.var((2, 3, 4), correction=0), rtol=1e-5)
    half = Adain(strength=0.5).stabilise(x, reference)
    assert torch.allclose(half, (x + full) / 2, atol=1e-5)


def test_chunks_after_the_first_are_matched_to_it() -> None:
    case = bench(mixing, 10, info=model_info(native=4))
    seen: list[Tensor] = []

    def stabilise(x: Tensor, reference: Tensor) -> Tensor:
        seen.append(reference)
        return Adain(strength=1.0).stabilise(x, reference)

    _, events = walk(Extend(overlap_latents=1), replace(case.context(), stabilise=stabilise))
    finals = [e.x for e in events if isinstance(e, Final)]
    assert len(seen) == len(finals) - 1 == 2
    for reference, later in zip(seen, finals[1:]):
        assert torch.equal(reference, finals[0])
        assert torch.allclose(later.mean((2, 3, 4)), finals[0].mean((2, 3, 4)), atol=1e-5)
    last = walk(Extend(overlap_latents=1), replace(case.context(), stabilise=stabilise))[0][-1]
    assert torch.equal(last.extra["last"][:, :, -finals[-1].shape[2] :], finals[-1])  # continued as it was emitted
