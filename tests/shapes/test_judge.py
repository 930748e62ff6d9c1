"""The judge on rendered truth: always right, also after H.264, and never fooled by a planted fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from longgen.media.read import open_video
from longgen.media.write import VideoWriter
from longgen.shapes import render
from longgen.shapes.grammar import COLOURS, MOTIONS, Spec, all_specs, held_out_specs
from longgen.shapes.judge import TOLERANCE, agree, judge, score, wilson
from longgen.shapes.judge_frame import components, read
from longgen.shapes.judge_path import local_motion, motion_class

Video = NDArray[np.uint8]
SPEC = Spec("red", "star", "drifting left", "navy")
ROUND = Spec("green", "ring", "circling", "gray")


def scene(spec: Spec, seed: int = 0) -> tuple[Spec, render.Identity]:
    return spec, render.draw([spec], torch.Generator().manual_seed(seed)).identity(0)


def video_of(spec: Spec, one: render.Identity, frames: int = 66, start: int = 0) -> Video:
    return render.to_uint8(render.render(render.of([spec], [one]), frames, start))[0].numpy()


def compressed(video: Video, folder: Path) -> Video:
    """Through the writer's default mp4 and back."""
    path = folder / "video.mp4"
    with VideoWriter(path, render.FPS, overwrite=True) as writer:
        writer.write(video)
    return np.stack(list(open_video(path).frames()))


def check_truth(count: int, frames: int, seed: int, through: Callable[[Video], Video]) -> float:
    """Judge `count` random videos: all must be kept and faultless, identities recovered. Share of right frames."""
    generator = torch.Generator().manual_seed(seed)
    specs, right = list(all_specs()), 0.0
    for _ in range(count):
        spec = specs[int(torch.randint(len(specs), (1,), generator=generator))]
        one = render.draw([spec], generator).identity(0)
        verdict = judge(through(video_of(spec, one, frames)), spec)
        assert verdict.kept, (spec, one, verdict.to_dict())
        assert verdict.shown == spec
        assert not verdict.faults, (spec, one, verdict.faults, verdict.drift)
        check_identity(verdict.identity, one)
        colour, shape, motion, background = spec.indices
        r = verdict.reading
        words = (r.colour == colour) & (r.shape == shape) & (r.background == background) & (r.objects == 1)
        right += float(np.mean(words & (verdict.motion == motion)))
    return right / count


def check_identity(found: render.Identity | None, true: render.Identity) -> None:
    """The tolerances that docs/guide/shapes.md states."""
    assert found is not None
    assert abs(found.size - true.size) < 0.006
    assert np.abs(np.subtract(found.colour, true.colour)).max() < 0.05
    assert np.abs(np.subtract(found.shade, true.shade)).max() < 0.02
    assert abs(found.gradient - true.gradient) * max(true.shade) < 0.03
    assert abs(found.speed - true.speed) < 0.001
    assert abs(found.orbit - true.orbit) < 0.003
    for a, b in ((found.x, true.x), (found.y, true.y)):
        assert abs((a - b + 0.5) % 1 - 0.5) < 0.008
    assert abs((found.phase - true.phase + np.pi) % (2 * np.pi) - np.pi) < 0.02


def test_truth() -> None:
    assert check_truth(40, 33, 0, lambda v: v) == 1.0


def test_truth_after_compression(tmp_path: Path) -> None:
    assert check_truth(20, 33, 1, lambda v: compressed(v, tmp_path)) >= 0.995


def test_long_truth() -> None:
    assert check_truth(4, 129, 2, lambda v: v) == 1.0


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_two_thousand_truths() -> None:
    assert check_truth(2000, 33, 3, lambda v: v) == 1.0


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_many_truths_after_compression(tmp_path: Path) -> None:
    assert check_truth(400, 33, 4, lambda v: compressed(v, tmp_path)) >= 0.995
    assert check_truth(40, 129, 5, lambda v: compressed(v, tmp_path)) >= 0.995


def stitched(spec: Spec, identities: list[render.Identity]) -> Video:
    """Frame t with identity t."""
    scenes = render.of([spec] * len(identities), identities)
    times = torch.arange(len(identities))
    return render.to_uint8(render.render(scenes, 1, start=times))[:, 0].numpy()


