"""`--control`: a video that steers Wan-VACE, from the file to the slices that windows see."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from models import tiny, tiny_vace
from PIL import Image

from longgen.__main__ import main
from longgen.api import Session
from longgen.config import Request, validated
from longgen.core.noise import latent_noise
from longgen.errors import BadInput
from longgen.media.condition import Fitted, stretch, whole_range
from longgen.media.write import VideoWriter
from longgen.runtime import sources
from longgen.runtime.run import Job
from longgen.runtime.sample import Sampler, conditions

PROMPT = "a red circle moving left"


def write(path: Path, frames: torch.Tensor) -> Path:
    with VideoWriter(path, 8, "ffv1", overwrite=True) as writer:
        for frame in frames.numpy():
            writer.write(frame)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny_vace.vace(), tmp_path_factory.mktemp("model") / "vace", steps=2)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("control") / "depth.mkv", tiny_vace.depth(49))


def ask(model: Path, control: Path, frames: int, **more) -> Request:  # type: ignore[no-untyped-def]
    return validated({"prompt": PROMPT, "model": str(model), "control": str(control), "num_frames": frames, **more})


def test_at_native_length_the_pipelines_own_result(model: Path, control: Path, tmp_path: Path) -> None:
    session, pipe = Session(model), tiny_vace.vace()
    plan = session.plan(ask(model, control, 17, method="direct", negative_prompt="blurry"))
    assert plan.control_levels == "file"
    got = session.run(plan, Job(keep=True)).latents
    want = pipe(
        PROMPT, "blurry", video=[Image.fromarray(f) for f in tiny_vace.depth(17).numpy()], height=tiny.HEIGHT,
        width=tiny.WIDTH, num_frames=17, num_inference_steps=2, guidance_scale=4.0,
        latents=latent_noise(plan.grid, 0, 0, 5), output_type="latent", max_sequence_length=12,
    ).frames  # fmt: skip
    assert got is not None and (got - want).abs().max() < 1e-5


def test_windows_from_the_command_line(model: Path, control: Path, tmp_path: Path) -> None:
    run = ["generate", "-p", PROMPT, "-m", str(model), "--num-frames", "38", "--method", "windows"]
    words = {"with": ["--control", str(control)], "as it is": ["--control", str(control), "--control-levels", "file"]}
    for name, more in {**words, "without": []}.items():
        with pytest.raises(SystemExit) as left:
            main([*run, *more, "-o", str(tmp_path / f"{name}.mkv")])
        assert left.value.code in (0, None)
    told = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in (*words, "without")}
    assert told["with"]["request"]["control_levels"] == "whole", "the default of a video beyond the native length"
    assert told["with"]["conditions"]["control"].startswith("sha256:") and told["without"]["conditions"] == {}
    assert len({t["identity"] for t in told.values()}) == 3
    assert len({(tmp_path / f"{name}.mkv").read_bytes() for name in told}) == 3


def test_neighbouring_windows_meet_the_same_control_and_the_same_noise(model: Path, control: Path) -> None:
    """LongVie's unified noise is this house's rule: a latent's noise, like its control, follows from its index."""
    session = Session(model)
    plan = session.plan(ask(model, control, 45, method="windows", set={"windows.plan": "static"}))
    sampler = Sampler(plan, session.model, conditions(plan, **sources.media(plan)))
    seen: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def look(calls):  # type: ignore[no-untyped-def]
        for call in calls:
            branch = sampler.denoiser.control(call)
            for i, frame in enumerate(call.frames):
                seen.setdefault(frame, []).append((call.x[:, :, i], branch[:, :, i]))
        raise KeyboardInterrupt

    sampler._denoise = look  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        list(sampler.run())
    shared = [views for views in seen.values() if len(views) > 1]
    assert len(seen) == 12 and len(shared) >= 4
    for first, *others in shared:
        assert all(torch.equal(first[0], x) and torch.equal(first[1], branch) for x, branch in others)


