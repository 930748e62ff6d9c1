"""`--continue`: a video's end becomes the known beginning of a run, and the file is the whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from models import tiny, tiny_cogvideox, tiny_ltx
from models.tiny import save, wan
from safetensors.torch import load_file

from longgen.__main__ import main
from longgen.api import Session
from longgen.config import Request, validated
from longgen.errors import BadInput
from longgen.media.read import open_video
from longgen.media.write import VideoWriter
from longgen.runtime.run import Job

PROMPT = "a red circle moving left"
OVERLAP = {"extend.overlap_latents": 2}  # 5 frames


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(wan("2.1"), tmp_path_factory.mktemp("model") / "tiny")


def clip(path: Path, frames: int = 17, height: int = tiny.HEIGHT, width: int = tiny.WIDTH, fps: float = 12) -> Path:
    """A lossless clip: noise that drifts sideways."""
    still = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with VideoWriter(path, fps, "ffv1", overwrite=True) as writer:
        for i in range(frames):
            writer.write(np.roll(still, i, axis=1))
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip(tmp_path_factory.mktemp("source") / "clip.mkv")


def cli(*words: str) -> None:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    assert left.value.code in (0, None)


def ask(model: Path, source: Path, frames: int = 41, **more) -> Request:  # type: ignore[no-untyped-def]
    values = {
        "prompt": PROMPT,
        "model": str(model),
        "continue_video": str(source),
        "num_frames": frames,
        "set": OVERLAP,
    }
    return validated({**values, **more})


def test_the_file_is_the_whole(model: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.mkv"
    cli(
        "generate", "-p", f"{PROMPT} | a blue star", "-m", str(model), "--continue", str(source), "--num-frames", "41",
        "--set", "extend.overlap_latents=2", "-o", str(out), "--save-latents",
    )  # fmt: skip
    video = open_video(out)
    assert len(video) == 41 and video.info.fps == 12, "the rate is the source's"
    assert np.array_equal(np.stack(list(video))[:17], np.stack(list(open_video(source))))
    told = json.loads(out.with_suffix(".json").read_text())
    assert told["frames"] == 41 and told["request"]["method"] == "extend" and told["fps"] == 12
    assert {k: told["continues"][k] for k in ("frames", "tail", "known")} == {"frames": 17, "tail": 5, "known": 2}
    assert [(s["start"], s["stop"]) for s in told["timeline"]["shots"]] == [(0, 29), (29, 41)], (
        "shots share the new part"
    )
    assert told["windows"]["frames"][0][0] == 12 and told["windows"]["frames"][-1][1] == 41
    session = Session(model)
    tail = torch.from_numpy(np.stack(list(open_video(source))[-5:]))
    latents = load_file(out.with_suffix(".safetensors"))["latents"]
    assert torch.equal(latents[:, :, :2], session.model.encode_video(tail)), "the known latents are kept as they are"
    assert latents.shape[2] == 2 + 6, "24 new frames are 6 latents"
    frames = torch.cat(list(session.model.decode([latents])))[5:]  # the decoder has seen the source's end
    new = (frames * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert np.abs(np.stack(list(video))[17:].astype(int) - new).max() <= 1
    cli("rerun", str(tmp_path / "v.json"), "-o", str(tmp_path / "w.mkv"))
    assert out.read_bytes() == (tmp_path / "w.mkv").read_bytes()


def test_the_source_matters_and_length_does_not(model: Path, source: Path, tmp_path: Path) -> None:
    session = Session(model)
    long, short = (session.run(session.plan(ask(model, source, n)), Job(keep=True)).frames for n in (41, 29))
    assert long is not None and short is not None and len(long) == 41 and len(short) == 29
    assert np.array_equal(short, long[:29])  # 17 + 12 new frames are the whole first chunk
    other = clip(tmp_path / "other.mkv")
    frames = np.stack(list(open_video(source)))[::-1]
    with VideoWriter(other, 12, "ffv1", overwrite=True) as writer:
        for frame in frames:
            writer.write(frame)
    plans = [session.plan(ask(model, path, 29)) for path in (source, other)]
    assert plans[0].identity != plans[1].identity and plans[0].files != plans[1].files
    changed = session.run(plans[1], Job(keep=True)).frames
    assert changed is not None and np.abs(changed[17:].astype(int) - short[17:]).max() > 2


@pytest.mark.parametrize("method", ["extend", "extend,adain"])
def test_resumed_with_the_same_bits(model: Path, source: Path, tmp_path: Path, method: str) -> None:
    asked, session = ask(model, source, 41, method=method, num_inference_steps=2), Session(model)
    want = session.run(session.plan(asked), Job(keep=True))
    for stop in (1, 3):  # inside the first chunk, and after it
        seen: list[int] = []

        def interrupt(progress, seen=seen, stop=stop) -> None:  # type: ignore[no-untyped-def]
            seen.append(progress.done)
            if len(seen) == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            session.run(session.plan(asked), Job(checkpoint=tmp_path / "c", on_progress=interrupt))
        got = session.run(session.plan(asked), Job(keep=True, checkpoint=tmp_path / "c", resume=True))
        assert torch.equal(got.latents, want.latents) and np.array_equal(got.frames, want.frames)


def test_a_changed_source_is_not_resumed(model: Path, tmp_path: Path) -> None:
    path, session = clip(tmp_path / "clip.mkv"), Session(model)

    def interrupt(progress) -> None:  # type: ignore[no-untyped-def]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.run(session.plan(ask(model, path)), Job(checkpoint=tmp_path / "c", on_progress=interrupt))
    clip(path, frames=18)
    with pytest.raises(BadInput, match="other settings"):
        session.run(session.plan(ask(model, path)), Job(checkpoint=tmp_path / "c", resume=True))


FAMILIES = {
    "ti2v": (lambda: tiny.wan("ti2v"), {"native_size": list(tiny.size("ti2v"))}, "native"),
    "ltx": (tiny_ltx.ltx, tiny_ltx.OVERRIDES, "native"),
    "cogvideox-1.5": (lambda: tiny_cogvideox.cogvideox("1.5"), tiny_cogvideox.OVERRIDES, "inpaint"),
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_other_families(kind: str, tmp_path: Path) -> None:
    """Strides of 8, latents that lead, clean prefixes: the right number of frames, the source at the front."""
    make, told, condition = FAMILIES[kind]
    folder = save(make(), tmp_path / "model", **{**told, "steps": 2})
    session = Session(folder)
    height, width = session.info.native_size
    frames = session.info.native_frames
    path = clip(tmp_path / "clip.mkv", frames, height, width)
    plan = session.plan(ask(folder, path, frames + 13, set={"extend.condition": condition}))
    outcome = session.run(plan, Job(keep=True))
    assert outcome.frames is not None and len(outcome.frames) == frames + 13
    assert np.array_equal(outcome.frames[:frames], np.stack(list(open_video(path))))
    known = plan.source.known
    tail = torch.from_numpy(np.stack(list(open_video(path))[-plan.source.tail :]))
    assert torch.equal(outcome.latents[:, :, :known], session.model.encode_video(tail))
    assert plan.source.tail == (known - session.info.lead_pad - 1) * session.info.stride + 1


def test_one_line_says_what_is_wrong(model: Path, source: Path, tmp_path: Path) -> None:
    session = Session(model)
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    picture = tmp_path / "i.png"
    cases = [
        (ask(model, tmp_path / "none.mp4"), "no such file"),
        (ask(model, text), "not a readable video"),
        (ask(model, source, 17), "has 17 frames and the whole video would have 17; ask for more"),
        (ask(model, source, method="windows", set={}), "needs the method extend.*not windows"),
        (ask(model, clip(tmp_path / "short.mkv", 3)), "has 3 frames; 5 of them"),
        (ask(model, source, image=str(picture)), "not both"),
    ]
    for asked, line in cases:
        with pytest.raises(BadInput, match=line):
            session.plan(asked)
    assert session._model is None, "nothing is loaded for a request that cannot be carried out"


def test_the_source_is_never_replaced(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = clip(tmp_path / "clip.mkv")
    before = path.read_bytes()
    with pytest.raises(SystemExit) as left:
        main(["generate", "-p", PROMPT, "-m", str(model), "--continue", str(path), "--num-frames", "41",
              "-o", str(path), "--overwrite"])  # fmt: skip
    assert left.value.code == 2 and "would replace the video" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_shorter_duration_counts_the_whole(model: Path, source: Path) -> None:
    plan = Session(model).plan(validated(ask(model, source).model_dump() | {"num_frames": None, "duration": 3.0}))
    assert plan.frames == 36 and plan.fps == 12 and plan.made == 36 - 12


def test_recipes_may_say_continue(source: Path) -> None:
    assert Request(**{"continue": str(source)}).continue_video == str(source)
    with pytest.raises(BadInput, match=r"^--continue must be a valid string \(got 3\)$"):
        validated({"continue": 3})


@pytest.mark.slow
def test_the_embedded_model_goes_on_as_the_clip_did(tmp_path: Path) -> None:
    """Judged exactly: the prompt is kept through 97 frames, looks stay within tolerance, nothing jumps at the join."""
    from longgen.media.write import check_target
    from longgen.shapes.judge import TOLERANCE, judge

    prompt, session = "a red circle drifting right on a black background", Session("shapes")
    path = tmp_path / "clip.mkv"
    first = session.plan(validated({"prompt": prompt, "num_frames": 33, "seed": 0}))
    session.run(first, Job(target=check_target(path, False, None, None)))
    longer = {"num_frames": 97, "seed": 100, "continue_video": str(path), "set": {"extend.overlap_latents": 6}}
    frames = session.run(session.plan(validated({"prompt": prompt, **longer})), Job(keep=True)).frames
    assert frames is not None and np.array_equal(frames[:33], np.stack(list(open_video(path))))
    whole = judge(frames, prompt)
    assert not judge(frames[:33], prompt).faults, "the clip itself is faultless"
    assert whole.kept and whole.agreement.worst >= 0.95 and not whole.jumps and not whole.freeze
    assert all(whole.drift[name] <= TOLERANCE[name] for name in ("colour", "size", "shade", "path"))