def colour_swap(spec: Spec, one: render.Identity) -> Video:
    other = replace(one, colour=COLOURS["yellow"])
    return np.concatenate([video_of(spec, one, 33), video_of(spec, other, 33, start=33)])


def hue_creep(spec: Spec, one: render.Identity) -> Video:
    """Less than a word's spread from end to end."""
    ramp = np.linspace(0, 0.1, 66)
    return stitched(spec, [replace(one, colour=tuple(np.add(one.colour, (-s, s, 0.0)).clip(0, 1))) for s in ramp])


def size_drift(spec: Spec, one: render.Identity) -> Video:
    return stitched(spec, [replace(one, size=one.size * s) for s in np.linspace(1, 1.2, 66)])


def shade_creep(spec: Spec, one: render.Identity) -> Video:
    return stitched(spec, [replace(one, shade=tuple(np.add(one.shade, s))) for s in np.linspace(0, 0.06, 66)])


def path_jump(spec: Spec, one: render.Identity) -> Video:
    other = replace(one, y=one.y + 0.06)
    return np.concatenate([video_of(spec, one, 33), video_of(spec, other, 33, start=33)])


def path_creep(spec: Spec, one: render.Identity) -> Video:
    return stitched(spec, [replace(one, y=one.y + s) for s in np.linspace(0, 0.08, 66)])


def teleport(spec: Spec, one: render.Identity) -> Video:
    return np.concatenate([video_of(spec, one, 33), video_of(spec, one, 33, start=36)])


def freeze(spec: Spec, one: render.Identity) -> Video:
    video = video_of(spec, one)
    return np.concatenate([video[:30], np.repeat(video[30:31], 6, 0), video[30:60]])


def loop(spec: Spec, one: render.Identity) -> Video:
    return np.concatenate([video_of(spec, one, 33)] * 2)


def wrong_direction(spec: Spec, one: render.Identity) -> Video:
    return video_of(spec, one)[::-1].copy()


def turns_back(spec: Spec, one: render.Identity) -> Video:
    video = video_of(spec, one, 34)
    return np.concatenate([video, video[::-1][1:33]])


def vanished(spec: Spec, one: render.Identity) -> Video:
    video = video_of(spec, one)
    video[40:43] = np.median(video, axis=(0, 2))[None, :, None].astype(np.uint8)
    return video


def doubled(spec: Spec, one: render.Identity) -> Video:
    video = video_of(spec, one)
    other = video_of(spec, replace(one, x=one.x + 0.45, y=one.y + 0.45))
    back = np.median(video, axis=(0, 2))[None, :, None]
    elsewhere = np.abs(other.astype(float) - back).sum(-1, keepdims=True) > 30
    video[20:23] = np.where(elsewhere, other, video)[20:23]
    return video


FAULTS: list[tuple[Callable[[Spec, render.Identity], Video], str, bool]] = [
    # fault, what the judge must say, whether the prompt is lost with it
    (colour_swap, "wrong colour", True),
    (hue_creep, "colour drifts", False),
    (size_drift, "size drifts", False),
    (shade_creep, "shade drifts", False),
    (path_jump, "velocity jumps", False),
    (path_creep, "path drifts", False),
    (teleport, "velocity jumps", False),
    (freeze, "freezes", False),
    (loop, "repeats", False),
    (wrong_direction, "wrong motion", True),
    (turns_back, "wrong motion", True),
    (vanished, "object vanishes", False),
    (doubled, "several objects", False),
]


@pytest.mark.parametrize("spec", [SPEC, ROUND], ids=lambda s: s.motion)
@pytest.mark.parametrize(("plant", "said", "lost"), FAULTS, ids=lambda f: getattr(f, "__name__", None))
def test_planted_faults_are_named(
    plant: Callable[[Spec, render.Identity], Video], said: str, lost: bool, spec: Spec
) -> None:
    verdict = judge(plant(*scene(spec, seed=1)), spec)
    assert said in verdict.faults
    assert verdict.kept is not lost


