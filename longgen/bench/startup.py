"""How long a user waits: for the interpreter, the import, `--help`, and the first step of a run on the embedded model.

Each is a process of its own, timed from outside. Knows command lines only.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time

from longgen.bench.rows import Rows
from longgen.cli.progress import say

FIRST_STEP = """
from longgen.api import Session
from longgen.config import Request
from longgen.runtime.run import Job

class Reached(BaseException):
    pass

def stop(_):
    raise Reached

session = Session("shapes")
try:
    session.run(session.plan(Request(prompt="a red star rising on a navy background")), Job(on_progress=stop))
except Reached:
    pass
"""
COMMANDS = {
    "python": ("-c", "pass"),
    "import longgen": ("-c", "import longgen"),
    "longgen --help": ("-m", "longgen", "--help"),
    "longgen generate --help": ("-m", "longgen", "generate", "--help"),
    "first step": ("-c", FIRST_STEP),
}


def run(rows: Rows, rounds: int = 5) -> None:
    """Time every command `rounds` times in turn, after one that warms the file cache up."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for round in range(rounds + 1):
        for name, words in COMMANDS.items():
            taken = seconds(words)
            if round:
                spent[name].append(taken)
    for name, every in spent.items():
        wall, cpu = ([t[i] for t in every] for i in range(2))
        values = {"seconds": wall, "seconds_median": statistics.median(wall), "cpu_median": statistics.median(cpu)}
        say(f"{name}: {rows.add({'command_timed': name}, {**values, 'rounds': rounds})['seconds_median']} s")


def seconds(words: tuple[str, ...]) -> tuple[float, float]:
    """Wall and processor seconds of one interpreter with these arguments; a failure is an error."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
