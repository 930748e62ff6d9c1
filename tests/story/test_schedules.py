"""Laws of the prompt schedules, at every length, against references written apart from the code."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longgen.errors import BadInput
from longgen.story.schedules import SCHEDULES, Relay, build, centre, latents_of, spans
from longgen.story.timeline import from_prompts
from longgen.types import Level, Shot, Timeline, Transition

light = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

STRIDES = (1, 4, 8)


def level(sigma: float, steps: int = 50) -> Level:
    value = torch.tensor(sigma)
    return Level(value, 1 - value, value * 1000, torch.tensor(round((1 - sigma) * steps)))


@st.composite
def stories(draw: st.DrawFn, distinct: bool = True) -> tuple[Timeline, int]:
    stride = draw(st.sampled_from(STRIDES))
    shots, start = [], 0
    for k in range(draw(st.integers(1, 5))):
        length = draw(st.integers(stride + 1, 12 * stride))
        kind: Transition = draw(st.sampled_from(("continue", "blend", "cut")))
        blend = draw(st.integers(1, length)) if kind == "blend" else 0
        text = f"text {k}" if distinct else f"text {draw(st.integers(0, 1))}"
        shots.append(Shot(text, start, start + length, f"s{k}", transition=kind, blend=blend))
        start += length
    return Timeline(tuple(shots), 8), stride


@pytest.mark.parametrize("stride", STRIDES)
def test_latents_cover_their_pixel_frames(stride: int) -> None:
    """The centre is the mean of the pixel frames that a causal VAE decodes from a latent."""
    for i in range(40):
        frames = [0] if i == 0 else range((i - 1) * stride + 1, i * stride + 1)
        assert centre(i, stride) == np.mean(frames)


@light
@given(told=stories(), name=st.sampled_from(sorted(SCHEDULES)), lead=st.integers(1, 3))
def test_latents_that_are_never_decoded_go_with_the_first_frame(
    told: tuple[Timeline, int], name: str, lead: int
) -> None:
    """Decoded latents are told what they are told without them."""
    timeline, stride = told
    plain, led = (build(timeline, name, stride, 5.0, lead=n) for n in (0, lead))
    assert [(a, b) for a, b in led.spans][1:] == [(a + lead, b + lead) for a, b in plain.spans][1:]
    frames = tuple(range(latents_of(timeline.frames, stride)))
    shifted = tuple(i + lead for i in frames)
    if isinstance(led, Relay):  # measures in latents, of which the first shot has more
        assert isinstance(plain, Relay) and torch.equal(led.penalty(shifted)[:, 1:], plain.penalty(frames)[:, 1:])
        return
    if name == "inject":  # likewise: only its spans are the same
        return
    assert torch.equal(led.mix(shifted, level(0.8)).weights, plain.mix(frames, level(0.8)).weights)
    one = (*range(lead), lead)
    assert torch.equal(led.mix(one, level(0.8)).weights[:1], led.mix(one, level(0.8)).weights[-1:])


@light
@given(stories())
def test_spans_tile_and_agree_with_the_timeline(story: tuple[Timeline, int]) -> None:
    timeline, stride = story
    cut = spans(timeline, stride)
    assert cut[0][0] == 0 and cut[-1][1] == latents_of(timeline.frames, stride)
    assert all(a[1] == b[0] for a, b in pairwise(cut))
    for shot, (a, b) in zip(timeline.shots, cut):
        assert all(shot.start <= centre(i, stride) < shot.stop or shot is timeline.shots[-1] for i in range(a, b))


@pytest.mark.parametrize("name", [n for n in SCHEDULES if n != "relay"])
@light
@given(story=stories(distinct=False))
def test_weights_sum_to_one_exactly(name: str, story: tuple[Timeline, int]) -> None:
    timeline, stride = story
    schedule = build(timeline, name, stride, 5.0)
    mix = schedule.mix(tuple(range(latents_of(timeline.frames, stride))), level(0.5))
    for weights in (mix.weights, mix.early):
        if weights is not None:
            assert (weights >= 0).all() and (weights.double().sum(1) - 1).abs().max() < 1e-7


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("shots", range(1, 5))
def test_equal_prompts_are_one_prompt(name: str, shots: int) -> None:
    """All weight on the one text, exactly, in the plain space: the model sees what it sees without a schedule."""
    schedule = build(from_prompts(["a cat"] * shots, 81, 16), name, 4, 5.0)
    for sigma in (0.0, 0.8, 1.0):
        mix = schedule.mix(tuple(range(21)), level(sigma))
        assert schedule.texts == ("a cat",) and mix.early is None and mix.space != "bias"
        assert torch.equal(mix.weights, torch.ones(21, 1))


@light
@given(stories())
def test_transitions_are_monotone_and_stay_in_their_interval(story: tuple[Timeline, int]) -> None:
    timeline, stride = story
    every = tuple(range(latents_of(timeline.frames, stride)))
    for name in ("hold", "travel", "blend"):
        weights = build(timeline, name, stride, 5.0).mix(every, level(0.5)).weights
        for k, shot in enumerate(timeline.shots[1:], 1):
            later = weights[:, k:].sum(1)
            assert (later.diff() >= -1e-6).all()
            length = {"cut": 0, "blend": shot.blend}.get(shot.transition, (shot.stop - shot.start) / 4)
            length = 0 if name == "hold" and shot.transition == "continue" else length
            for i in every:
                if centre(i, stride) < shot.start:
                    assert later[i] == 0
                if centre(i, stride) >= shot.start + length:
                    assert later[i] == 1


def test_hold_against_the_timeline_frame_by_frame() -> None:
    timeline = from_prompts(["a", "b", "c"], 121, 16)
    schedule = build(timeline, "hold", 4, 5.0)
    weights = schedule.mix(tuple(range(31)), level(0.5)).weights
    for i in range(31):
        frames = [0] if i == 0 else range(4 * i - 3, 4 * i + 1)
        votes = [sum(timeline.at(f).prompt == text for f in frames) for text in schedule.texts]
        assert votes[int(weights[i].argmax())] == max(votes)


@light
@given(stories(), st.data())
def test_a_window_gets_the_slice_of_the_whole(story: tuple[Timeline, int], data: st.DataObject) -> None:
    timeline, stride = story
    total = latents_of(timeline.frames, stride)
    a = data.draw(st.integers(0, total - 1))
    b = data.draw(st.integers(a + 1, total))
    for name in SCHEDULES:
        if name == "window":
            continue
        schedule = build(timeline, name, stride, 5.0)
        whole, part = schedule.mix(tuple(range(total)), level(0.5)), schedule.mix(tuple(range(a, b)), level(0.5))
        assert torch.equal(whole.weights[a:b], part.weights)
        if whole.early is not None and part.early is not None:
            assert torch.equal(whole.early[a:b], part.early)


@light
@given(stories())
def test_latents_before_a_shot_do_not_know_its_prompt(story: tuple[Timeline, int]) -> None:
    timeline, stride = story
    *before, last = timeline.shots
    changed = Timeline((*before, Shot("something else", last.start, last.stop, last.id)), 8)
    first = spans(timeline, stride)[-1][0]
    for name in ("hold", "travel", "blend", "window"):
        one, two = (build(t, name, stride, 5.0) for t in (timeline, changed))
        frames = tuple(range(first))
        if frames:
            assert torch.equal(one.mix(frames, level(0.5)).weights, two.mix(frames, level(0.5)).weights)


def test_a_queue_changes_prompt_latent_by_latent() -> None:
    """Levels differ per latent; texts follow the absolute index alone."""
    schedule = build(from_prompts(["a", "b"], 161, 16), "hold", 4, 5.0)
    frames = tuple(range(15, 25))
    sigma = torch.linspace(0, 1, 10)
    weights = schedule.mix(frames, Level(sigma, 1 - sigma, sigma, torch.arange(10))).weights
    assert torch.equal(weights[:, 1], (torch.tensor(frames) >= 21).float())


def test_a_window_sees_the_text_of_its_middle() -> None:
    schedule = build(from_prompts(["a", "b"], 81, 16), "window", 4, 5.0)
    for start in range(12):
        weights = schedule.mix(tuple(range(start, start + 10)), level(0.5)).weights
        middle = np.mean([centre(start, 4), centre(start + 9, 4)])
        assert torch.equal(weights, torch.tensor([[0.0, 1.0] if middle >= 40 else [1.0, 0.0]]).expand(10, -1))


def test_context_from_elsewhere_does_not_move_the_middle() -> None:
    """A window that also keeps latents 0 and 1 for context has the text of its own shot."""
    schedule = build(from_prompts(["a", "b"], 161, 16, "no"), "window", 4, 5.0)
    weights = schedule.mix((0, 1, *range(22, 32)), level(0.5)).weights
    assert torch.equal(weights, torch.tensor([[0.0, 1.0]]).expand(12, -1))


def test_keyed_travel_is_linear_between_starts() -> None:
    """FizzNodes' and FreeNoise's map: each text is pure where its shot starts."""
    timeline = Timeline((Shot("a", 0, 20, "a"), Shot("b", 20, 60, "b"), Shot("c", 60, 61, "c")), 8)
    weights = build(timeline, "travel", 1, 5.0, keys=True).mix(tuple(range(61)), level(0.5)).weights
    want = np.stack([np.interp(np.arange(61), [0, 20, 60], row) for row in np.eye(3)], 1)
    np.testing.assert_allclose(weights, want, atol=1e-6)


# ------------------------------------------------------------------------------------------------- motion injection


@pytest.mark.parametrize("total", range(8, 100))
def test_injection_splits_two_prompts_as_published(total: int) -> None:
    """First 3T//8 hold, then T − 2(3T//8) of linspace(0, 1) with end points, then hold (64 → 24/16/24)."""
    start = (total + 1) // 2
    timeline = Timeline((Shot("a", 0, start, "a"), Shot("b", start, total, "b")), 8)
    weights = build(timeline, "inject", 1, 5.0).mix(tuple(range(total)), level(0.8)).weights
    hold = 3 * total // 8
    want = torch.cat([torch.zeros(hold), torch.linspace(0, 1, total - 2 * hold), torch.ones(hold)])
    torch.testing.assert_close(weights[:, 1], want)


