"""Dialects that are JSON or YAML documents: StoryMem, HoloCine, LTX's segments, VBench's stories, vLLM-Omni's lists."""

from __future__ import annotations

import json
import re
from typing import Any

from longgen.errors import BadInput
from longgen.story.dialects.source import Dialect, Source, from_starts, refuse, spec, story
from longgen.story.file import Clock
from longgen.story.schema import ShotSpec, Story, escape
from longgen.types import Timeline


def _has(*keys: str) -> Any:
    return lambda source: isinstance(source.data, dict) and any(key in source.data for key in keys)


def _list(value: Any, name: str, source: Source) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise source.bad(f"{name} must be a list with at least one entry")
    return value


def _whole(value: Any, name: str, source: Source) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise source.bad(f"{name} must be a whole number of 0 or more (got {value!r})")
    return value


# --------------------------------------------------------------------------------------------------------- StoryMem

STORYMEM_SECONDS = 5.0


def read_storymem(source: Source, clock: Clock) -> Story:
    """`{scenes: [{scene_num, video_prompts: […], cut: […]}]}`; five seconds per prompt.

    `story_overview` and `first_frame_prompt` speak to a language and an image model and are not prompts of the video.
    """
    shots: list[ShotSpec] = []
    for n, scene in enumerate(_list(source.data.get("scenes"), "scenes", source)):
        if not isinstance(scene, dict):
            raise source.bad(f"scenes[{n}] must be a mapping with video_prompts")
        prompts = _list(scene.get("video_prompts"), f"scenes[{n}].video_prompts", source)
        cuts = scene.get("cut", [True] + [False] * (len(prompts) - 1))
        if not isinstance(cuts, list) or len(cuts) != len(prompts) or not all(isinstance(c, bool) for c in cuts):
            raise source.bad(f"scenes[{n}].cut must be a list of true and false, one per prompt ({len(prompts)})")
        for text, cut in zip(prompts, cuts):
            shots.append(spec(text, source, transition="cut" if cut else "continue", duration=STORYMEM_SECONDS))
    return story(shots, source)


def write_storymem(timeline: Timeline) -> str:
    refuse(timeline, "StoryMem", "transition")
    for s in timeline.shots:
        if abs((s.stop - s.start) / timeline.fps - STORYMEM_SECONDS) > 1 / timeline.fps or s.transition == "blend":
            raise BadInput(f"StoryMem has no words for shot {s.id!r}: shots last 5 s and are cut or go on")
    cuts = [s.transition == "cut" for s in timeline.shots]
    scene = {"scene_num": 1, "video_prompts": [s.prompt for s in timeline.shots], "cut": cuts}
    return json.dumps({"story_overview": "", "scenes": [scene]}, ensure_ascii=False, indent=1)


STORYMEM = Dialect("StoryMem  {scenes: [{video_prompts, cut}]}", _has("scenes"), read_storymem, write_storymem)

# --------------------------------------------------------------------------------------------------------- HoloCine

_HOLOCINE = re.compile(r"\[global caption\](.*?)\[per shot caption\](.*)", re.IGNORECASE | re.DOTALL)


def sniff_holocine(source: Source) -> bool:
    return (
        _has("shot_captions")(source) is True
        or bool(_HOLOCINE.search(source.text) and source.data is None)
        or bool(isinstance(source.data, str) and _HOLOCINE.search(source.data))
    )


def read_holocine(source: Source, clock: Clock) -> Story:
    """`global_caption`, `shot_captions`, `num_frames`, `shot_cut_frames`, or its one-line form; all shots are cut."""
    data = source.data if isinstance(source.data, dict) else _holocine_line(source)
    captions = _list(data.get("shot_captions"), "shot_captions", source)
    style = escape(str(data.get("global_caption") or "").strip())
    shots = [spec(text, source, transition="cut" if k else None) for k, text in enumerate(captions)]
    cuts, frames = data.get("shot_cut_frames"), clock.frames
    if data.get("num_frames") is not None:
        frames = frames or _whole(data["num_frames"], "num_frames", source)
    if cuts is not None:
        starts = [0.0] + [float(_whole(c, "shot_cut_frames", source)) for c in cuts]
        if len(starts) != len(shots):
            raise source.bad(f"{len(shots)} shot_captions need {len(shots) - 1} shot_cut_frames (got {len(cuts)})")
        shots = from_starts(starts, shots, frames, source, [None] * len(shots))
    elif frames is not None and clock.frames is None:
        edges = [round(frames * k / len(shots)) for k in range(len(shots))]
        shots = from_starts([float(e) for e in edges], shots, frames, source, [None] * len(shots))
    return story(shots, source, f"{style} {{prompt}}" if style else "")


def _holocine_line(source: Source) -> dict[str, Any]:
    match = _HOLOCINE.search(source.text)
    if match is None:
        raise source.bad("expected [global caption] … [per shot caption] … [shot cut] …", 1)
    captions = re.split(r"\[shot cut\]", match[2], flags=re.IGNORECASE)
    return {"global_caption": match[1].strip(), "shot_captions": [c.strip() for c in captions]}


