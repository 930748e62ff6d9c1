"""Splitting prompts and sharing frames out, at every length."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longgen.errors import BadInput
from longgen.story.timeline import boundaries, check, find, join_bars, parse_prompt, share, show, split_bars
from longgen.types import Shot, Timeline

light = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)


@light
@given(st.lists(words, min_size=1, max_size=6))
def test_bars_round_trip(prompts: list[str]) -> None:
    assert split_bars(join_bars(prompts)) == prompts


@light
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=20), st.integers(20, 300))
def test_shares_tile_the_video_in_proportion(weights: list[float], frames: int) -> None:
    spans = share(weights, frames)
    assert spans[0][0] == 0 and spans[-1][1] == frames
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    assert all(b > a for a, b in spans)
    if all(frames * w / sum(weights) > 1.5 for w in weights):
        assert all(abs((b - a) - frames * w / sum(weights)) <= 1 for (a, b), w in zip(spans, weights))


@pytest.mark.parametrize("frames", range(3, 40))
def test_a_prompt_with_bars_covers_every_length(frames: int) -> None:
    timeline = parse_prompt(r"a \| b | c | d", frames, 8)
    assert [s.prompt for s in timeline.shots] == ["a | b", "c", "d"]
    assert timeline.frames == frames and check(timeline) is timeline
    assert boundaries(timeline) == [s.start for s in timeline.shots[1:]]


def test_one_prompt_is_one_shot() -> None:
    assert parse_prompt("a cat", 33, 8).shots == Timeline.single("a cat", 33, 8).shots


@pytest.mark.parametrize(
    ("shots", "says"),
    [
        ((Shot("a", 0, 5, "x"), Shot("b", 4, 9, "y")), "'y' starts at frame 4, but the shot before it ends at frame 5"),
        ((Shot("a", 0, 5, "x"), Shot("b", 6, 9, "y")), "'y' starts at frame 6"),
        ((Shot("a", 0, 5, "x"), Shot("b", 5, 5, "y")), "'y' is empty"),
        ((Shot("a", 0, 5, "x"), Shot("b", 5, 9, "x")), "two shots have the id 'x'"),
        ((Shot("a", 0, 5, "x", transition="blend", blend=6),), "legal: 0 to 5"),
        ((Shot("a", 0, 1_000_001, "x"),), "at most 1000000"),
        ((), "1 to 1000 shots"),
    ],
)
def test_impossible_times_are_named(shots: tuple[Shot, ...], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        check(Timeline(shots, 8))


def test_bad_prompts() -> None:
    with pytest.raises(BadInput, match="shot 2 of 3 has an empty prompt"):
        parse_prompt("a | | b", 33, 8)
    with pytest.raises(BadInput, match="use at most 2 shots"):
        parse_prompt("a | b | c", 2, 8)
    with pytest.raises(BadInput, match="did you mean 'shot1'"):
        find(parse_prompt("a | b", 33, 8), "sho1")


def test_a_table_shows_every_field() -> None:
    shot = Shot("b", 4, 9, "y", negative="n", transition="blend", blend=2, seed=7, guidance=3.0, loras=("l",))
    text = show(Timeline((Shot("a", 0, 4, "x"), shot), 8))
    for part in ("blend 2 frames", "negative 'n'", "seed 7", "guidance 3.0", "lora 'l'", "frames 4–8", "0.50–1.12 s"):
        assert part in text
