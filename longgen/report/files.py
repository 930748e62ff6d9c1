"""What `longgen eval -o DIR` leaves behind beside results.jsonl: summary, VBench's own format, the HTML report."""

from __future__ import annotations

import json
from pathlib import Path

from longgen.metrics.evaluate import Evaluation
from longgen.metrics.vbench_files import write_results


def write_all(result: Evaluation, out: Path) -> None:
    """Write summary.json, longgen_eval_results.json (when a VBench dimension was scored) and report.html."""
    from longgen.report.html import write_report

    (out / "summary.json").write_text(json.dumps(result.as_json(), indent=1, ensure_ascii=False) + "\n", "utf-8")
    write_results(out / "longgen_eval_results.json", result)
    write_report(result, out / "report.html")
