"""`--image`: a picture becomes the first frame, part of what identifies a run, and is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import tiny, tiny_images, tiny_ltx
from PIL import Image

from longgen.__main__ import main
from longgen.api import Session
from longgen.config import Request, validated
from longgen.errors import BadInput
from longgen.media.condition import image_size, read_image
from longgen.media.write import VideoWriter
from longgen.models.wan.denoiser import WanDenoiser
from longgen.runtime.run import Job

PROMPT = "a red circle moving left"


@pytest.fixture(scope="module")
def needy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny_images.wan_i2v("a14b"), tmp_path_factory.mktemp("model") / "i2v")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    tiny_images.image().save(tmp_path / "first.png")
    return tmp_path / "first.png"


def ask(model: Path, picture: Path | None, **more: Any) -> Request:
    values = {"prompt": PROMPT, "model": str(model), "num_frames": 17, "num_inference_steps": 2, "method": "direct"}
    return validated({**values, "image": None if picture is None else str(picture), **more})


def cli(*words: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    return int(left.value.code or 0)


# ------------------------------------------------------------------------------------------------------ from the shell


def test_a_video_from_a_picture(needy: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.mp4"
    told = ("generate", "-m", str(needy), "-p", PROMPT, "--num-frames", "17", "--num-inference-steps", "2")
    assert cli(*told, "--image", str(picture), "-o", str(out)) == 0
    facts = json.loads(out.with_suffix(".json").read_text())
    assert facts["frames"] == 17 and facts["request"]["image"] == str(picture)
    assert set(facts["conditions"]) == {"image"}
    assert cli(*told, "--image", str(picture), "-o", str(out), "--resume") == 0  # finished already
    tiny_images.image(seed=1).save(picture)
    assert cli(*told, "--image", str(picture), "-o", str(out), "--resume") == 2
    assert "of another run" in capsys.readouterr().err  # another picture


def test_a_story_begins_with_its_picture(
    needy: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story = tmp_path / "story.yaml"
    story.write_text(
        f"shots:\n- {{prompt: {PROMPT}, frames: 17, image: first.png}}\n- {{prompt: a star, frames: 12}}\n"
    )
    out = tmp_path / "story.mp4"
    told = ("story", str(story), "-m", str(needy), "--num-inference-steps", "2", "-o", str(out))
    assert cli(*told) == 0
    assert set(json.loads(out.with_suffix(".json").read_text())["conditions"]) == {"image"}
    assert cli(*told, "--image", str(picture), "--overwrite") == 2
    assert "image" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------- long videos


@pytest.mark.parametrize("method", ["windows", "extend", "flowlong"])
def test_what_windows_see(needy: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Windows keep the image as their first latent, chunks go on from the end of the last."""
    marked = []

    def spy(denoiser, calls):  # type: ignore[no-untyped-def]
        for call in calls:
            shown = denoiser._seen.of(call)
            marked.append((call.frames, shown[0, :4, :, 0, 0].eq(1).all(dim=0).nonzero().flatten().tolist()))
        return denoise(denoiser, calls)

    denoise = WanDenoiser.denoise_batch
    monkeypatch.setattr(WanDenoiser, "denoise_batch", spy)
    session = Session(needy)
    plan = session.plan(ask(needy, picture, method=method, num_frames=41))
    outcome = session.run(plan, Job(keep=True))
    assert outcome.frames is not None and outcome.frames.shape == (41, 32, 48, 3)
    later = [(frames, known) for frames, known in marked if frames != tuple(range(5))]
    assert later and all(known == [0] for frames, known in marked if frames == tuple(range(5)))
    if method != "extend":
        assert all(frames[0] == 0 and known == [0] for frames, known in later)
        assert any("draws each back" in note for note in plan.notes)
    else:
        assert plan.composition.loop.settings["condition"] == "native"
        assert all(frames[0] > 0 and known == list(range(len(known))) and known for frames, known in later)


def test_a_run_that_hides_the_image_is_warned(needy: Path, picture: Path) -> None:
    session = Session(needy)
    for setting, value in (("windows.retain", ""), ("windows.overlap", 0), ("extend.condition", "inpaint")):
        method = setting.partition(".")[0]
        plan = session.plan(ask(needy, picture, num_frames=41, method=method, set={setting: value}))
        assert any("no image" in note for note in plan.notes)


@pytest.mark.parametrize("method", ["windows", "extend", "fifo"])
def test_the_image_is_the_first_frame_of_ltx(tmp_path: Path, method: str) -> None:
    model = tiny.save(tiny_images.ltx_i2v(), tmp_path / "ltx", **tiny_ltx.OVERRIDES)
    tiny_images.image(32, 64).save(tmp_path / "first.png")
    session = Session(model)
    plan = session.plan(ask(model, tmp_path / "first.png", num_frames=65, method=method))
    assert any("first frame" in note for note in plan.notes) == (method != "fifo")
    outcome = session.run(plan, Job(keep=True))
    first = session.model.encode_video(read_image(tmp_path / "first.png", (32, 64))[None])
    assert outcome.latents is not None
    assert (outcome.latents[:, :, :1] - first).abs().max() < 1e-5


