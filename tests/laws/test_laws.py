"""Every law that a method declares, checked at every length; driven by the declarations alone.

A new method is covered by its registry line. A law that concerns a method and is neither declared nor exempt, or that
has no check here, fails the suite.
"""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from broken import FAULTS, HOUSE_FAULTS
from fakes import (
    Bench,
    Denoise,
    TwoStep,
    bench,
    flow_schedule,
    frame_local,
    grid_of,
    mixing,
    model_info,
    random_qkv,
    run_attention,
    site_of,
    view_of,
)
from patching import comes_off_bitwise, tiny, zeroed_is_identity
from safetensors.torch import load, save
from torch import Tensor

from longgen import registry
from longgen.bench.tables import filled
from longgen.errors import BadInput
from longgen.laws import LAWS
from longgen.methods.direct import Direct
from longgen.protocols import Method
from longgen.runtime.checkpoint import flatten, unflatten
from longgen.runtime.compose import EXCLUSIVE, compose
from longgen.types import Event, Final, LatentGrid, ModelInfo, Rope, State

INFO = model_info(native=3)  # windows of 3 latents, step 2: lengths 1 … 13 are 1 to 6 windows with every remainder
LENGTHS = range(1, 14)
STEPS = 4
BUILT: dict[str, type[Method]] = {name: registry.method(name) for name in registry.METHODS}


def build(name: str, settings: Mapping[str, Any], info: ModelInfo = INFO) -> Method:
    return BUILT[name](**settings).fit(info)


def lengths(method: Method) -> list[int]:
    """The lengths that the method accepts; it may refuse some, but none from the native length on."""
    legal = []
    for frames in LENGTHS:
        try:
            method.check(frames, INFO)
            legal.append(frames)
        except BadInput:
            assert frames < INFO.native_latents, f"{method.info.name} refuses {frames} latents"
    return legal


def looped(method: Method, denoise: Denoise, frames: int, seed: int = 0, **options: Any) -> Bench:
    """A bench for the method's own loop, with its own noise if it has the slot."""
    made = bench(denoise, frames, STEPS, INFO, seed=seed, **options)
    if "noise" in method.info.slots:
        made.noise = partial(method.noise, made.grid, seed)
    return made


def same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


# ---------------------------------------------------------------------------------------------------------------- loops


def plain(name: str, settings: Mapping[str, Any]) -> None:
    method = build(name, settings)
    covered = [t for t in lengths(method) if len(method.windows(t, INFO)) == 1]
    assert covered, "no length is covered by one window"
    for frames in covered:
        ours, _ = looped(method, mixing, frames).run(method)
        theirs, _ = looped(method, mixing, frames).run(Direct())
        assert same(ours, theirs), f"{frames} latents"


def partition(name: str, settings: Mapping[str, Any]) -> None:
    method = build(name, settings)
    for frames in lengths(method):
        ours, _ = looped(method, frame_local, frames).run(method)
        theirs, _ = looped(method, frame_local, frames).run(Direct())
        assert torch.allclose(ours, theirs, atol=1e-5), f"{frames} latents: {(ours - theirs).abs().max():.2g}"


def mates(name: str, settings: Mapping[str, Any]) -> None:
    method = build(name, settings)
    for frames in lengths(method):
        alone, backward, together = (
            looped(method, mixing, frames, **how).run(method)[0] for how in ({}, {"reverse": True}, {"stacked": True})
        )
        assert same(alone, backward) and same(alone, together), f"{frames} latents"


def resume(name: str, settings: Mapping[str, Any]) -> None:
    def saved(state: State) -> State:
        """Through JSON and safetensors, as a new process reads it."""
        tensors: dict[str, Tensor] = {}
        names = ("x", "step", "done", "solver", "extra")
        tree = json.dumps(flatten({n: getattr(state, n) for n in names}, tensors))
        return State(**unflatten(json.loads(tree), load(save(tensors)), torch.device("cpu")))

    method = build(name, settings)
    for frames in lengths(method):
        for solver in (None, TwoStep(flow_schedule(STEPS))):
            whole, _ = looped(method, mixing, frames, solver=solver).run(method)
            broken, _ = looped(method, mixing, frames, solver=solver).run(build(name, settings), between=saved)
            assert same(whole, broken), f"{frames} latents"


def final(name: str, settings: Mapping[str, Any]) -> None:
    method = build(name, settings)
    for frames in lengths(method):
        _, events = looped(method, mixing, frames).run(method)
        assert covers(events, frames, INFO), f"{frames} latents"


def covers(events: list[Event], frames: int, info: ModelInfo) -> bool:
    """The final events tile [0, T) in order; previews lie inside it."""
    reached = 0
    for event in events:
        if isinstance(event, Final):
            assert event.start == reached and event.x.shape[2] == event.stop - event.start
            assert event.x.shape[:2] == (1, info.channels)
            reached = event.stop
        else:
            assert event.start >= 0 and event.start + event.x.shape[2] <= frames
    return reached == frames


