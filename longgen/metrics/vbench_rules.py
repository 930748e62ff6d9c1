"""The rules by which VBench turns measurements into scores. Pure functions of numbers, boxes and words; no pixels.

Source: VBench (arXiv 2311.17982), Vchitect/VBench, one function per rule. Known faults of the official code are kept
where a number must stay comparable and are named in the docstring.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

COLOURS = (
    "white", "red", "pink", "blue", "silver", "purple", "orange", "green", "gray", "yellow", "black", "grey",
)  # fmt: skip

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""


def sampling_interval(fps: float) -> int:
    """Dynamic degree looks at every max(1, round(fps / 8))-th frame.

    >>> [sampling_interval(f) for f in (4, 8, 12, 16, 24, 30)]
    [1, 1, 2, 2, 3, 4]
    """
    return max(1, round(fps / 8))


def moves(magnitudes: Sequence[float], side: float, frames: int) -> bool:
    """Dynamic degree: does the video move?

    Args:
        magnitudes: mean of the top 5 % of |flow| per pair of sampled frames, pixels.
        side: min(H, W) of the grid on which the flow was measured.
        frames: number of sampled frames.

    Returns:
        #{m > 6·side/256} ≥ round(4·frames/16). With two frames the count needed is 0: every pair "moves" (official).
    """
    fast = sum(m > 6 * side / 256 for m in magnitudes)
    return len(magnitudes) > 0 and fast >= round(4 * frames / 16)


def is_static(magnitudes: Sequence[float], ends: tuple[float, float], side: float, frames: int) -> bool:
    """VBench's static filter, which admits videos to temporal flickering.

    Args:
        magnitudes: mean of the top 2 % of |flow| per pair of neighbouring frames, pixels.
        ends: the same from first to last frame and back.
        side: min(H, W) of the flow's grid.
        frames: number of frames.

    Returns:
        at most c = round(2·frames/16) pairs above τ = 3·side/256, and both ends at most 2·τ·c.
    """
    tau, allowed = 3 * side / 256, round(2 * frames / 16)
    return sum(m > tau for m in magnitudes) <= allowed and max(ends) <= 2 * tau * allowed


class AdjacentAndFirst:
    """Subject and background consistency: per frame t ≥ 1, ½·[max(0, ⟨e_t, e_{t−1}⟩) + max(0, ⟨e_t, e_0⟩)].

    Takes unit embeddings one by one. The official code divides the sum by F − 1 and fails at F = 1.
    """

    def __init__(self) -> None:
        self.scores: list[float] = []
        self.first: NDArray[np.float32] | None = None
        self.last: NDArray[np.float32] | None = None

    def add(self, e: NDArray[np.float32]) -> None:
        if self.first is None or self.last is None:
            self.first = e
        else:
            self.scores.append(0.5 * (max(0.0, float(e @ self.last)) + max(0.0, float(e @ self.first))))
        self.last = e


def labels_present(frames: Sequence[Iterable[str]], wanted: Sequence[str]) -> tuple[int, int]:
    """Object class and multiple objects: (frames whose detected classes hold every wanted label, frames)."""
    return sum(set(wanted) <= set(labels) for labels in frames), len(frames)


def colour_hits(frames: Sequence[Iterable[tuple[str, str]]], wanted: str, colour: str) -> tuple[int, int]:
    """Color: (frames with the wanted colour, frames that name any colour) among captions of the wanted class.

    Args:
        frames: per frame, pairs (caption, class). The official code pairs every caption with the frame's *first*
            class; feed such pairs to reproduce it.
        wanted: object class of the prompt. colour: colour word of the prompt.
    """
    named = hit = 0
    for pairs in frames:
        captions = [caption for caption, label in pairs if label == wanted]
        named += any(word in caption for caption in captions for word in COLOURS)
        hit += any(colour in caption for caption in captions)
    return hit, named


def words_present(captions: Sequence[str], scene: str) -> tuple[int, int]:
    """Scene: (captions that hold every word of the scene as a substring, captions)."""
    words = scene.split()
    return sum(all(word in caption for word in words) for caption in captions), len(captions)


def spatial_score(boxes: Mapping[str, Sequence[Box]], first: str, second: str, relation: str) -> float:
    """Spatial relationship in one frame: the best pair of boxes of either class.

    A horizontal relation ("on the left of", "on the right of") needs |Δx| > |Δy| of the centres, a vertical one the
    reverse; such a pair scores 1 if IoU < 0.1, else 0.1 / IoU. As in the official code the *side* and the *identity*
    are ignored: swapped boxes score 1 (kept for comparability, see docs/footguns.md).
    """
    pool = [*boxes.get(first, ()), *boxes.get(second, ())]
    best = 0.0
    for i, a in enumerate(pool):
        for b in pool[i + 1 :]:
            dx = abs((a[0] + a[2]) - (b[0] + b[2]))
            dy = abs((a[1] + a[3]) - (b[1] + b[3]))
            if dx > dy if "left" in relation or "right" in relation else dy > dx:
                overlap = iou(a, b)
                best = max(best, 1.0 if overlap < 0.1 else 0.1 / overlap)
    return best


def iou(a: Box, b: Box) -> float:
    """Intersection over union.

    >>> iou((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else 0.0


def action_of(stem: str) -> str:
    """Human action: the label is what follows "person is " in the file name, up to the first "-" or "_".

    >>> action_of("A person is riding or walking with horse-3")
    'riding or walking with horse'
    """
    tail = stem.lower().partition("person is ")[2]
    return tail.split("-")[0].split("_")[0]