@pytest.mark.parametrize(("variant", "fixed"), [("paper", (0, 0, 2, 2, 4)), ("code", (1, 1, 3, 3, 4))])
def test_injection_begins_anew_after_a_cut(variant: str, fixed: tuple[int, ...]) -> None:
    shots = [
        Shot("abcde"[k], 20 * k, 20 * k + 20, f"s{k}", transition="cut" if k in (2, 4) else "continue")
        for k in range(5)
    ]
    mix = build(Timeline(tuple(shots), 8), "inject", 4, 5.0, variant=variant).mix(tuple(range(26)), level(0.5))
    shot_of = [max(k for k in range(5) if centre(i, 4) >= 20 * k) for i in range(26)]
    assert mix.early is not None
    assert mix.early.argmax(1).tolist() == [fixed[k] for k in shot_of] and mix.early.sum(1).eq(1).all()


@pytest.mark.parametrize(("variant", "fixed"), [("paper", 0), ("code", 1)])
def test_injection_fixes_the_early_layers_outside_its_levels(variant: str, fixed: int) -> None:
    schedule = build(from_prompts(["a", "b"], 81, 16), "inject", 4, 5.0, variant=variant)
    every = tuple(range(21))
    for step in range(51):
        mix = schedule.mix(every, level(1 - step / 50))
        if 5 <= step <= 15:
            assert mix.early is None
        else:
            assert mix.early is not None and mix.split == 0.5
            assert torch.equal(mix.early, torch.eye(2)[fixed].expand(21, -1))
    sigma = torch.linspace(1, 0, 21)
    queue = schedule.mix(every, Level(sigma, 1 - sigma, sigma, torch.arange(21)))
    assert queue.early is not None
    inside = (sigma >= 0.7) & (sigma <= 0.9)
    assert torch.equal(queue.early[inside], queue.weights[inside])
    assert torch.equal(queue.early[~inside], torch.eye(2)[fixed].expand(int((~inside).sum()), -1))