def plan(name: str, settings: Mapping[str, Any]) -> None:
    method = build(name, settings)
    for frames in lengths(method):
        made, turns = looped(method, mixing, frames), 0

        def count(state: State) -> State:
            nonlocal turns
            turns += 1
            return state

        made.run(method, between=count)
        stated: Counter[int] = Counter()
        for number, latents in method.calls(frames, STEPS, INFO):
            stated[latents] += number
        assert Counter(c.x.shape[2] for c in made.calls) == +stated, f"{frames} latents"
        assert max(c.x.shape[2] for c in made.calls) == method.view(frames, INFO), f"{frames} latents"
        assert turns == method.steps(frames, STEPS, INFO), f"{frames} latents"
        assert all(len(c.frames) == c.x.shape[2] for c in made.calls)
        assert all(0 <= a < b <= frames for a, b in method.windows(frames, INFO))


# ---------------------------------------------------------------------------------------------------------------- noise


def deterministic(name: str, settings: Mapping[str, Any]) -> None:
    method = build(name, settings)
    for frames in lengths(method):
        if "noise" in method.info.slots:
            a, b, c = (build(name, settings).noise(grid_of(INFO, frames), s, 0, frames) for s in (1, 1, 2))
            assert same(a, b) and not same(a, c)
        if "loop" in method.info.slots:
            a, b, c = (looped(method, mixing, frames, seed=s).run(build(name, settings))[0] for s in (1, 1, 2))
            assert same(a, b) and not same(a, c)


def unit_variance(name: str, settings: Mapping[str, Any]) -> None:
    """Mean and variance of 4,096 values per latent, within six standard errors."""
    method, n = build(name, settings), 4096
    for frames in lengths(method):
        x = method.noise(LatentGrid(frames, 4, 32, 32, INFO.stride), 0, 0, frames).double()
        assert x.shape == (1, 4, frames, 32, 32)
        mean, variance = x.mean((0, 1, 3, 4)), x.var((0, 1, 3, 4))
        assert float(mean.abs().max()) < 6 / n**0.5 and float((variance - 1).abs().max()) < 6 * (2 / n) ** 0.5


def random_access(name: str, settings: Mapping[str, Any]) -> None:
    method = build(name, settings)
    for frames in lengths(method):
        grid = grid_of(INFO, frames)
        whole = method.noise(grid, 3, 0, frames)
        for start in range(frames):
            for stop in range(start, frames + 1):
                assert same(method.noise(grid, 3, start, stop), whole[:, :, start:stop]), (frames, start, stop)


# -------------------------------------------------------------------------------------------------------------- patches


def attend_with(
    method: Method, frames: int, v: Tensor, info: ModelInfo = INFO, step: int = 0, text: bool = False, gain: float = 1.0
) -> Tensor:
    """The layer's output under the method's patch for a call of `frames` latents."""
    q, k, _ = random_qkv(frames * 2)
    words = (torch.ones(1, 3, 2, 8), v[:, :1].expand(1, 3, 2, 8)) if text else None
    patch = method.patch(view_of(info, frames))
    site = site_of(info, frames, step=step, text=3 if text else 0)
    return run_attention(patch, gain * q.to(v.dtype), k.to(v.dtype), v, site, info.rope, words)


def stochastic(name: str, settings: Mapping[str, Any]) -> None:
    method, value = build(name, settings), torch.linspace(-1, 2, 16).view(1, 1, 2, 8)
    for frames in LENGTHS:
        for text in (False, True):
            out = attend_with(method, frames, value.expand(1, frames * 2, 2, 8), text=text)
            assert torch.allclose(out, value.expand_as(out), atol=1e-5), (frames, text)


def zero(name: str, settings: Mapping[str, Any]) -> None:
    method = build(name, settings)
    for frames in LENGTHS:
        assert not attend_with(method, frames, torch.zeros(1, frames * 2, 2, 8)).any()
    zeroed_is_identity(BUILT[name](**settings))


def no_op(name: str, settings: Mapping[str, Any]) -> None:
    for native in (3, 9, 21):
        info = model_info(native)
        for frames in range(1, native + 1):
            assert build(name, settings, info).patch(view_of(info, frames)).empty, f"{frames} of {native} latents"


def beyond(name: str, settings: Mapping[str, Any]) -> None:
    """On a model whose rotation has periods on both sides of its native length: 6.3, 8.9, 12.6 and 17.8 latents."""
    info = model_info(9, rope=Rope("table", 8, 4.0))
    method = build(name, settings, info)
    for factor in (2, 4, 8):
        frames = factor * info.native_latents
        v = random_qkv(frames * 2)[2]
        ours, theirs = attend_with(method, frames, v, info), attend_with(Direct(), frames, v, info)
        assert float((ours - theirs).abs().max()) > 1e-4, f"{factor}x"


def removal(name: str, settings: Mapping[str, Any]) -> None:
    comes_off_bitwise(BUILT[name](**settings))


