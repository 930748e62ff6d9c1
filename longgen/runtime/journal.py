"""The journal of a batch: one JSON line per event, appended; the last line about a path counts.

Knows paths, run identities and outcomes. A batch that is killed and started again skips what is done.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["running", "done", "failed"]


@dataclass
class Journal:
    """Append-only file in the batch's folder. A torn last line, as a kill leaves it, is ignored."""

    path: Path
    last: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            self.last[entry["file"]] = entry

    def status(self, file: str, identity: str) -> Status | None:
        """What became of this very run of `file`; None if it never ran or was another run."""
        entry = self.last.get(file)
        if entry is None or entry["identity"] != identity:
            return None
        status: Status = entry["status"]
        return status

    def write(self, file: str, identity: str, status: Status, error: str | None = None) -> None:
        entry = {"file": file, "identity": identity, "status": status, "error": error, "time": round(time.time(), 1)}
        self.last[file] = entry
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(entry, ensure_ascii=False) + "\n")
            out.flush()
