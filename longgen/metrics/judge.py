"""Vision-language models as judges: UVE aspects, TC-Bench assertions, NarrLV questions. Scores, not models.

Judges lean towards yes, see few frames and change with the API (arXiv 2605.03475): their values are not comparable
across models, and never enter VBench totals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from longgen.metrics.base import (
    Frame,
    Metric,
    MetricInfo,
    Moment,
    Score,
    Unavailable,
    Video,
    middle_frames,
    needs_given,
)

ASPECTS: dict[str, str] = {
    "overall": "Is the overall quality of this video good?",
    "aesthetic": "Is this video aesthetically pleasing?",
    "technical": "Is this video free of noise, blur and compression artefacts?",
    "motion": "Is the motion in this video natural and smooth?",
    "consistency": "Do subject and background stay the same throughout this video?",
    "alignment": 'Does this video show "{prompt}"?',
}
"""UVE-style questions, each to be answered by yes or no."""
SUFFIX = " Answer with yes or no."
FRAMES = 16
STRIP = 16
"""TC-Bench's assertions name frames on a scale of 16."""


class Asks(Metric):
    """Keeps at most 16 middle frames and asks about them at the end."""

    backends = {"vlm": "hf:Qwen/Qwen2.5-VL-7B-Instruct"}

    def __init__(self, video: Video, **backends: Any) -> None:
        self.video, self.judge = video, backends["vlm"]
        self.order = middle_frames(video.frames, FRAMES)
        self.kept: dict[int, Frame] = {}

    def add(self, moment: Moment) -> None:
        if moment.index in self.order:
            self.kept[moment.index] = moment.frame

    def strip(self) -> list[Frame]:
        return [self.kept[i] for i in self.order]


class Uve(Asks):
    """Mean over aspects of P(yes) / (P(yes) + P(no)) of the first token; alignment only where there is a prompt."""

    info = MetricInfo(
        id="uve",
        version=1,
        title="a vision-language model's yes to questions of quality",
        better="higher",
        low=0,
        high=1,
        family="judge",
        needs=frozenset({"weights", "text"}),
        min_frames=1,
        source="UVE, arXiv 2503.09949",
    )

    def end(self) -> Score:
        asked = {a: q for a, q in ASPECTS.items() if a != "alignment" or self.video.prompt}
        strip = self.strip()
        answers = {a: self.judge(strip, q.format(prompt=self.video.prompt) + SUFFIX) for a, q in asked.items()}
        mean = sum(answers.values()) / len(answers)
        return Score.of(mean, n=len(answers), items=tuple(answers.values()), extras={"aspects": answers})


class TcBench(Asks):
    """Mean of the assertions about a video that hold; the extras have TCR, 1 only if all hold.

    Assertions of one video (`--given assertions=FILE`): a list of {"question": text, "frames": indices on a scale of
    16, "about": "other objects" or anything else}. As in TC-Bench, assertions about other objects do not count for TCR.
    """

    info = MetricInfo(
        id="tc_bench",
        version=1,
        title="assertions about frames hold, by a vision-language model",
        better="higher",
        low=0,
        high=1,
        family="judge",
        needs=frozenset({"weights", "given"}),
        min_frames=1,
        source="TC-Bench, arXiv 2406.08656",
    )

    def end(self) -> Score:
        strip, held = self.strip(), []
        assertions = list(needs_given(self.video, "assertions"))
        for item in assertions:
            picks = [int(i) for i in item["frames"]]
            if not picks or min(picks) < 0 or max(picks) >= STRIP:
                raise Unavailable(f"an assertion names frames {picks}; they count from 0 to {STRIP - 1}")
            held.append(self.judge([strip[i] for i in picks], str(item["question"]) + SUFFIX) > 0.5)
        return tc_score(held, [str(item.get("about", "")) == "other objects" for item in assertions])


def tc_score(held: Sequence[bool], other: Sequence[bool]) -> Score:
    """TC-Bench's score (mean of all assertions) with TCR (all but those about other objects hold) in the extras."""
    if not held:
        return Score.none("no assertion about this video")
    counted = [h for h, o in zip(held, other) if not o]
    items = tuple(float(h) for h in held)
    return Score.of(sum(items) / len(items), n=len(held), items=items, extras={"tcr": float(all(counted))})


def narrlv_score(
    answers: Mapping[str, Sequence[Sequence[float]]], first_frame: float | None = None
) -> dict[str, float]:
    """NarrLV's fidelity, coverage and coherence (arXiv 2507.11245) from repeated answers in [0, 1].

    Args:
        answers: "fidelity", "coverage" (one list of repeated answers per narrative atom) and "coherence" (one per pair
            of neighbouring atoms).
        first_frame: Q-Align of frame 1 in [0, 1]; joins each mean with weight 0.2.

    Returns:
        The three scores. Coherence of a pair is zeroed when the coverage of either event is below 0.3, and is averaged
        with the mean coverage.
    """
    means = {k: [sum(a) / len(a) for a in v] for k, v in answers.items()}
    cover = means["coverage"]
    pairs = [c if min(cover[i], cover[i + 1]) >= 0.3 else 0.0 for i, c in enumerate(means["coherence"])]
    coverage = sum(cover) / len(cover)
    scores = {
        "fidelity": sum(means["fidelity"]) / len(means["fidelity"]),
        "coverage": coverage,
        "coherence": (sum(pairs) / len(pairs) + coverage) / 2 if pairs else coverage,
    }
    if first_frame is None:
        return scores
    return {k: 0.8 * v + 0.2 * first_frame for k, v in scores.items()}
