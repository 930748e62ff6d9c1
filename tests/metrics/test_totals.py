"""The published VBench totals come out of the published dimension scores, and only out of the right formula."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longgen.errors import BadInput
from longgen.metrics import totals as t

DATA = json.loads((Path(__file__).parent / "data" / "vbench_published_scores.json").read_text())
TOLERANCE = DATA["tolerance_pp"]


@pytest.mark.parametrize("model", DATA["t2v"])
def test_text_to_video_rows(model: str) -> None:
    row = DATA["t2v"][model]
    result = t.totals_from_object({"unit": "percent", **row["dims"]})
    assert result.missing == ()
    assert result.total == pytest.approx(row["total"], abs=TOLERANCE)
    assert result.parts["quality"] == pytest.approx(row["quality"], abs=TOLERANCE)
    assert result.parts["semantic"] == pytest.approx(row["semantic"], abs=TOLERANCE)
    fractions = {k: v / 100 for k, v in row["dims"].items()}
    assert t.totals_from_object({"unit": "fraction", **fractions}).total == pytest.approx(result.total)
    official = {k: [v, []] for k, v in fractions.items()}
    assert t.totals_from_object(official).total == pytest.approx(result.total)


@pytest.mark.parametrize("model", DATA["i2v"])
def test_image_to_video_row(model: str) -> None:
    row = DATA["i2v"][model]
    result = t.totals_from_object({"unit": "percent", **dict(zip(DATA["i2v_order"], row["v"], strict=True))})
    assert result.kind == "i2v"
    assert result.total == pytest.approx(row["total"], abs=TOLERANCE)
    assert result.parts["i2v"] == pytest.approx(row["i2v"], abs=TOLERANCE)
    assert result.parts["quality"] == pytest.approx(row["quality"], abs=TOLERANCE)


def worst(scores: dict[str, dict[str, float]]) -> float:
    """Largest error over all rows, percentage points."""
    return max(
        abs(t.totals_from_object({"unit": "percent", **dims}).total - DATA["t2v"][model]["total"])
        for model, dims in scores.items()
    )


def test_wrong_formulas_miss_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative controls: each plausible mistake is visible at this tolerance."""
    rows = {model: row["dims"] for model, row in DATA["t2v"].items()}
    assert worst(rows) <= TOLERANCE
    for name, attribute, value in (
        ("dynamic degree at full weight", "WEIGHTS", {}),
        ("no range for scene", "RANGES", t.RANGES | {"scene": (0.0, 1.0)}),
        ("I2V's group without flicker", "QUALITY", t.I2V_QUALITY),
        ("one semantic dimension lost", "SEMANTIC", t.SEMANTIC[:-1]),
        ("smoothness to 1", "RANGES", t.RANGES | {"motion_smoothness": (0.7060, 1.0)}),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(t, attribute, value)
            assert worst(rows) > TOLERANCE, name
    shuffled = {m: d | {"scene": d["color"], "color": d["scene"]} for m, d in rows.items()}
    assert worst(shuffled) > TOLERANCE


def test_missing_dimensions_are_named_not_zero() -> None:
    dims = dict(DATA["t2v"]["Mochi-1"]["dims"])
    del dims["scene"]
    result = t.totals_from_object({"unit": "percent", **dims})
    assert result.as_json()["missing"] == ["scene"]
    assert result.total is None
    assert result.parts["semantic"] is None
    assert result.parts["quality"] == pytest.approx(82.64, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "JSON object"),
        ({"scene": 0.3}, "unit"),
        ({"unit": "percents", "scene": 3}, "unit"),
        ({"unit": "percent", "scen": 3}, "did you mean 'scene'"),
        ({"unit": "percent", "scene": "3"}, "number"),
        ({"unit": "percent", "scene": float("nan")}, "outside"),
        ({"unit": "fraction", "scene": 53.2}, "outside"),
        ({"unit": "percent", "scene": True}, "number"),
    ],
)
def test_bad_scores(data: object, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        t.totals_from_object(data)