# ------------------------------------------------------------------------------------------------------ prompt relay


@light
@given(stories(), st.sampled_from((0.0, 2.0)))
def test_relay_penalties_follow_the_formula(story: tuple[Timeline, int], tail: float) -> None:
    timeline, stride = story
    if len(timeline.shots) == 1:
        return
    schedule = build(timeline, "relay", stride, 5.0, shared="all of it", tail=tail)
    total = latents_of(timeline.frames, stride)
    mix = schedule.mix(tuple(range(total)), level(0.5))
    assert mix.space == "bias" and schedule.texts == ("all of it", *(s.prompt for s in timeline.shots))
    assert sum(b - a for a, b in spans(timeline, stride)) == total
    assert (mix.weights[:, 0] == 0).all()
    sigma = tail / math.sqrt(2 * math.log(1e3)) if tail else 1 / math.log(1e3)
    for s, (a, b) in enumerate(spans(timeline, stride)):
        middle, w = np.mean(range(a, b)), max((b - a) // 2 - 2, 0)
        for f in range(total):
            want = max(abs(f - float(middle)) - w, 0.0) ** 2 / (2 * sigma**2)
            assert float(mix.weights[f, s + 1]) == pytest.approx(want, rel=1e-5)


def test_relay_leaves_epsilon_at_the_end_of_its_tail() -> None:
    timeline = from_prompts(["a", "b"], 42, 16)
    schedule = build(timeline, "relay", 1, 5.0, tail=2.0, epsilon=1e-3)
    middle, w = 10, 21 // 2 - 2
    penalty = schedule.mix((middle + w, middle + w + 2), level(0.5)).weights[:, 0]
    assert penalty[0] == 0 and float(torch.exp(-penalty[1])) == pytest.approx(1e-3, rel=1e-4)


def test_relay_of_a_text_told_twice_takes_the_nearer_segment() -> None:
    twice = build(from_prompts(["a", "b", "a"], 90, 16), "relay", 1, 5.0)
    thrice = build(from_prompts(["a", "b", "c"], 90, 16), "relay", 1, 5.0)
    every = tuple(range(90))
    c = thrice.mix(every, level(0.5)).weights
    want = torch.stack([torch.minimum(c[:, 0], c[:, 2]), c[:, 1]], 1)
    assert torch.equal(twice.mix(every, level(0.5)).weights, want)


# -------------------------------------------------------------------------------------------- per-shot values, errors


def test_negatives_and_guidance_belong_to_their_shots() -> None:
    shots = (Shot("a", 0, 20, "a", negative="n", guidance=3.0), Shot("b", 20, 40, "b"))
    schedule = build(Timeline(shots, 8), "hold", 1, 6.0, "default")
    assert schedule.negatives[schedule.negative((0, 10))] == "n"
    assert schedule.negatives[schedule.negative((15, 30))] == "default"
    scales = schedule.guidance((0, 19, 20, 39))
    assert isinstance(scales, torch.Tensor) and scales.tolist() == [3, 3, 6, 6]
    assert build(from_prompts(["a", "b"], 40, 8), "hold", 1, 6.0).guidance((0, 39)) == 6.0


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("hald", {}, "did you mean 'hold'"),
        ("travel", {"lenght": 3}, "did you mean 'length'"),
        ("travel", {"length": -1}, "legal: 0 to inf frames"),
        ("inject", {"variant": "papre"}, "did you mean 'paper'"),
        ("relay", {"epsilon": 2}, "legal: 1e-12 to 0.999"),
    ],
)
def test_bad_options_are_named(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        build(from_prompts(["a", "b"], 81, 16), name, 4, 5.0, **options)


def test_a_shot_between_latents_is_refused() -> None:
    shots = (Shot("a", 0, 9, "a"), Shot("b", 9, 10, "b"), Shot("c", 10, 33, "c"))
    with pytest.raises(BadInput, match="shot 'b' lasts 1 frames"):
        build(Timeline(shots, 8), "hold", 8, 5.0)
