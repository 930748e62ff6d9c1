"""What must hold for every metric that needs no weights: threads, company, repetition, re-reading, finite numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import panning, save, texture

from longgen.media import open_video
from longgen.metrics import metric
from longgen.metrics.base import Metric, Moment, Score, Video, score
from longgen.metrics.evaluate import names

FREE = names("vbench-free,long")
PERFECT_WHEN_STILL = {"temporal_flickering": 1, "motion_smoothness_classical": 1, "static_classical": 1, "freeze": 1}
PERFECT_WHEN_STILL |= {"dynamic_degree_classical": 0, "start_end_contrast": 0, "headline": 0, "coherence": 1}


def classes(ids: tuple[str, ...] = FREE) -> dict[str, tuple[type[Metric], dict[str, Any]]]:
    return {name: (metric(name), {}) for name in ids}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Video:
    """Six seconds that pan, jump at a boundary and brighten, with everything known about them."""
    clip = panning(48, 48, 64, 2).astype(np.float32)
    clip[24:] = panning(24, 48, 64, 3, seed=1) * 0.9
    clip += np.arange(48)[:, None, None, None] * 0.4
    path = save(tmp_path_factory.mktemp("video") / "clip.mkv", np.clip(clip, 0, 255).astype(np.uint8))
    shots = ((0, "one"), (24, "two"))
    return Video(open_video(path), prompt="one | two", boundaries=(12, 24, 36), shots=shots)


@pytest.fixture(scope="module")
def scores(video: Video) -> dict[str, Score]:
    return score(video, classes())


def test_threads_and_repetition(video: Video, scores: dict[str, Score]) -> None:
    before = cv2.getNumThreads()
    try:
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            assert score(video, classes()) == scores
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize("name", FREE)
def test_company_does_not_matter(name: str, video: Video, scores: dict[str, Score]) -> None:
    """Alone in the pass, a metric says what it says beside all others."""
    assert score(video, classes((name,)))[name] == scores[name]


@pytest.mark.parametrize("name", FREE)
def test_values_are_finite_in_range_or_have_a_reason(name: str, video: Video, scores: dict[str, Score]) -> None:
    info = metric(name).info
    still = save(video.path.parent / "still.mkv", np.repeat(texture(48, 64)[None], 24, 0))
    flat = save(video.path.parent / "flat.mkv", np.full((24, 48, 64, 3), 90, np.uint8))
    short = save(video.path.parent / "short.mkv", panning(2, 48, 64, 2))
    others = [score(replace(video, reader=open_video(p)), classes((name,)))[name] for p in (still, flat, short)]
    for result in (scores[name], *others):
        if result.value is None:
            assert result.reason
        else:
            assert math.isfinite(result.value)
            assert info.low <= result.value <= info.high
        assert all(math.isfinite(i) for i in result.items)
        assert result.ci is None or result.ci[0] <= result.ci[1]
    if name in PERFECT_WHEN_STILL:
        assert others[0].value == pytest.approx(PERFECT_WHEN_STILL[name], abs=1e-6)


def test_corpus_value_ignores_the_order_of_videos(scores: dict[str, Score]) -> None:
    rng = np.random.default_rng(0)
    for name in FREE:
        many = [replace(scores[name], value=float(v), reason=None) for v in rng.random(9)]
        one, other = metric(name).summarise(many), metric(name).summarise(many[::-1])
        assert one.value == pytest.approx(other.value, rel=1e-15)
        assert one.ci == pytest.approx(other.ci)


def test_moments_share_work_and_forget(video: Video, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flow is computed once per pair for all metrics together, and only the last frames stay alive."""
    import weakref

    from longgen.metrics import flow

    calls: list[tuple[int, int]] = []
    real = flow.dis
    monkeypatch.setattr(flow, "dis", lambda a, b: calls.append((id(a), id(b))) or real(a, b))
    alive: list[int] = []
    living: weakref.WeakSet[Moment] = weakref.WeakSet()

    class Counts(Metric):
        info = replace(metric("temporal_flickering").info, id="counts")

        def __init__(self, video: Video) -> None: ...

        def add(self, moment: Moment) -> None:
            moment.flow, moment.residual, moment.speed  # noqa: B018
            living.add(moment)
            alive.append(len(living))

        def end(self) -> Score:
            return Score.of(0)

    class Twice(Counts):
        def add(self, moment: Moment) -> None:
            if moment.index:
                super().add(moment)

    score(video, {"a": (Twice, {}), "b": (Twice, {})})
    assert len(calls) == 47
    assert max(alive) <= 5


def test_the_pass_reads_the_file_once_and_keeps_nothing(video: Video) -> None:
    """Frames reach metrics one by one from one iteration of the reader."""
    opened: list[int] = []

    class Watched:
        path, info = video.reader.path, video.reader.info

        def __len__(self) -> int:
            return self.info.frames

        def __iter__(self) -> Iterator[np.ndarray]:
            opened.append(1)
            return iter(video.reader)

    score(replace(video, reader=Watched()), classes(("temporal_flickering", "motion_smoothness_classical", "freeze")))  # type: ignore[arg-type]
    assert opened == [1]


def test_folder_of_frames_scores_like_its_file(video: Video, tmp_path: Path) -> None:
    from longgen.media import VideoWriter

    with VideoWriter(tmp_path / "frames", 8, codec="png") as writer:
        writer.write(np.stack(list(video.reader)))
    ids = ("temporal_flickering", "motion_smoothness_classical", "dynamic_degree_classical")
    folder = score(replace(video, reader=open_video(tmp_path / "frames")), classes(ids))
    assert folder == score(video, classes(ids))
