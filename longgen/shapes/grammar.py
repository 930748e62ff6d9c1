"""The prompt grammar of the shapes world: words, their meaning, prompt <-> spec.

Knows the vocabulary and the colours of the words. Knows nothing of pixels, and imports nothing heavy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from longgen.errors import BadInput

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.12, 0.12),
    "green": (0.10, 0.75, 0.20),
    "blue": (0.15, 0.30, 0.95),
    "yellow": (0.97, 0.88, 0.10),
    "purple": (0.60, 0.15, 0.80),
    "orange": (1.00, 0.55, 0.05),
    "white": (0.97, 0.97, 0.97),
}
"""RGB centre of each colour word, 0-1; a video's exact colour lies within `COLOUR_SPREAD` of it per channel."""

BACKGROUNDS: dict[str, tuple[float, float, float]] = {
    "black": (0.05, 0.05, 0.05),
    "gray": (0.45, 0.45, 0.45),
    "navy": (0.05, 0.08, 0.30),
    "brown": (0.35, 0.20, 0.10),
    "teal": (0.05, 0.40, 0.40),
}
"""RGB centre of each background word, 0-1; a video's exact shade lies within `SHADE_SPREAD` of it per channel."""

SHAPES: tuple[str, ...] = ("circle", "ring", "square", "diamond", "triangle", "star")
MOTIONS: tuple[str, ...] = ("drifting left", "drifting right", "rising", "falling", "circling")

COLOUR_NAMES: tuple[str, ...] = tuple(COLOURS)
BACKGROUND_NAMES: tuple[str, ...] = tuple(BACKGROUNDS)

COLOUR_SPREAD = 0.06
SHADE_SPREAD = 0.04

_PATTERN = re.compile(
    rf"an? (?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)}) (?P<motion>{'|'.join(MOTIONS)})"
    rf" on an? (?P<background>{'|'.join(BACKGROUNDS)}) background\.?"
)


@dataclass(frozen=True)
class Spec:
    """What a prompt says: four words. The unprompted rest of a video is `render.Identity`."""

    colour: str
    shape: str
    motion: str
    background: str

    @property
    def prompt(self) -> str:
        """The sentence of the grammar.

        >>> Spec("red", "star", "rising", "navy").prompt
        'a red star rising on a navy background'
        """
        return f"a {self.colour} {self.shape} {self.motion} on a {self.background} background"

    @property
    def indices(self) -> tuple[int, int, int, int]:
        """Position of each word in its list: (colour, shape, motion, background)."""
        return (
            COLOUR_NAMES.index(self.colour),
            SHAPES.index(self.shape),
            MOTIONS.index(self.motion),
            BACKGROUND_NAMES.index(self.background),
        )


def vocabulary() -> str:
    """The whole vocabulary as one line, for messages to users."""
    return (
        "a {colour} {shape} {motion} on a {background} background, with"
        f" colour: {', '.join(COLOURS)}; shape: {', '.join(SHAPES)};"
        f" motion: {', '.join(MOTIONS)}; background: {', '.join(BACKGROUNDS)}"
    )


def find(prompt: str) -> Spec | None:
    """The spec of a prompt, or None where the prompt is outside the grammar (case and spacing are forgiven).

    >>> find("A red  star rising on a navy background").shape
    'star'
    >>> find("a dog") is None
    True
    """
    match = _PATTERN.fullmatch(" ".join(prompt.lower().split()))
    return Spec(**match.groupdict()) if match else None


def parse(prompt: str) -> Spec:
    """The spec of a prompt; `BadInput`, listing the vocabulary, where the prompt is outside the grammar."""
    spec = find(prompt)
    if spec is None:
        raise BadInput(f"prompt {prompt!r} is outside the shapes grammar: {vocabulary()}")
    return spec


def all_specs() -> Iterator[Spec]:
    """All 7 x 6 x 5 x 5 = 1,050 combinations in a fixed order."""
    for colour in COLOURS:
        for shape in SHAPES:
            for motion in MOTIONS:
                for background in BACKGROUNDS:
                    yield Spec(colour, shape, motion, background)


def held_out(spec: Spec) -> bool:
    """Whether the combination is kept from training: exactly one fifth, balanced like a Latin square.

    The four word indices sum to a multiple of five, so any three words, and with them any pair, occur in training
    with four of the five backgrounds: what is held out is the combination, never a word or a pair of words.
    """
    return sum(spec.indices) % 5 == 0


def seen_specs() -> list[Spec]:
    """The 840 combinations used in training."""
    return [spec for spec in all_specs() if not held_out(spec)]


def held_out_specs() -> list[Spec]:
    """The 210 combinations never used in training."""
    return [spec for spec in all_specs() if held_out(spec)]