def write_holocine(timeline: Timeline) -> str:
    refuse(timeline, "HoloCine", "transition")
    if any(s.transition != "cut" for s in timeline.shots[1:]):
        raise BadInput("HoloCine has no words for shots that are not cut")
    data = {
        "global_caption": "",
        "shot_captions": [s.prompt for s in timeline.shots],
        "num_frames": timeline.frames,
        "shot_cut_frames": [s.start for s in timeline.shots[1:]],
    }
    return json.dumps(data, ensure_ascii=False, indent=1)


HOLOCINE = Dialect("HoloCine  {global_caption, shot_captions}", sniff_holocine, read_holocine, write_holocine)

# --------------------------------------------------------------------------------------------- LTX's prompt segments

LTX_TILE, LTX_OVERLAP = 80, 24  # pixel frames, defaults of its long multi-prompt pipeline


def sniff_ltx(source: Source) -> bool:
    data = source.data.get("prompt_segments") if isinstance(source.data, dict) else source.data
    return isinstance(data, list) and bool(data) and isinstance(data[0], dict) and "start_window" in data[0]


def read_ltx(source: Source, clock: Clock) -> Story:
    """`[{start_window, end_window, text}]`: window w starts at frame w · (tile − overlap); ends are included."""
    whole = source.data if isinstance(source.data, dict) else {"prompt_segments": source.data}
    step = _whole(whole.get("temporal_tile_size", LTX_TILE), "temporal_tile_size", source)
    step -= _whole(whole.get("temporal_overlap", LTX_OVERLAP), "temporal_overlap", source)
    starts, shots, until = list[float](), [], -1
    for n, part in enumerate(_list(whole["prompt_segments"], "prompt_segments", source)):
        if not isinstance(part, dict):
            raise source.bad(f"prompt_segments[{n}] must be a mapping with start_window and text")
        first = _whole(part.get("start_window"), f"prompt_segments[{n}].start_window", source)
        last = _whole(part.get("end_window", first), f"prompt_segments[{n}].end_window", source)
        if first <= until or last < first:
            raise source.bad(f"prompt_segments[{n}]: windows {first}-{last} overlap those before, or are not in order")
        until = last
        starts.append(float(first * step))
        shots.append(spec(part.get("text"), source))
    end = float(clock.frames) if clock.frames is not None else float((until + 1) * step)
    return story(from_starts([0.0, *starts[1:]], shots, end, source, [None] * len(shots)), source)


def write_ltx(timeline: Timeline) -> str:
    refuse(timeline, "prompt_segments")
    step, parts = LTX_TILE - LTX_OVERLAP, []
    for s in timeline.shots:
        if s.start % step:
            raise BadInput(f"prompt_segments has no words for shot {s.id!r}; shots start at multiples of {step} frames")
        parts.append({"start_window": s.start // step, "end_window": -(-s.stop // step) - 1, "text": s.prompt})
    return json.dumps({"prompt_segments": parts}, ensure_ascii=False, indent=1)


LTX = Dialect("LTX  [{start_window, end_window, text}]", sniff_ltx, read_ltx, write_ltx)

# ------------------------------------------------------------------------------------------------- lists of prompts


def sniff_vbench(source: Source) -> bool:
    data = source.data[0] if isinstance(source.data, list) and source.data else source.data
    return isinstance(data, dict) and "storyline" in data


def read_vbench(source: Source, clock: Clock) -> Story:
    """`[{summary, storyline: […]}]` of VBench's long-video track; FILE#3 picks the third. The summary is no prompt."""
    data = source.data
    if isinstance(data, list):
        if len(data) > 1:
            raise source.bad(f"the file holds {len(data)} stories; pick one with FILE#1 … FILE#{len(data)}")
        data = data[0]
    return story([spec(text, source) for text in _list(data["storyline"], "storyline", source)], source)


def write_vbench(timeline: Timeline) -> str:
    refuse(timeline, "a storyline")
    return json.dumps([{"summary": "", "storyline": [s.prompt for s in timeline.shots]}], ensure_ascii=False, indent=1)


def read_continuation(source: Source, clock: Clock) -> Story:
    """`{prompt, continuation_prompts: […]}`: one prompt per window, which here share the video."""
    rest = _list(source.data.get("continuation_prompts"), "continuation_prompts", source)
    first = [source.data["prompt"]] if "prompt" in source.data else []
    return story([spec(text, source) for text in [*first, *rest]], source)


def write_continuation(timeline: Timeline) -> str:
    refuse(timeline, "continuation_prompts")
    first, *rest = [s.prompt for s in timeline.shots]
    if not rest:
        raise BadInput("continuation_prompts has no words for a single shot")
    return json.dumps({"prompt": first, "continuation_prompts": rest}, ensure_ascii=False, indent=1)


VBENCH = Dialect("VBench  [{summary, storyline}]", sniff_vbench, read_vbench, write_vbench)
CONTINUATION = Dialect(
    "vLLM-Omni  {prompt, continuation_prompts}", _has("continuation_prompts"), read_continuation, write_continuation
)
