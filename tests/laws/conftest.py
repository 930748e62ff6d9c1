"""Prints the table law × method after a run of the law suite."""

from __future__ import annotations

from typing import Any

MARKS = {"passed": "✓", "failed": "✗", "error": "✗", "skipped": "s"}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    outcome: dict[tuple[str, str], str] = {}
    for status, mark in MARKS.items():
        for report in terminalreporter.stats.get(status, []):
            name = getattr(report, "nodeid", "")
            if "test_laws.py::test_law[" in name:
                law, _, method = name.split("[")[1].rstrip("]").partition("-")
                outcome[law, method] = mark
    if not outcome:
        return
    from longgen.laws import LAWS
    from longgen.registry import METHODS, method

    terminalreporter.section("laws (✓ holds, ✗ broken, e exempt with a reason, · does not concern)")
    width = max(map(len, METHODS))
    laws = list(LAWS)
    for i, law in enumerate(laws):
        terminalreporter.write_line(f"{i:>2} {law}: {LAWS[law].statement}")
    terminalreporter.write_line(" " * width + "".join(f"{i:>3}" for i in range(len(laws))))
    for name in METHODS:
        exempt = method(name).info.exempt
        cells = (outcome.get((law, name), "e" if law in exempt else "·") for law in laws)
        terminalreporter.write_line(f"{name:<{width}}" + "".join(f"{c:>3}" for c in cells))
