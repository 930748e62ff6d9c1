"""The laws that methods declare: names, statements, and the slots that each law concerns. Data only.

A method lists in `MethodInfo.laws` the laws that hold for it, with the settings under which they hold, and in
`MethodInfo.exempt` every other law that concerns one of its slots, with the reason. `tests/laws` runs from these
declarations, so a law that is neither declared nor exempt is an error.
"""

from __future__ import annotations

from dataclasses import dataclass

from longgen.types import Slot

ANY: frozenset[Slot] = frozenset(
    ("noise", "loop", "wrapper", "route", "logits", "rope", "cross", "kv", "stabilise"),
)
LOOPS: frozenset[Slot] = frozenset(("loop",))
NOISES: frozenset[Slot] = frozenset(("noise",))
PATCHES: frozenset[Slot] = frozenset(("route", "logits", "rope", "cross", "kv"))
ATTENTION: frozenset[Slot] = frozenset(("route", "logits"))


@dataclass(frozen=True)
class Law:
    """One line that says what holds, and the slots of the methods that must declare it or say why not."""

    statement: str
    slots: frozenset[Slot]


LAWS: dict[str, Law] = {
    "plain": Law("where one window covers the length the loop gives the same bits as `direct`", LOOPS),
    "partition": Law("with a model that mixes no latents, any windows give what one call gives", LOOPS),
    "mates": Law("order and grouping of the calls of one step do not change the result", LOOPS),
    "resume": Law("a state saved and read back between any two steps finishes with the same bits", LOOPS),
    "final": Law("each latent is final exactly once, in order, and the events cover the video", LOOPS),
    "plan": Law("`calls` states the calls that are made and `view` the longest of them", LOOPS),
    "deterministic": Law("the same seed gives the same bits, and another seed other ones", LOOPS | NOISES),
    "finite": Law("finite at 1x, 2x, 4x and 8x the native length", LOOPS | NOISES | PATCHES),
    "unit_variance": Law("every latent of the initial noise is unit Gaussian", NOISES),
    "random_access": Law("noise(start, stop) is that slice of noise(0, T)", NOISES),
    "stochastic": Law("attention rows sum to 1: constant values pass unchanged", ATTENTION),
    "zero": Law("zeroed values give zero output, so zeroed output projections make a block the identity", ATTENTION),
    "no_op": Law("an empty patch while the longest call is within the native length", PATCHES),
    "beyond": Law("beyond the native length the patch changes the attention output", PATCHES),
    "removal": Law("a patch comes off bitwise, also after an exception", PATCHES),
    "conflicts": Law("a second owner of a slot is refused by name", ANY),
}
