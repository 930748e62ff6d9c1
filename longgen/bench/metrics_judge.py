"""Do the long-video diagnostics agree with the exact judge? Rank correlation over shapes videos with planted faults.

The judge reads positions, colours and motion of the shapes world exactly; the diagnostics know nothing of it. Videos
and faults are seeded; which quantity of the judge a metric should follow stands in `TRUTH`, fixed before the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from longgen.bench.faults import WINDOW, plant
from longgen.bench.footage import Clip
from longgen.bench.metrics_validation import InMemory, rank_correlation
from longgen.bench.rows import Rows
from longgen.metrics import METRICS, metric
from longgen.metrics.base import Video, score
from longgen.shapes.judge import Verdict, judge

FAULTS = ("none", "warm", "exposure", "tint", "fade", "blur", "noise", "step", "swap", "loop", "freeze", "foreign")
FRAMES = 49
COLOURS = ("colour", "shade")


def _colour(v: Verdict) -> float:
    """Largest drift of the shape's or the background's colour, 0-1 per channel."""
    return max(v.drift.get(name, 0.0) for name in COLOURS)


def _faults(v: Verdict) -> float:
    return float(len(v.faults))


TRUTH: dict[str, tuple[str, Callable[[Verdict], float], int, bool]] = {
    "headline": ("number of faults", _faults, -1, False),
    "coherence": ("colour drift", _colour, -1, False),
    "start_end_contrast": ("colour drift", _colour, +1, False),
    "drift_luma": ("colour drift", _colour, +1, True),
    "drift_lab_a": ("colour drift", _colour, +1, True),
    "drift_lab_b": ("colour drift", _colour, +1, True),
    "drift_saturation": ("colour drift", _colour, +1, True),
    "drift_contrast": ("colour drift", _colour, +1, True),
    "drift_sharpness": ("number of faults", _faults, +1, True),
    "drift_noise": ("number of faults", _faults, +1, True),
    "seam": ("velocity jumps", lambda v: float(len(v.jumps)), +1, False),
    "cscv": ("velocity jumps", lambda v: float(len(v.jumps)), -1, False),
    "freeze": ("longest freeze", lambda v: float(v.freeze), +1, False),
    "loop": ("repetition", lambda v: v.repetition, +1, False),
    "no_repeat": ("repetition", lambda v: v.repetition, -1, False),
}
"""Metric → the judge's quantity, how it is read, the sign expected, and whether the metric's size counts."""
OTHERS = ("temporal_flickering", "motion_smoothness_classical", "dynamic_degree_classical")
"""Weight-free stand-ins outside the long-video family; compared with the number of faults."""


def run(rows: Rows, videos: int = 60) -> None:
    """Judge and score `videos` shapes videos of 49 frames, 64×64, 8 fps, and record one row per metric."""
    import cv2

    cv2.setNumThreads(1)
    names = [*TRUTH, *(m for m in OTHERS if m in METRICS)]
    values: dict[str, list[float | None]] = {name: [] for name in names}
    verdicts: list[Verdict] = []
    clips = list(_clips(videos))
    for number, (clip, other) in enumerate(zip(clips, [*clips[1:], clips[0]])):
        fault, level = FAULTS[number % len(FAULTS)], 1 + number // len(FAULTS) % 5
        planted = plant(fault, level, clip, other) if fault != "none" else plant("step", 0, clip, other)
        verdicts.append(judge(planted.frames))
        video = Video(InMemory(planted.frames, planted.fps), boundaries=tuple(range(WINDOW, FRAMES, WINDOW)))
        for name, one in score(video, {n: (metric(n), {}) for n in names}).items():
            values[name].append(one.value)
    for name in names:
        what, read, sign, size = TRUTH.get(name, ("number of faults", _faults, -1, False))
        rows.add({"metric": name, "videos": videos}, _row(values[name], [read(v) for v in verdicts], what, sign, size))


def _clips(count: int) -> list[Clip]:
    import torch

    from longgen.shapes import render
    from longgen.shapes.grammar import seen_specs

    generator = torch.Generator().manual_seed(11)
    specs = list(seen_specs())
    picks = torch.randperm(len(specs), generator=generator)[:count].tolist()
    scenes = render.draw([specs[i] for i in picks], generator)
    frames = render.to_uint8(render.render(scenes, FRAMES)).numpy()
    return [Clip(f"shapes-{i}", "shapes", float(render.FPS), f) for i, f in enumerate(frames)]


def _row(values: list[float | None], truth: list[float], what: str, sign: int, size: bool) -> dict[str, Any]:
    known = [(abs(v) if size else v, t) for v, t in zip(values, truth) if v is not None and np.isfinite(t)]
    a, b = np.array(known, dtype=float).reshape(-1, 2).T
    return {"truth": what, "expected": sign, "n": len(known), "rho": rank_correlation(a, b), "size": size}
