"""The story file: lengths, characters, style, and one clear line for everything that is wrong."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longgen.errors import BadInput
from longgen.story.dialects import read_file
from longgen.story.file import Clock, to_story, to_timeline, validate
from longgen.story.load import MAX_BYTES, Document
from longgen.story.schema import MAX_SHOTS, Story, escape, expand, json_schema
from longgen.types import Timeline

light = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

STORY = """\
version: 1
style: watercolour
characters:
  hero: a red fox with one white ear
defaults:
  negative: blurry
  duration: 10s
shots:
  - id: wake
    prompt: "{hero} wakes"
    duration: 2s
  - prompt: "{hero} runs"
    weight: 3
    transition: blend
    blend: 0.5
    seed: 7
  - prompt: the forest
    negative: ""
    transition: cut
    guidance: 3
"""


def told(text: str, folder: Path, frames: int | None = None, name: str = "s.yaml", fps: float = 8) -> Timeline:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    clock = Clock(fps, frames, 33)
    return read_file(file, clock, options=("duration", "num_frames", "seed")).timeline(clock)


def test_a_story_in_frames(tmp_path: Path) -> None:
    wake, run, forest = told(STORY, tmp_path, frames=80).shots
    assert (wake.id, wake.start, wake.stop, wake.prompt) == (
        "wake",
        0,
        16,
        "a red fox with one white ear wakes, watercolour",
    )
    assert (run.start, run.stop, run.transition, run.blend, run.seed, run.negative) == (16, 64, "blend", 4, 7, "blurry")
    assert (forest.stop, forest.transition, forest.negative, forest.guidance) == (80, "cut", "", 3)


def test_defaults_keep_options_for_generate(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(STORY)
    assert read_file(file, Clock(8)).story.defaults.options == {"duration": "10s"}


@light
@given(
    st.lists(
        st.one_of(
            st.floats(0.5, 9).map(lambda d: {"duration": d}),
            st.integers(4, 60).map(lambda f: {"frames": f}),
            st.floats(0.5, 4).map(lambda w: {"weight": w}),
            st.just({}),
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from((8.0, 16.0, 24.0, 29.97)),
    st.integers(100, 2000),
)
def test_lengths_are_kept_and_shared_out(lengths: list[dict[str, float]], fps: float, rest: int) -> None:
    story = Story.model_validate({"shots": [{"prompt": "a", **length} for length in lengths]})
    shared = [s.weight or 1 for s in story.shots if s.duration is None and s.frames is None]
    fixed = sum((s.frames or 0) + (s.duration or 0) * fps for s in story.shots)
    frames = int(fixed) + rest
    timeline = to_timeline(story, Clock(fps, frames if shared else None))
    assert timeline.frames == (frames if shared else int(fixed + 0.5))
    for spec, shot in zip(story.shots, timeline.shots):
        length = shot.stop - shot.start
        if spec.frames:
            assert length == spec.frames
        elif spec.duration:
            assert abs(length - spec.duration * fps) <= 1
        else:
            assert abs(length - (frames - fixed) * (spec.weight or 1) / sum(shared)) <= 1


def test_a_video_without_a_length_gives_each_shot_the_native_one(tmp_path: Path) -> None:
    shots = told("shots: [{prompt: a}, {prompt: b, duration: 1}, {prompt: c, weight: 2}]", tmp_path).shots
    assert [s.stop for s in shots] == [33, 41, 107]


def test_a_timeline_survives_its_own_story(tmp_path: Path) -> None:
    timeline = told(STORY, tmp_path, frames=80)
    assert to_timeline(validate(Document(to_story(timeline), "s")), Clock(8)) == timeline


def test_characters_and_braces() -> None:
    assert expand("{a} meets {{a}}", {"a": "Ann"}) == "Ann meets {a}"
    assert expand(escape("{a} {{b}} }"), {}) == "{a} {{b}} }"
    with pytest.raises(BadInput, match="did you mean 'hero'"):
        expand("{herro}", {"hero": "x"})
    with pytest.raises(BadInput, match="a brace stands alone"):
        expand("{hero", {"hero": "x"})
    framed = Story.model_validate({"style": "film of {prompt}, grain", "shots": [{"prompt": "a"}]})
    assert framed.prompt_of(0) == "film of a, grain"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "shots:\n - prompt: a\n   duraton: 3",
            r"line 3, shots\[0\]\.duraton: unknown key 'duraton'; did you mean 'duration'",
        ),
        ("shts:\n - prompt: a", "line 1, shts: unknown key 'shts'; did you mean 'shots'"),
        ("shots:\n - prompt: a\n - promt: b", r"line 3, shots\[1\]\.promt: unknown key"),
        ("shots:\n - duration: 3", r"line 2, shots\[0\]\.prompt: is missing"),
        ("shots:\n - prompt: ''", r"line 2, shots\[0\]\.prompt: is empty"),
        ("shots:\n - prompt: a\n   duration: 0", r"line 3, shots\[0\]\.duration: must be greater than 0 \(got 0\)"),
        ("shots:\n - prompt: a\n   duration: -1s", r"line 3, shots\[0\]\.duration"),
        ("shots:\n - prompt: a\n   duration: .inf", r"line 3, shots\[0\]\.duration"),
        ("shots:\n - prompt: a\n   duration: soon", "is a time such as 5s or 1m30s, not 'soon'"),
        (
            "shots:\n - prompt: a\n   duration: 2\n   frames: 9",
            r"line 2, shots\[0\]: duration and frames exclude each other",
        ),
        (
            "shots:\n - prompt: a\n - prompt: b\n   transition: fade",
            r"line 4, shots\[1\]\.transition: must be 'continue'",
        ),
        ("shots:\n - prompt: a\n - prompt: b\n   transition: cut\n   blend: 1", "has no blend"),
        (
            "shots:\n - prompt: a\n - prompt: b\n   duration: 1\n   blend: 2",
            r"line 5, shots\[1\]\.blend: blends over 16 frames",
        ),
        ("shots:\n - prompt: a\n   duration: 0.01", r"line 2, shots\[0\]: the shot is shorter than one frame"),
        (
            "characters: {hero: x}\nshots:\n - prompt: '{her}'",
            r"line 3, shots\[0\]\.prompt: unknown character 'her'; did you",
        ),
        ("shots:\n - prompt: a\n   image: no.png", r"line 3, shots\[0\]\.image: .*no\.png does not exist"),
        ("shots:\n - prompt: a\n - prompt: b\n   image: s.yaml", "an image can start the first shot only"),
        ("shots:\n - prompt: a\n - prompt: b\n   loras: [x]", "the same in all shots"),
        (
            "shots:\n - {prompt: a, id: x}\n - {prompt: b, id: x}",
            r"line 3, shots\[1\]\.id: 'x' is the id of an earlier",
        ),
        ("shots: []", "shots: tuple should have at least 1 item"),
        ("defaults:\n  duratoin: 3\nshots: [{prompt: a}]", r"line 2, defaults\.duratoin: unknown key"),
        ("version: 2\nshots: [{prompt: a}]", "line 1, version: must be 1 \\(got 2\\)"),
        ("shots: &a\n - prompt: x\nstyle: *a", "line 1: aliases"),
        ("shots:\n - prompt: a\n   prompt: b", "line 3: the key 'prompt' stands twice"),
        ('{"shots": [{"prompt": "a", "prompt": "b"}]}', "the key 'prompt' stands twice"),
        ("shots: [{prompt: a}", "not YAML"),
        ("shots: !!python/object/apply:os.system ['true']", "line 1: tags"),
        ("shots: " + "[" * 40 + "]" * 40, "line 1: nested more than 16 deep"),
        ("shots:\n" + " - prompt: a\n" * (MAX_SHOTS + 1), f"shots: tuple should have at most {MAX_SHOTS} items"),
    ],
)
def test_bad_stories_name_file_line_and_key(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        told(text, tmp_path)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "s.yaml")) and "\n" not in message


@pytest.mark.parametrize(
    ("shots", "frames", "says"),
    [
        ("[{prompt: a, duration: 2}, {prompt: b}]", 16, "16 frames .2.00 s. of shots with a length leave nothing"),
        ("[{prompt: a, duration: 2}, {prompt: b, duration: 2}]", 33, "the shots last 32 frames"),
        ("[{prompt: a, duration: 86400}, {prompt: b, duration: 86400}]", None, "at most 1000000"),
    ],
)
def test_lengths_that_do_not_fit(shots: str, frames: int | None, says: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=says):
        told(f"shots: {shots}", tmp_path, frames)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    clock = Clock(8)
    (tmp_path / "latin.yaml").write_bytes(b"shots:\n - prompt: caf\xe9\n")
    with pytest.raises(BadInput, match="line 2: byte 21 is not UTF-8"):
        read_file(tmp_path / "latin.yaml", clock)
    (tmp_path / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(BadInput, match="over 1 MB"):
        read_file(tmp_path / "big.yaml", clock)
    with pytest.raises(BadInput, match="does not exist"):
        read_file(tmp_path / "none.yaml", clock)
    with pytest.raises(BadInput, match=r"holds no captions 0\.json"):
        read_file(tmp_path, clock)


def test_the_largest_legal_file_is_read_at_once(tmp_path: Path) -> None:
    """Ten thousand shots and a megabyte of braces are refused in seconds, not in minutes."""
    begun = time.perf_counter()
    for text in ("shots:\n" + " - prompt: a long enough prompt\n" * 10_000, "{" * 900_000, "[" * 900_000):
        with pytest.raises(BadInput):
            told(text, tmp_path)
    assert time.perf_counter() - begun < 20


def test_json_and_yaml_say_the_same(tmp_path: Path) -> None:
    as_json = json.dumps(yaml.safe_load(STORY), indent="\t")
    assert told(as_json, tmp_path, 80, "s.json") == told(STORY, tmp_path, 80)
    with pytest.raises(BadInput, match=r"line 4, shots\[0\]\.prmpt"):
        told('{\n\t"shots": [\n\t\t{\n\t\t\t"prmpt": "a"}]}', tmp_path, name="s.json")


def test_the_schema_knows_every_key() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == {"version", "model", "defaults", "style", "characters", "shots"}
    shot = schema["$defs"]["ShotSpec"]
    assert shot["additionalProperties"] is False and "prompt" in shot["required"]
    assert {"duration", "frames", "weight", "transition", "blend", "seed", "image", "loras"} <= set(shot["properties"])
    json.dumps(schema)
