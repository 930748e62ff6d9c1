"""Recorded results: one JSON line per row in docs/results/, each with what is needed to measure it again.

The only writer of docs/results/. A row that is measured again under the same key replaces the old one. Several
processes may write the same file: each adds its rows under a lock to what the others have written.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"


def environment() -> dict[str, Any]:
    """Versions, processor and cores: what a figure of speed depends on besides the code."""
    from longgen.runtime.sidecar import versions

    facts: dict[str, Any] = {"versions": versions(), "cores": os.cpu_count(), "processor": _processor()}
    import torch

    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    facts["threads"] = torch.get_num_threads()
    return facts


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit measured, with `+` when the tree had changes outside docs/results."""
    root = RESULTS.parents[1]
    try:
        head = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=root, capture_output=True, text=True)
        asked = ["git", "status", "--porcelain", "--untracked-files=no", "--", "longgen", "assets"]
        changed = subprocess.run(asked, cwd=root, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return (head.stdout.strip() or "unknown") + ("+" if changed.stdout.strip() else "")


@dataclass
class Rows:
    """The rows of one kind, read from and written to docs/results/<kind>.jsonl.

    `key` fields identify a row; a bench asks `has` and skips what is recorded, so that it can be stopped and resumed.
    """

    kind: str
    folder: Path = RESULTS
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._read()
        self._commit = commit()  # now: the code that runs is what was there at the start
        with locked(self.folder):
            self._env = environment_id(self.folder)

    def _read(self) -> None:
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self.rows[row["key"]] = row

    @property
    def path(self) -> Path:
        return self.folder / f"{self.kind}.jsonl"

    def has(self, **key: Any) -> bool:
        return _key(key) in self.rows

    def get(self, **key: Any) -> dict[str, Any]:
        """The row recorded under this key, by any process; empty when there is none."""
        self._read()
        return self.rows.get(_key(key), {})

    def add(self, key: dict[str, Any], values: dict[str, Any], grow: str = "") -> dict[str, Any]:
        """Record one measurement and write the file; floats keep five significant digits.

        Args:
            grow: name of a dictionary in `values` that is added to what the row holds there already.
        """
        row = {"key": _key(key), **key, **_short(values), "commit": self._commit, "command": command()}
        row |= {"env": self._env, "date": time.strftime("%Y-%m-%d")}
        with locked(self.folder):
            self._read()
            if grow:
                row[grow] = self.rows.get(row["key"], {}).get(grow, {}) | row[grow]
            self.rows[row["key"]] = row
            part = self.path.with_suffix(".part")
            lines = (json.dumps(r, ensure_ascii=False) + "\n" for r in self.rows.values())
            part.write_text("".join(lines), encoding="utf-8")
            os.replace(part, self.path)
        return row


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Alone in the folder of results, which is made if need be, for as long as the block runs."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def listed(text: str) -> list[str]:
    """A bench option that takes several values, `a;b,c;d`."""
    return [part.strip() for part in str(text).split(";") if part.strip()]


def command() -> str:
    """The command line that measures this again."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return " ".join(["longgen", *words[1:]] if words[0] in {"__main__.py", "longgen"} else words)


def environment_id(folder: Path) -> str:
    """A short id for this environment, whose facts are kept once in environments.json."""
    facts = environment()
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    path = folder / "environments.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if name not in known:
        path.write_text(json.dumps({**known, name: facts}, indent=1) + "\n", encoding="utf-8")
    return name


def _key(key: dict[str, Any]) -> str:
    return " ".join(f"{k}={v}" for k, v in sorted(key.items()))


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {k: _short(v) for k, v in value.items()}
    return [_short(v) for v in value] if isinstance(value, list | tuple) else value