def test_extend_goes_on_through_the_control_branch(model: Path, control: Path, tmp_path: Path) -> None:
    """A clip is continued natively under a control video whose frames count from the start of the whole file."""
    session = Session(model)
    clip = write(tmp_path / "clip.mkv", tiny_vace.depth(17).flip(2))
    native = {"extend.condition": "native", "extend.overlap_latents": 2}
    plan = session.plan(ask(model, control, 33, continue_video=str(clip), set=native, control_levels="file"))
    assert plan.source is not None and plan.source.start == 12
    steered = sources.media(plan)["control"]
    assert torch.equal(torch.stack(list(steered))[:21], tiny_vace.depth(49)[12:33])
    outcome = session.run(plan, Job(keep=True))
    assert outcome.frames is not None and len(outcome.frames) == 33
    assert np.array_equal(outcome.frames[:17], tiny_vace.depth(17).flip(2).numpy())
    other = session.run(session.plan(ask(model, control, 33, continue_video=str(clip), set=native)), Job(keep=True))
    assert not torch.equal(outcome.latents, other.latents)


def test_one_line_says_what_is_wrong(model: Path, control: Path, tmp_path: Path) -> None:
    plain = tiny.save(tiny.wan(), tmp_path / "plain")
    cases = [
        (model, ask(model, control, 50), "has 49 frames; this run needs 50"),
        (model, ask(model, tmp_path / "none.mp4", 17), "no such file"),
        (plain, ask(plain, control, 17), "takes none.*Wan-VACE does"),
        (model, validated({"prompt": PROMPT, "control_levels": "whole"}), "belongs to --control"),
        (model, ask(model, control, 17, cache="first_block"), "hints enter between the blocks"),
        (model, ask(model, control, 41, method="fifo"), "one timestep per call"),
    ]
    for folder, asked, line in cases:
        session = Session(folder)
        with pytest.raises(BadInput, match=line):
            session.plan(asked)
        assert session._model is None, "nothing is loaded for a request that cannot be carried out"
    with pytest.raises(BadInput, match="must be 'file' or 'whole'"):
        ask(model, control, 17, control_levels="local")


# ------------------------------------------------------------------------------------------------------ one grey range


def test_the_range_is_that_of_the_whole_file(tmp_path: Path) -> None:
    """One range for all windows, from numpy's own percentiles; a part of the file does not change it."""
    frames = (tiny_vace.depth(30).float() * 0.5 + 40).to(torch.uint8)
    frames[20:] = (frames[20:].float() * 0.5).to(torch.uint8)  # a darker end: per window it would be brightened
    path = write(tmp_path / "depth.mkv", frames)
    span = whole_range(path)
    assert span is not None
    want = np.percentile(frames.numpy(), [5, 95], method="inverted_cdf")
    assert list(span) == want.tolist()
    shown = torch.stack(list(Fitted(path, (tiny.HEIGHT, tiny.WIDTH), 18, 6, span)))
    table = np.clip(np.round((frames[18:24].numpy().astype(float) - span[0]) / (span[1] - span[0]) * 255), 0, 255)
    assert np.array_equal(shown.numpy(), table.astype(np.uint8))
    assert shown[:2].float().mean() > shown[2:].float().mean() + 30, "the dark end stays darker than the rest"


def test_sparse_maps_are_left_alone(tmp_path: Path) -> None:
    edges = torch.zeros(9, 32, 48, 3, dtype=torch.uint8)
    edges[:, 10] = 255
    assert whole_range(write(tmp_path / "edges.mkv", edges)) is None


def test_a_table_that_stretches() -> None:
    assert torch.equal(stretch(0, 255), torch.arange(256, dtype=torch.uint8))
    assert (stretch(30, 200).diff().int() >= 0).all()


def test_frames_are_fitted_and_the_last_one_lasts(tmp_path: Path) -> None:
    path = write(tmp_path / "c.mkv", tiny_vace.depth(6))
    frames = list(Fitted(path, (16, 24), 3, 5))
    assert [f.shape for f in frames] == [(16, 24, 3)] * 5 and torch.equal(frames[3], frames[2])
    assert torch.equal(frames[4], frames[2]) and not torch.equal(frames[1], frames[2])
    assert torch.equal(frames[0], next(iter(Fitted(path, (16, 24), 3, 5)))), "it can be read again"
