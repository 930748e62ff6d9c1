"""The two ways a command fails on purpose. Knows exit codes, nothing of what failed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadInput(ValueError):
    """What the user gave cannot be used: one line that says what is wrong and what is right. Exit code 2."""


class RunFailed(RuntimeError):
    """A run that was well-formed failed while running. One line, exit code 1."""


def unknown(kind: str, name: str, valid: Iterable[str]) -> BadInput:
    """The error for a name that does not exist: names the nearest valid ones, then all of them.

    >>> str(unknown("method", "freenose", ["direct", "freenoise"]))
    "unknown method 'freenose'; did you mean 'freenoise'? valid: direct, freenoise"
    """
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return BadInput(f"unknown {kind} {name!r}{hint} valid: {', '.join(names)}")