def test_the_fault_free_video_names_none() -> None:
    for spec in (SPEC, ROUND):
        verdict = judge(video_of(*scene(spec, seed=1)), spec.prompt)
        assert verdict.faults == ()
        assert verdict.kept
        assert all(value < TOLERANCE[name] / 2 for name, value in verdict.drift.items())


@pytest.mark.parametrize("respect", ["colour", "shape", "background", "motion"])
def test_any_wrong_word_loses_the_prompt(respect: str) -> None:
    wrong = {"colour": "blue", "shape": "square", "background": "teal", "motion": "falling"}
    verdict = judge(video_of(*scene(SPEC)), replace(SPEC, **{respect: wrong[respect]}))
    assert not verdict.kept
    assert getattr(verdict.agreement, respect) == 0.0
    assert verdict.agreement.worst == 0.0


def test_noise_and_emptiness_are_no_shapes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)
    for video in (noise, np.full_like(noise, 40)):
        verdict = judge(video, SPEC)
        assert not verdict.kept
        assert verdict.shown is None
        verdict.to_dict()


def test_without_a_prompt_a_video_is_judged_by_what_it_shows() -> None:
    verdict = judge(video_of(*scene(ROUND)))
    assert verdict.spec == verdict.shown == ROUND
    assert verdict.kept


@pytest.mark.parametrize("cut", [17, 33, 40])
def test_shots_agree_each_with_its_own_prompt(cut: int) -> None:
    first, second = scene(SPEC), scene(ROUND)
    reading = read(np.concatenate([video_of(*first, cut), video_of(*second, 66 - cut)]))
    assert agree(reading, SPEC, 0, cut).worst == 1.0
    assert agree(reading, ROUND.prompt, cut).worst == 1.0
    assert agree(reading, SPEC, cut).worst == 0.0


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("frames", [2, 3, 5, 9, 16, 17, 18, 33, 70])
def test_motion_is_read_at_every_length(motion: str, frames: int) -> None:
    if motion == "circling" and frames < 9:
        return  # an eighth of a circle is no circle yet
    scenes = render.draw([Spec("red", "ring", motion, "teal")], torch.Generator().manual_seed(frames))
    points = render.positions(scenes, torch.arange(frames))[0].double().numpy()
    assert motion_class(points) == MOTIONS.index(motion)
    assert (local_motion(points) == MOTIONS.index(motion)).all()


def test_the_other_way_round_is_no_motion_of_the_grammar() -> None:
    scenes = render.draw([ROUND], torch.Generator().manual_seed(0))
    points = render.positions(scenes, torch.arange(33))[0].double().numpy()
    assert motion_class(points[::-1]) == -1
    assert motion_class(np.repeat(points[:1], 33, 0)) == -1


def test_components_wrap_around_the_edges() -> None:
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[0, :2, :2] = mask[0, -2:, -2:] = mask[0, :2, -2:] = True  # one object across a corner
    mask[0, 7:9, 7:9] = True
    labels = components(mask)
    assert set(labels.unique().tolist()) == {0, int(labels[0, 0, 0]), int(labels[0, 7, 7])}
    assert labels[0, 0, 0] == labels[0, 15, 15] == labels[0, 0, 15] != labels[0, 7, 7]


def test_score_counts_what_the_sampler_made() -> None:
    """A sampler that is perfect but for held-out prompts, where it draws a square."""

    def sample(prompts: list[str]) -> list[Video]:
        out = []
        for prompt in prompts:
            spec = next(s for s in all_specs() if s.prompt == prompt)
            shown = replace(spec, shape="square") if spec in held_out_specs() else spec
            out.append(video_of(*scene(shown)[:1], scene(shown)[1], 17))
        return out

    table = score(sample, 6)
    assert table["seen"]["kept"]["hits"] == table["seen"]["shape"]["hits"] == 6
    squares = table["held_out"]["shape"]["hits"]
    assert squares < 6
    assert table["held_out"]["colour"]["percent"] == table["held_out"]["motion"]["percent"] == 100.0
    low, high = table["seen"]["kept"]["interval"]
    assert (low, high) == tuple(100 * v for v in wilson(6, 6))


def test_odd_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[frames, side, side, 3\]"):
        read(np.zeros((3, 64, 64), np.uint8))
