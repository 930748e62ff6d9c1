"""Loops, restarts, freezes and revisits: exact repetition is told from motion, stillness and swings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import panning, texture

from longgen.media import VideoWriter, open_video
from longgen.metrics import metric
from longgen.metrics.base import Score, Unavailable, Video, score
from longgen.metrics.longstats import squared_distances
from longgen.metrics.recurrence import returns

Run = Callable[..., Score]


def wandering(frames: int, seed: int = 0) -> np.ndarray:
    """A view that moves over a texture on a path which never closes."""
    world = texture(160, 400, seed, blur=4.0)
    return np.stack([world[20 + (3 * t) % 40 :, 2 * t :][:48, :64] for t in range(frames)])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.7])
def test_loop_is_the_replayed_share(run: Run, share: float) -> None:
    clip = wandering(40)
    first = 40 - round(share * 40)
    assert run("loop", clip[np.arange(40) % first]).value == pytest.approx(share, abs=0.051)


def test_loop_finds_the_period(run: Run) -> None:
    found = run("loop", wandering(12)[np.arange(36) % 12])
    assert found.value == pytest.approx(24 / 36, abs=0.03)
    assert found.extras["period_s"] == pytest.approx(12 / 8, abs=0.07)


def test_loop_of_half_a_frame_is_found_between_frames() -> None:
    world = texture(48, 400, 3, blur=6.0)
    wide = cv2.resize(world, (800, 48), interpolation=cv2.INTER_LINEAR)
    steps = [(2 * t) % 37 for t in range(60)]  # the path has a period of 18.5 frames
    points = np.stack([cv2.resize(wide[:, 8 * s :][:, :96], (16, 16), interpolation=cv2.INTER_AREA) for s in steps])
    found = returns(points.reshape(60, -1).astype(float), 24.0)
    assert found.lags[found.replayed.sum(1).argmax()] in (18.5, 37.0)


def test_a_swing_back_is_no_loop(run: Run) -> None:
    """There and back shows the same places but not the same course: two windows never agree."""
    there = wandering(20)
    assert run("loop", np.concatenate([there, there[::-1][1:]])).value == pytest.approx(0, abs=0.11)


def test_survives_lossy_coding(tmp_path: Path) -> None:
    frames = np.stack([cv2.resize(f, (128, 96)) for f in wandering(24)])[np.arange(40) % 24]
    path = tmp_path / "lossy.mp4"
    with VideoWriter(path, 8, crf=18) as writer:
        writer.write(frames)
    found = score(Video(open_video(path)), {"loop": (metric("loop"), {})})["loop"]
    assert found.value == pytest.approx(16 / 40, abs=0.051)


def test_distances_equal_a_plain_loop() -> None:
    points = np.random.default_rng(0).normal(100, 30, (7, 12))
    plain = [[np.mean((a - b) ** 2) for b in points] for a in points]
    assert np.allclose(squared_distances(points), plain, rtol=1e-9, atol=1e-9)


def test_still_and_short_videos_say_why(run: Run) -> None:
    still = np.repeat(texture(48, 64)[None], 30, 0)
    for name in ("loop", "no_repeat"):
        found = run(name, still)
        assert found.value is None and "still" in (found.reason or "")
    with pytest.raises(Unavailable, match="short"):
        returns(np.zeros((5, 3)), 8.0)


def test_no_repeat_marks_a_restart(run: Run) -> None:
    clip = wandering(40)
    clean, restarted = run("no_repeat", clip), run("no_repeat", clip[np.arange(40) % 22])
    assert clean.value is not None and clean.value > 0.6
    assert restarted.value == pytest.approx(0, abs=1e-6)
    assert restarted.extras["nearest_s"] == pytest.approx(22 / 8)
    assert restarted.extras["rmse"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_freeze_is_the_still_share(run: Run, share: float) -> None:
    clip = panning(40, 48, 64, 2)
    held = clip[np.minimum(np.arange(40), 40 - round(share * 40))] if share < 1 else np.repeat(clip[:1], 40, 0)
    assert run("freeze", held).value == pytest.approx(share, abs=0.05)


def test_one_small_moving_thing_is_motion(run: Run) -> None:
    clip = np.full((30, 64, 64, 3), 90, np.uint8)
    for t in range(30):
        clip[t, 10:16, t : t + 6] = 250
    assert run("freeze", clip).value == 0


def test_dying_motion_shows_in_the_ratio(run: Run) -> None:
    world = texture(48, 400, blur=5.0)
    places = np.round(np.cumsum(np.linspace(6, 0.5, 40))).astype(int)
    found = run("freeze", np.stack([world[:, p : p + 64] for p in places]))
    assert found.extras["motion_ratio"] < 0.5


def there_and_back(changed: bool) -> np.ndarray:
    world = texture(120, 400, 2, blur=1.5)
    other = texture(120, 400, 9, blur=1.5)
    mixed = world.copy()
    if changed:
        mixed[:, :200][:, 60:120] = other[:, :200][:, 60:120]
    way = [5 * t for t in range(24)]
    return np.stack([world[:, p : p + 160] for p in way] + [mixed[:, p : p + 160] for p in way[::-1]])


def test_revisit_sees_a_changed_place(run: Run) -> None:
    same, other = run("revisit", there_and_back(False)), run("revisit", there_and_back(True))
    assert same.value is not None and same.value > 0.95 and same.n >= 5
    assert other.value is not None and other.value < same.value - 0.1


def test_a_camera_that_never_leaves_is_no_revisit(run: Run) -> None:
    still = np.repeat(texture(120, 160, 1, blur=1.5)[None], 40, 0)
    found = run("revisit", still)
    assert found.value is None and "returns to 0" in (found.reason or "")
