"""The story benchmark on rendered truth: a faultless video scores full marks, planted faults are found and sized."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from longgen.bench.story import ATTRIBUTES, WORDS, Base, Labels, Tale, change, score, summarise, tell
from longgen.shapes.grammar import Spec


class Perfect(Base):
    """A base model that always shows its prompt."""

    def __init__(self) -> None:
        """Needs no session."""

    def of(self, spec: Spec, seed: int) -> Labels:
        return {a: np.full(33, WORDS[a].index(getattr(spec, a))) for a in ATTRIBUTES}


def truth(tale: Tale, late: int = 0) -> Labels:
    """Labels of a video that follows the timeline, `late` frames after it."""
    frames = range(tale.timeline.frames)
    shots = tale.timeline.shots
    at = [max(k for k, s in enumerate(shots) if s.start <= max(f - late, 0)) for f in frames]
    return {a: np.array([WORDS[a].index(getattr(tale.specs[k], a)) for k in at]) for a in ATTRIBUTES}


@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("transition", ["cut", "continue", "blend"])
def test_a_faultless_video_has_full_marks(count: int, transition: str) -> None:
    tales = [tell(count, index, 32, 8, transition) for index in range(8)]  # type: ignore[arg-type]
    for tale in tales:
        assert all(
            sum(getattr(a, n) != getattr(b, n) for n in ATTRIBUTES) == 1 for a, b in zip(tale.specs, tale.specs[1:])
        )
    values = summarise([score(truth(tale), tale, Perfect()) for tale in tales])
    assert all(values[a]["kept"] == values[a]["of_base"] == 1 for a in ATTRIBUTES)
    assert values["transitions"]["in_place"] == 1 and values["transitions"]["median_error_frames"] == 0
    assert values["leakage_points"]["mean"] == 0 and values["transitions"]["count"] == 8 * (count - 1)
    assert {t.changed(k) for t in tales for k in range(1, count)} == set(ATTRIBUTES)


@pytest.mark.parametrize(("late", "in_place"), [(-6, 0), (-4, 1), (3, 1), (4, 1), (5, 0), (9, 0)])
def test_transitions_out_of_place_are_measured(late: int, in_place: int) -> None:
    tales = [tell(3, index, 32, 8, "cut") for index in range(4)]
    if late < 0:
        shown = [{a: np.concatenate([v[-late:], np.repeat(v[-1:], -late)]) for a, v in truth(t).items()} for t in tales]
    else:
        shown = [truth(tale, late) for tale in tales]
    values = summarise([score(s, t, Perfect()) for s, t in zip(shown, tales)])
    assert values["transitions"]["median_error_frames"] == late
    assert values["transitions"]["in_place"] == in_place


def test_a_prompt_that_never_comes_and_one_that_leaks() -> None:
    tale = tell(2, 0, 32, 8, "cut")
    attribute = tale.changed(1)
    still = truth(replace(tale, specs=(tale.specs[0], tale.specs[0])))
    missed = score(still, tale, Perfect())
    assert missed.errors == (None,) and missed.kept[attribute] == 0.5
    leaking = truth(tale)
    leaking[attribute][4:11] = leaking[attribute][-1]
    assert score(leaking, tale, Perfect()).leaked == pytest.approx(7 / 28)


@pytest.mark.parametrize("at", range(1, 12))
def test_the_change_is_found_wherever_it_is(at: int) -> None:
    assert change(np.repeat([3, 5], [at, 12 - at]), 3, 5) == at