def test_a_video_stands_for_the_image(needy: Path, tmp_path: Path) -> None:
    """--continue on an image-to-video model: the clip's end is known, and its first frame is what is looked at."""
    clip = tmp_path / "clip.mkv"
    with VideoWriter(clip, 12, "ffv1") as writer:
        for seed in range(9):
            writer.write(np.asarray(tiny_images.image(seed=seed)))
    session = Session(needy)
    told = {"continue_video": str(clip), "num_frames": 33, "method": "extend", "set": {"extend.overlap_latents": 2}}
    plan = session.plan(ask(needy, None, **told))
    assert plan.composition.loop.settings["condition"] == "native"
    outcome = session.run(plan, Job(keep=True))
    assert outcome.frames is not None and outcome.latents is not None
    assert outcome.frames.shape[0] == 33 and np.array_equal(outcome.frames[0], np.asarray(tiny_images.image(seed=0)))
    tail = torch.stack([tiny_images.pixels(tiny_images.image(seed=seed)) for seed in range(4, 9)])
    assert (outcome.latents[:, :, :2] - session.model.encode_video(tail)).abs().max() < 1e-5


# ----------------------------------------------------------------------------------------------------------- bad input


def broken(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.png"
    tiny_images.image().save(folder / "whole.png")
    content = {"empty": b"", "text": b"no picture", "cut": (folder / "whole.png").read_bytes()[:200]}
    if kind in content:
        path.write_bytes(content[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "line"),
    [("missing", "does not exist"), ("empty", "not an image"), ("text", "not an image"), ("cut", "cannot be read")],
)
def test_pictures_that_cannot_be_read(needy: Path, tmp_path: Path, kind: str, line: str) -> None:
    session = Session(needy)
    with pytest.raises(BadInput, match=line) as error:
        session.plan(ask(needy, broken(tmp_path, kind)))
    assert "\n" not in str(error.value)


def test_models_that_take_none_or_need_one(needy: Path, picture: Path) -> None:
    session = Session("shapes")
    with pytest.raises(BadInput, match="--image: shapes takes none"):
        session.plan(ask(Path("shapes"), picture))
    assert session._model is None
    with pytest.raises(BadInput, match="give one: --image FILE"):
        Session(needy).plan(ask(needy, None))


def test_a_step_cache_needs_one_level(tmp_path: Path, picture: Path) -> None:
    model = tiny.save(tiny.wan("ti2v"), tmp_path / "ti2v", native_size=list(tiny.size("ti2v")))
    session = Session(model)
    assert session.plan(ask(model, picture)).size == (64, 96)
    with pytest.raises(BadInput, match="one level per call"):
        session.plan(ask(model, picture, cache="first_block"))
    assert session._model is None


def test_learnt_positions_have_one_size(tmp_path: Path, picture: Path) -> None:
    model = tiny.save(tiny_images.cogvideox_i2v("5b"), tmp_path / "model", native_frames=17, fps=8, steps=2)
    session = Session(model)
    assert session.plan(ask(model, picture)).size == (32, 48)
    with pytest.raises(BadInput, match="48x32 alone"):
        session.plan(ask(model, picture, height=48, width=48))
    assert any(
        "positions that this checkpoint learnt" in note
        for note in session.plan(ask(model, picture, num_frames=33)).notes
    )


# ------------------------------------------------------------------------------------------------------------- fitting


def test_pictures_are_cropped_not_bent(tmp_path: Path) -> None:
    """A circle stays round: the middle of the picture is used, and a turned camera is heard."""
    wide = Image.new("RGB", (192, 64))
    wide.paste((255, 0, 0), (64, 0, 128, 64))
    wide.save(tmp_path / "wide.png")
    fitted = read_image(tmp_path / "wide.png", (32, 32))
    assert fitted.dtype == torch.uint8 and fitted.shape == (32, 32, 3)
    assert (fitted[:, 2:-2].float() - torch.tensor([255.0, 0, 0])).abs().max() <= 2
    turned = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6  # a quarter turn
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert image_size(tmp_path / "turned.jpg") == (30, 20)
    same = tiny_images.image()
    same.save(tmp_path / "same.png")
    assert torch.equal(read_image(tmp_path / "same.png", (32, 48)), tiny_images.pixels(same))


def test_a_cropped_picture_is_said(needy: Path, tmp_path: Path) -> None:
    Image.new("RGB", (96, 32)).save(tmp_path / "wide.png")
    assert any("96x32: 50%" in note for note in Session(needy).plan(ask(needy, tmp_path / "wide.png")).notes)
