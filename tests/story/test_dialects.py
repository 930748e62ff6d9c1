"""Every dialect is read into the one timeline, and what is written in it is read back the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longgen.errors import BadInput
from longgen.story.dialects import DIALECTS, read_file, read_source, source_of, write
from longgen.story.file import Clock
from longgen.story.timeline import MAX_SHOTS
from longgen.types import Shot, Timeline, Transition

light = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

FPS = 16.0
words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=10)
# Not every dialect can hold every text: marks of a dialect inside a prompt are refused when it is written.
prompts = st.lists(words, min_size=1, max_size=3).map(" ".join)


def read(text: str, dialect: str | None = None, frames: int | None = None, name: str = "s.txt") -> Timeline:
    clock = Clock(FPS, frames, 81)
    return read_source(source_of(text, name), clock, dialect).timeline(clock)


def said(timeline: Timeline) -> list[tuple[str, int, int]]:
    return [(s.prompt, s.start, s.stop) for s in timeline.shots]


@st.composite
def timelines(draw: st.DrawFn, unit: int = 1, kinds: tuple[Transition, ...] = ("continue",)) -> Timeline:
    shots, start = [], 0
    for k in range(draw(st.integers(1, 6))):
        length = unit * draw(st.integers(1, 6))
        kind = draw(st.sampled_from(kinds)) if k else "continue"
        blend = draw(st.integers(0, length - 1)) if kind == "blend" else 0
        text = draw(prompts)
        shots.append(Shot(text, start, start + length, f"shot{k + 1}", transition=kind, blend=blend))
        start += length
    return Timeline(tuple(shots), FPS)


CASES: dict[str, Any] = {
    "seconds": timelines(),
    "map": timelines(kinds=("continue", "blend")),
    "sections": timelines(unit=36),
    "ltx": timelines(unit=56),
    "lines": timelines(kinds=("continue", "blend", "cut")),
    "storymem": timelines(unit=80, kinds=("continue", "cut")),
    "holocine": timelines(kinds=("cut",)),
    "story": timelines(kinds=("continue", "blend", "cut")),
    "bars": timelines(),
    "vbench": timelines(),
    "continuation": timelines(),
}
EVEN = {"bars", "vbench", "continuation"}


def test_every_dialect_that_can_be_written_has_a_round_trip() -> None:
    assert set(CASES) == {name for name, dialect in DIALECTS.items() if dialect.write}


@pytest.mark.parametrize("name", CASES)
@light
@given(data=st.data())
def test_round_trip(name: str, data: st.DataObject) -> None:
    """Text, times, transitions and blends survive; a writer that cannot say something refuses instead."""
    timeline = data.draw(CASES[name])
    try:
        text = write(timeline, name)
    except BadInput as refusal:
        assert "no words" in str(refusal)
        return
    back = read(text, name, timeline.frames if name in {*EVEN, "map"} else None)
    if name in EVEN:
        assert [s.prompt for s in back.shots] == [s.prompt for s in timeline.shots]
        lengths = [s.stop - s.start for s in back.shots]
        assert back.frames == timeline.frames and max(lengths) - min(lengths) <= 1
        return
    assert said(back) == said(timeline)
    for a, b in zip(back.shots[1:], timeline.shots[1:]):
        assert (a.transition, a.blend) == (b.transition, b.blend)


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_recognised(name: str) -> None:
    unit = {"sections": 36, "ltx": 56, "storymem": 80}.get(name, 20)
    kind: Transition = "cut" if name == "holocine" else "continue"
    shots = [Shot(f"a fox {k}", k * unit, (k + 1) * unit, f"shot{k + 1}", transition=kind) for k in range(3)]
    clock = Clock(FPS, 3 * unit)
    assert read_source(source_of(write(Timeline(tuple(shots), FPS), name), "s.txt"), clock).dialect == name


ABC = [("a", 0, 16), ("b", 16, 48), ("c", 48, 80)]
EXAMPLES: list[tuple[str, str, int | None, list[tuple[str, int, int]]]] = [
    ("map", '{"0": "a", "16": "b", "48": "c"}', 80, ABC),
    ("map", '"0": "a",\n"16": "b",\n"48": "c",', 80, ABC),
    ("map", '0 = "a"\n16 = "b"\n48 = "c"', 80, ABC),
    ("map", "0: a\n16: b\n48: c", 80, ABC),
    ("map", '{"0.0": "a", "0.2": "b", "-32": "c"}', 80, ABC),
    ("map", '{"48": "c", "0": "a", "16": "b"}', 80, ABC),
    ("map", '{0: "a", 16: "b", 48: "c"}', 80, ABC),
    ("map", '{"0": "a", "16": "b", "48:80": "c"}', None, ABC),
    ("seconds", "[0s: a] [1s: b] [3s-5s: c]", None, ABC),
    ("seconds", "[0s: a]\n[1.0s-2s: b]\n[3s: c]", 80, ABC),
    ("bars", "a | b | c", 81, [("a", 0, 27), ("b", 27, 54), ("c", 54, 81)]),
    ("sections", "0:a;;;1-2:b;;;-1:c", None, [("a", 0, 36), ("b", 36, 108), ("c", 108, 144)]),
    ("sections", "0:a;;;1-2:b;;;-1:c", 181, [("a", 0, 36), ("b", 36, 144), ("c", 144, 181)]),
    ("lines", "a [/duration=1s]\n# a remark\nb [/duration=2s]\nc [/duration=2s,/new_shot]", None, ABC),
    ("lines", "a\nb\n\nc\nd [/overlap=4]", 80, [("a b", 0, 40), ("c d", 40, 80)]),
    ("storymem", '{"scenes": [{"scene_num": 1, "video_prompts": ["a", "b"]}]}', None, [("a", 0, 80), ("b", 80, 160)]),
    (
        "holocine",
        '{"global_caption": "g.", "shot_captions": ["a", "b"], "num_frames": 80, "shot_cut_frames": [30]}',
        None,
        [("g. a", 0, 30), ("g. b", 30, 80)],
    ),
    ("holocine", "[global caption] g. [per shot caption] a [shot cut] b", 80, [("g. a", 0, 40), ("g. b", 40, 80)]),
    (
        "ltx",
        '[{"start_window": 0, "end_window": 1, "text": "a"}, {"start_window": 2, "end_window": 2, "text": "b"}]',
        None,
        [("a", 0, 112), ("b", 112, 168)],
    ),
    ("vbench", '[{"summary": "s", "storyline": ["a", "b"]}]', 80, [("a", 0, 40), ("b", 40, 80)]),
    ("continuation", '{"prompt": "a", "continuation_prompts": ["b"]}', 80, [("a", 0, 40), ("b", 40, 80)]),
    ("prompt", "a fox: it runs", None, [("a fox: it runs", 0, 81)]),
    ("story", '{"shots": [{"prompt": "a"}, {"prompt": "b"}]}', None, [("a", 0, 81), ("b", 81, 162)]),
]


@pytest.mark.parametrize(("dialect", "text", "frames", "want"), EXAMPLES)
def test_examples(dialect: str, text: str, frames: int | None, want: list[tuple[str, int, int]]) -> None:
    clock = Clock(FPS, frames, 81)
    told = read_source(source_of(text, "s.txt"), clock)
    assert told.dialect == dialect
    assert said(told.timeline(clock)) == want


def test_head_tail_and_negative_of_a_prompt_map() -> None:
    text = '{"head_prompt": "film", "tail_prompt": "grain", "n_prompt": ["blur"], "prompt_map": {"0": "{a}", "9": "b"}}'
    timeline = read(text, frames=20)
    assert [s.prompt for s in timeline.shots] == ["film, {a}, grain", "film, b, grain"]
    assert {s.negative for s in timeline.shots} == {"blur"}


def test_ranges_and_holds_of_a_map() -> None:
    """`0:12` holds to 12 and travels to the next key; `30:` holds to the next key, which comes at once."""
    shots = read('{"0:12": "a", "30:": "b", "50": "c"}', frames=80).shots
    assert [(s.start, s.transition, s.blend) for s in shots] == [
        (0, "continue", 0),
        (12, "blend", 18),
        (50, "blend", 0),
    ]


@pytest.mark.parametrize(
    ("text", "frames", "says"),
    [
        ('{"0": "a", "-1": "b"}', None, "depends on the length of the video; give --num-frames"),
        ('{"0": "a", "90": "b"}', 80, "line 1: frame 90 lies outside the video of 80 frames"),
        ('{"0": "a",\n "0:20": "b",\n "10": "c"}', 80, "line 3: the range that ends at frame 20"),
        ('{"0:20": "a",\n "10": "b"}', 80, "line 2: the range that ends at frame 20 overlaps frame 10"),
        ('{"0": "a", "8:2": "b"}', 80, "the range '8:2' ends before it starts"),
        ("[0s: a] [3s-2s: b]", None, "line 1: the range 3s-2s is empty"),
        ("[0s-4s: a]\n[3s: b]", None, "line 2: 3 s lies inside the range before it"),
        ("[0s: a]\n[0s: b]", None, "line 2: times must rise"),
        ("[0s: a [3s: b]", None, "needs a closing bracket"),
        ("[0s: ] [3s: b]", None, "line 1: a prompt must be a text"),
        ("[0s: a] [9s: b]", 80, "starts at or after the end of the video"),
        ("0:a;;;0-2:b", None, "section 0 is named twice"),
        ("0:a;;;9:b", 80, "section 9 lies past the last, 2"),
        ("a\nb [/lora=3]", None, r"line 2: \[/lora=3\] is not one of"),
        ("a\nb [/duration=0s]", None, "line 2"),
        ('{"scenes": [{"video_prompts": ["a"], "cut": [true, false]}]}', None, r"scenes\[0\]\.cut must be a list"),
        ('{"shot_captions": ["a", "b"], "shot_cut_frames": []}', None, "2 shot_captions need 1 shot_cut_frames"),
        ('{"shot_captions": ["a", "b", "c"], "shot_cut_frames": [9, 9]}', 80, "times must rise"),
        ('[{"start_window": 1, "end_window": 0, "text": "a"}]', None, "windows 1-0 overlap"),
        ('[{"storyline": ["a"]}, {"storyline": ["b"]}]', None, "pick one with s.txt|FILE#1"),
        ("", None, "the story is empty"),
        ("[1, 2]", None, "a list of this kind is no story"),
    ],
)
def test_faults_are_named(text: str, frames: int | None, says: str) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        read(text, frames=frames)
    assert str(caught.value).startswith("s.txt") and "\n" not in str(caught.value)


def test_one_of_many_stories(tmp_path: Path) -> None:
    file = tmp_path / "list.json"
    file.write_text('[{"summary": "", "storyline": ["a"]}, {"summary": "", "storyline": ["b", "c"]}]')
    clock = Clock(FPS, 80)
    assert [s.prompt for s in read_file(f"{file}#2", clock).timeline(clock).shots] == ["b", "c"]
    with pytest.raises(BadInput, match="#3 is none of its 2 stories"):
        read_file(f"{file}#3", clock)


def longlive(folder: Path, captions: list[Any], durations: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for k, caption in enumerate(captions):
        if caption is not None:
            (folder / f"{k}.json").write_text(json.dumps({"caption": caption}))
    if durations is not None:
        (folder / "shot_durations.txt").write_text(durations)
    return folder


def test_a_longlive_folder(tmp_path: Path) -> None:
    """Chunks of 8 latents: 2, 1 and 3 of them are 61, 32 and 96 frames; every shot but the first is cut."""
    shots = ["a fox {here}", "The scene transitions. a cat", "a dog"]
    told = read_file(longlive(tmp_path / "x" / "caption" / "one", shots, "2 1, 3\n"), Clock(FPS))
    assert told.dialect == "longlive"
    assert said(told.timeline(Clock(FPS))) == [("a fox {here}", 0, 61), ("a cat", 61, 93), ("a dog", 93, 189)]
    assert [s.transition for s in told.timeline(Clock(FPS)).shots] == ["continue", "cut", "cut"]
    shared = read_file(longlive(tmp_path / "two", ["a", "b"]), Clock(FPS)).timeline(Clock(FPS, 81))
    assert said(shared) == [("a", 0, 41), ("b", 41, 81)]
    with pytest.raises(BadInput, match="stories lie in caption/one"):
        read_file(tmp_path / "x", Clock(FPS))


@pytest.mark.parametrize(
    ("captions", "durations", "says"),
    [
        (["a", None, "b"], None, r"1\.json is missing"),
        (["a", 3], None, r"1\.json must hold a mapping with the key caption"),
        (["a", " "], None, "a prompt must be a text"),
        (["a", "b"], "2", "2 captions need 2 durations .got 1."),
        (["a", "b"], "2 0", "whole numbers of chunks from 1 on"),
        (["a", "b"], "2 x", "whole numbers of chunks from 1 on"),
    ],
)
def test_faults_of_a_folder_are_named(captions: list[Any], durations: str | None, says: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        read_file(longlive(tmp_path, captions, durations), Clock(FPS))
    assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)


def test_ten_thousand_shots() -> None:
    with pytest.raises(BadInput, match=f"10000 shots; at most {MAX_SHOTS}"):
        read(" | ".join(["a"] * 10_000), frames=20_000)


@light
@given(st.text(max_size=200))
def test_any_text_is_a_timeline_or_one_clear_line(text: str) -> None:
    try:
        timeline = read(text, frames=200)
    except BadInput as error:
        assert "\n" not in str(error)
    else:
        assert timeline.frames == 200
