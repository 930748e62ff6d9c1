"""Looks and what is built on them: coherence, CSCV, transitions, positional KVD, headline; laws of all diagnostics."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import panning, save, texture

from longgen.media import open_video
from longgen.metrics import METRICS, metric
from longgen.metrics.base import Score, Video, score
from longgen.metrics.coherence import fit, half_life
from longgen.metrics.looks import look, soft_histogram, tiny
from longgen.metrics.positional_kvd import Pieces
from longgen.metrics.transition import change_point

Run = Callable[..., Score]
LONG = [m for m in METRICS if metric(m).info.source.startswith("longgen") or m in {"no_repeat", "cscv"}]
LONG += ["start_end_contrast", "positional_kvd"]
STILL = {
    "freeze": 1.0,
    "headline": 0.0,
    "coherence": 1.0,
    "cscv": 1.0,
    "start_end_contrast": 0.0,
    "seam": 0.0,
    "positional_kvd": 0.0,
    **{m: 0.0 for m in METRICS if m.startswith("drift_")},
}
"""The right value of a still video; the others have none and say why."""


def tinted(seed: int, colour: tuple[int, int, int]) -> np.ndarray:
    """A panning texture of one colour cast."""
    return np.clip(panning(30, 48, 64, 1, seed) * 0.4 + np.array(colour), 0, 255).astype(np.uint8)


RED, BLUE = tinted(0, (140, 20, 20)), tinted(1, (20, 20, 140))


def test_a_look_is_a_unit_vector_that_ignores_place_and_size() -> None:
    picture = texture(96, 128, blur=4.0)
    one = look(picture)
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-6) and one.min() >= 0
    assert float(one @ look(np.roll(picture, 31, 1))) > 0.99
    assert float(one @ look(cv2.resize(picture, (64, 48), interpolation=cv2.INTER_AREA))) > 0.99
    assert float(one @ look(BLUE[0])) < 0.8


def test_soft_histogram_equals_a_plain_one_at_bin_centres_and_moves_smoothly() -> None:
    values = np.array([0, 0, 0.5, 1.0], np.float32)
    assert soft_histogram((values,), (3,)).tolist() == [0.5, 0.25, 0.25]
    steps = [soft_histogram((values + d,), (3,)) for d in (0.1, 0.1001)]
    assert np.abs(steps[0] - steps[1]).max() < 1e-3


def test_tiny_keeps_steps_below_one_level() -> None:
    flat = np.full((64, 64, 3), 100, np.uint8)
    flat[::4, ::4] = 102
    assert tiny(flat) == pytest.approx(np.full(768, 100.125), abs=0.01)


def test_coherence_falls_with_foreign_content(run: Run) -> None:
    values = []
    for pieces in range(4):
        clip = RED.copy()
        for k in range(pieces):
            clip[8 * k + 2 : 8 * k + 5] = BLUE[:3]
        values.append(run("coherence", clip).value)
    assert values[0] > 0.97 and values == sorted(values, reverse=True) and values[3] < 0.85


def test_coherence_fit_recovers_its_curve() -> None:
    lags = np.arange(1, 80) / 8
    tau, rest = fit(lags, 0.6 + 0.4 * np.exp(-lags / 2.0))
    assert tau == pytest.approx(2.0, rel=0.1) and rest == pytest.approx(0.6, abs=0.02)
    assert half_life(lags, np.where(lags < 3, 1.0, 0.5)) == pytest.approx(3.0)
    assert half_life(lags, np.full(79, 0.995)) is None


def test_cscv_is_the_formula(run: Run) -> None:
    """With an embedding of known cosines: 1 / (1 + 10 σ/μ) over pairs ¼ s apart."""
    angles = np.cumsum(np.linspace(0.0, 0.2, 16))

    def embedder(frame: np.ndarray) -> np.ndarray:
        a = angles[int(frame[0, 0, 0])]
        return np.array([math.cos(a), math.sin(a)], np.float32)

    clip = np.broadcast_to(np.arange(16, dtype=np.uint8)[:, None, None, None], (16, 16, 16, 3)).copy()
    cosines = np.cos(angles[2:] - angles[:-2])
    expected = 1 / (1 + 10 * cosines.std() / cosines.mean())
    assert run("cscv", clip, 8, {"embedder": embedder}).value == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("late", [-3, 0, 2, 5])
def test_transition_finds_the_planted_cut(run: Run, late: int) -> None:
    clip = np.concatenate([RED[: 15 + late], BLUE[15 + late :]])
    found = run("transition", clip, shots=((0, "red"), (15, "blue")))
    assert found.items == pytest.approx([late / 8]) and found.extras["missing"] == 0


def test_a_missing_transition_is_missing(run: Run) -> None:
    found = run("transition", RED, shots=((0, "red"), (15, "blue")))
    assert found.value is None and "can be seen" in (found.reason or "")
    assert "one shot" in run("transition", RED, shots=((0, "red"),)).reason
    assert "sidecar" in run("transition", RED).reason


def test_change_point_equals_a_search_over_all_splits() -> None:
    points = np.random.default_rng(4).normal(0, 1, (17, 3))
    cost = [sum(float(((p - p.mean(0)) ** 2).sum()) for p in (points[:k], points[k:])) for k in range(1, 17)]
    assert change_point(points)[0] == int(np.argmin(cost)) + 1


def test_pieces_are_quarters_of_a_second() -> None:
    pieces = Pieces(10.0)
    for i in range(20):
        pieces.add(np.array([1.0, i], np.float32))
    assert len(pieces.features()) == 8
    assert np.linalg.norm(pieces.features(), axis=1) == pytest.approx(np.full(8, 2.0))


def test_positional_kvd_rises_when_the_end_departs(run: Run, tmp_path: Path) -> None:
    base = save(tmp_path / "base.mkv", RED)
    ramp = np.linspace(0, 1, 30)[:, None, None, None]
    drifting = np.clip(RED + ramp * np.array([-60, 30, 60]), 0, 255).astype(np.uint8)
    steady, late = run("positional_kvd", RED, reference=(base,)), run("positional_kvd", drifting, reference=(base,))
    assert abs(steady.value) < 0.2 < 1.0 < late.value
    assert late.items[-1] > late.items[0]


def test_a_still_image_and_a_loop_cannot_win(run: Run) -> None:
    moving = panning(40, 48, 64, 1)
    good = run("headline", moving).value
    assert good > 0.8
    assert run("headline", np.repeat(moving[:1], 40, 0)).value == 0
    assert run("headline", moving[np.arange(40) % 10]).value < 0.5
    assert run("headline", np.concatenate([moving[:20], 255 - moving[20:]])).value < good - 0.1


def everything(clip: np.ndarray, folder: Path) -> dict[str, Score]:
    path = save(folder / "clip.mkv", clip)
    base = save(folder / "base.mkv", clip)
    video = Video(open_video(path), boundaries=(10, 20), shots=((0, "a"), (15, "b")), reference=(base,))
    return score(video, {m: (metric(m), {}) for m in LONG})


def test_still_videos_score_perfectly_or_say_why(tmp_path: Path) -> None:
    found = everything(np.repeat(texture(48, 64)[None], 30, 0), tmp_path)
    for name, one in found.items():
        if name in STILL:
            assert one.value == pytest.approx(STILL[name], abs=1e-5), name
        else:
            assert one.value is None and one.reason, name


def test_flat_and_tiny_videos_never_give_nan(tmp_path: Path) -> None:
    for clip in (np.zeros((12, 2, 2, 3), np.uint8), np.full((30, 16, 16, 3), 255, np.uint8)):
        for name, one in everything(clip, tmp_path).items():
            assert (one.value is None) == (one.reason is not None), name
            assert one.value is None or math.isfinite(one.value), name


def test_threads_change_nothing(tmp_path: Path) -> None:
    clip = np.concatenate([RED[:20], BLUE[:16]])
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        one = everything(clip, tmp_path)
        cv2.setNumThreads(4)
        four = everything(clip, tmp_path)
    finally:
        cv2.setNumThreads(before)
    assert {k: v.value for k, v in one.items()} == {k: v.value for k, v in four.items()}


def test_alone_equals_together(tmp_path: Path) -> None:
    clip = np.concatenate([RED[:20], BLUE[:16]])
    together = everything(clip, tmp_path)
    video = Video(
        open_video(tmp_path / "clip.mkv"),
        boundaries=(10, 20),
        shots=((0, "a"), (15, "b")),
        reference=(tmp_path / "base.mkv",),
    )
    for name in ("seam", "loop", "drift_luma", "headline", "coherence"):
        assert score(video, {name: (metric(name), {})})[name] == together[name]
