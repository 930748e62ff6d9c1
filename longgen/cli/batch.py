"""`longgen batch`: a list of jobs, one model load, a journal. Failures are counted, told at the end, and never stop
the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
import yaml

from longgen.api import Session, load_options
from longgen.cli.options import as_json, request
from longgen.cli.progress import say
from longgen.cli.work import Work
from longgen.config import Request, read_text, validated
from longgen.errors import BadInput
from longgen.runtime.journal import Journal
from longgen.runtime.outputs import expand, read_prompts


def read_jobs(path: Path, options: dict[str, Any]) -> list[Request]:
    """Requests from a prompt file, or from a YAML list whose entries are prompts or mappings of options."""
    if path.suffix.lower() not in {".yaml", ".yml", ".json"}:
        return [request(options, prompt) for prompt in read_prompts(path)]
    try:
        entries = yaml.safe_load(read_text(path, "job file"))
    except yaml.YAMLError as error:
        raise BadInput(f"job file {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(entries, list) or not entries:
        raise BadInput(f"job file {path} must be a list of prompts or of option mappings")
    base = request(options).model_dump(exclude_unset=True)
    jobs = []
    for number, entry in enumerate(entries, 1):
        values = {"prompt": entry} if isinstance(entry, str) else entry
        if not isinstance(values, dict) or not values.get("prompt"):
            raise BadInput(f"{path}: job {number} has no prompt")
        named = {str(k).replace("-", "_"): v for k, v in values.items()}
        jobs.append(validated({**named, **base}, f"{path}: job {number}"))
    return jobs


def run_batch(
    jobs: Path, folder: Path, options: dict[str, Any], retry_failed: bool, as_lines: bool, extra: dict[str, Any]
) -> int:
    """Carry out the jobs; 0 when all are done, 1 when some failed."""
    asked = read_jobs(jobs, options)
    paths = [i.path for i in expand([r.prompt or "" for r in asked], 1, f"{folder}/", "index", None, True)]
    journal = Journal(folder / "journal.jsonl")
    sessions: dict[Any, Session] = {}
    works = [_prepared(r, p, sessions, journal, retry_failed, extra) for r, p in zip(asked, paths, strict=True) if p]
    due = [w for w in works if not w.skip]
    left = list(due)
    failed = [w.output for w in due if not _carry_out(w, left, journal)]
    done = sum(e["status"] == "done" for e in journal.last.values())
    say(f"{done} done, {len(failed)} failed" + (f": {', '.join(map(str, failed))}" if failed else ""))
    if as_lines:
        typer.echo(as_json(list(journal.last.values())))
    return 1 if failed else 0


def _prepared(
    asked: Request, path: Path, sessions: dict[Any, Session], journal: Journal, retry: bool, extra: dict[str, Any]
) -> Work:
    """Checked before any job runs, so that a mistake in job 90 is told at once."""
    key = (asked.model, load_options(asked))
    work = Work(output=str(path), resume=not extra["overwrite"], **extra)
    work.session_in_hand = sessions.get(key)
    work.check(asked, [asked.prompt or ""], many=False, dry_run=False)
    sessions[key] = work.session
    status = journal.status(path.name, work.plans[0].identity)
    work.skip = (status == "done" and path.exists() and not extra["overwrite"]) or (retry and status != "failed")
    return work


def _carry_out(work: Work, unread: list[Work], journal: Journal) -> bool:
    """One job; True unless it failed. The prompts of all jobs on its model that are `unread` are read with it."""
    path, identity = Path(str(work.output)), work.plans[0].identity
    journal.write(path.name, identity, "running")
    try:
        if together := [other for other in unread if other.session is work.session]:
            work.session.prepare([plan for other in together for plan in other.plans])
            unread[:] = [other for other in unread if other.session is not work.session]
        work.run()
    except Exception as error:  # the rest of the batch must go on; the reason is kept and told
        journal.write(path.name, identity, "failed", " ".join(str(error).split()))
        say(f"{path}: failed: {error}")
        return False
    journal.write(path.name, identity, "done")
    return True