def finite(name: str, settings: Mapping[str, Any]) -> None:
    """Loops at 4 steps on a fake model; attention in fp32 and bf16 with logits about 30 times the usual."""
    method = build(name, settings)
    for factor in (1, 2, 4, 8):
        frames = factor * INFO.native_latents
        if "noise" in method.info.slots:
            assert method.noise(grid_of(INFO, frames), 0, 0, frames).isfinite().all()
        if "loop" in method.info.slots:
            assert looped(method, mixing, frames).run(method)[0].isfinite().all()
        for dtype in (torch.float32, torch.bfloat16):
            v = random_qkv(frames * 2)[2].to(dtype)
            out = attend_with(method, frames, v, gain=30.0, step=3)
            assert out.isfinite().all() and out.dtype == dtype and out.shape == v.shape


def conflicts(name: str, settings: Mapping[str, Any]) -> None:
    own = set(BUILT[name].info.slots) & set(EXCLUSIVE)
    for other, kind in BUILT.items():
        if other != name and own & set(kind.info.slots):
            with pytest.raises(BadInput, match=r"both own the slot|cannot run together") as caught:
                compose(f"{name},{other}")
            assert name in str(caught.value) and other in str(caught.value)


CHECKS: dict[str, Callable[[str, Mapping[str, Any]], None]] = {
    check.__name__: check
    for check in (
        *(plain, partition, mates, resume, final, plan, deterministic, finite, unit_variance, random_access),
        *(stochastic, zero, no_op, beyond, removal, conflicts),
    )
}
DECLARED = [(law, name) for name, kind in BUILT.items() for law in kind.info.laws]


@pytest.mark.parametrize(("law", "name"), DECLARED, ids=[f"{law}-{name}" for law, name in DECLARED])
def test_law(law: str, name: str) -> None:
    CHECKS[law](name, BUILT[name].info.laws[law])


@pytest.mark.parametrize("name", BUILT)
def test_no_law_is_left_out(name: str) -> None:
    """Each law that concerns one of the method's slots is declared, or exempt with a reason; never both."""
    info = BUILT[name].info
    concerned = {law for law, entry in LAWS.items() if entry.slots & set(info.slots)}
    declared, exempt = set(info.laws), set(info.exempt)
    assert declared | exempt >= concerned, f"{name} says nothing of {sorted(concerned - declared - exempt)}"
    assert declared | exempt <= set(LAWS), f"{name} names unknown laws {sorted((declared | exempt) - set(LAWS))}"
    assert not declared & exempt
    assert all(len(reason) > 20 for reason in info.exempt.values()), "an exemption needs a reason"
    for law, settings in info.laws.items():
        assert set(settings) <= set(info.settings), f"{name}.laws[{law!r}] has a setting that does not exist"


def test_every_law_has_a_check() -> None:
    assert set(CHECKS) == set(LAWS)


def test_every_method_keeps_the_laws_of_the_house() -> None:
    """Determinism and conflicts are never waived, and a method with nothing to declare does not exist."""
    for name, kind in BUILT.items():
        assert "conflicts" in kind.info.laws, name
        if {"loop", "noise"} & set(kind.info.slots):
            assert "deterministic" in kind.info.laws, name
        assert inspect.getdoc(kind), name


@pytest.fixture
def spoilt() -> Iterator[None]:
    """The tiny model may come out of the test broken; others get a new one."""
    tiny.cache_clear()
    yield
    tiny.cache_clear()


def fails(law: str, name: str) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        CHECKS[law](name, {})


@pytest.mark.parametrize(("law", "kind"), FAULTS, ids=[f"{law}-{kind.__name__}" for law, kind in FAULTS])
def test_checks_fail_on_broken_methods(
    law: str, kind: type[Method], monkeypatch: pytest.MonkeyPatch, spoilt: None
) -> None:
    """Planted faults: a window sum off by one, rows that do not sum to 1, a state kept outside State."""
    monkeypatch.setitem(BUILT, "broken", kind)
    fails(law, "broken")


@pytest.mark.parametrize(("law", "name", "place", "fault"), HOUSE_FAULTS, ids=[row[0] for row in HOUSE_FAULTS])
def test_checks_fail_in_a_broken_house(
    law: str, name: str, place: str, fault: Any, monkeypatch: pytest.MonkeyPatch, spoilt: None
) -> None:
    """The same method, where what the law rests on is broken: a check of names, the taking off of a patch."""
    CHECKS[law](name, {})
    monkeypatch.setattr(place, fault)
    fails(law, name)


def test_every_law_has_a_planted_fault() -> None:
    """A check that cannot fail is none."""
    assert {law for law, _ in FAULTS} | {law for law, *_ in HOUSE_FAULTS} == set(LAWS)


def test_no_law_disappears() -> None:
    """The page holds the table law × method as it was when it was written; what is missing since then shows here."""
    page = Path(__file__).resolve().parents[2] / "docs" / "methods" / "laws.md"
    told = page.read_text(encoding="utf-8")
    assert filled(told, page.parent) == told, "a law was dropped or added; run `longgen bench tables` and look at it"
    assert all(f"`{law}`" in told for law in LAWS) and all(f"`{name}`" in told for name in BUILT)
