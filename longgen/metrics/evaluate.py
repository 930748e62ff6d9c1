"""Scoring folders of videos: presets, cache, processes, summary. Knows records and metrics by name, no formula."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from longgen.errors import BadInput, unknown
from longgen.metrics import METRICS, metric
from longgen.metrics.backends import resolve
from longgen.metrics.base import Metric, Score, Unavailable, score
from longgen.metrics.records import Journal, Record, file_hash, make, read, write
from longgen.metrics.totals import QUALITY, SEMANTIC
from longgen.metrics.videos import Known, describe

PRESETS = ("vbench", "vbench-free", "vbench-long", "long", "all")
RESULTS = "results.jsonl"


@dataclass(frozen=True)
class Ready:
    """A metric with its backends loaded, the text that names them in results, and whether VBench's numbers compare."""

    cls: type[Metric]
    backends: Mapping[str, Any]
    backend: str
    comparable: bool


@dataclass(frozen=True)
class Evaluation:
    """All results of one command.

    Args:
        records: one per video and metric, in the order of path and metric.
        skipped: path → reason, for videos that could not be read.
        unavailable: metric → reason, for metrics that cannot run here at all.
        summary: metric → corpus score.
        paths: all videos, skipped ones too, sorted.
    """

    records: tuple[Record, ...]
    skipped: Mapping[str, str]
    unavailable: Mapping[str, str]
    summary: Mapping[str, Score]
    paths: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The shape of `longgen eval --json`; a metric without a value stands under `reasons`, not under `scores`."""
        videos: dict[str, dict[str, Any]] = {
            p: {"path": p, "scores": {}, "reasons": {}, "skipped": self.skipped.get(p)} for p in self.paths
        }
        for r in self.records:
            if r.score.value is None:
                videos[r.path]["reasons"][r.metric] = r.score.reason
            else:
                videos[r.path]["scores"][r.metric] = r.score.value
        summary = {
            name: {"value": s.value, "ci": s.ci and list(s.ci), "n": s.n, "reason": s.reason, **s.extras}
            for name, s in self.summary.items()
        }
        return {"videos": list(videos.values()), "summary": summary, "unavailable": dict(self.unavailable)}


@dataclass(frozen=True)
class Request:
    """What to score and how.

    Args:
        videos: paths, sorted.
        metrics: ids, in order.
        known: prompts, outside results, suite entries.
        specs: backend role → spec, over the metrics' defaults.
        out: folder of results.jsonl, or None to keep nothing.
        static_only: temporal flickering counts static videos alone, at most five per prompt (VBench's rule).
        device: where backends run.
    """

    videos: tuple[Path, ...]
    metrics: tuple[str, ...]
    known: Known = field(default_factory=Known)
    specs: Mapping[str, str] = field(default_factory=dict)
    out: Path | None = None
    static_only: bool = False
    device: str = "cpu"


def preset(name: str) -> tuple[str, ...]:
    """Metric ids of a preset, in the registry's order.

    vbench: all 16 dimensions; vbench-long: the same over clips. vbench-free: flicker and the classical stand-ins.
    long: every long-video diagnostic. vbench-free and long hold only what needs no weights and no outside results.
    """
    if name == "vbench":
        return QUALITY + SEMANTIC
    if name == "vbench-long":
        return tuple(f"{d}_long" for d in QUALITY + SEMANTIC)
    if name == "all":
        return tuple(METRICS)
    infos = [metric(m).info for m in METRICS]
    free = [i for i in infos if not i.needs & {"weights", "given", "reference"}]
    if name == "long":
        return tuple(i.id for i in free if i.family == "long")
    return tuple(i.id for i in free if i.family == "classical" or (i.family == "vbench" and i.comparable))


def names(text: str) -> tuple[str, ...]:
    """Metric ids of `--metrics A,B,preset,…`, each once, in the order given. BadInput names the nearest."""
    found: list[str] = []
    for word in (w.strip().replace("-", "_") for w in text.split(",")):
        dashed = word.replace("_", "-")
        if dashed not in PRESETS and word not in METRICS:
            raise unknown("metric", word, [*METRICS, *PRESETS])
        found += preset(dashed) if dashed in PRESETS else [word]
    return tuple(dict.fromkeys(found))


def prepare(
    ids: Sequence[str], specs: Mapping[str, str], given: frozenset[str] = frozenset(), device: str = "cpu"
) -> tuple[dict[str, Ready], dict[str, str]]:
    """Load the backends of all metrics: (ready ones, reasons of the others). A role is loaded once.

    Metrics that can work from outside results of a kind in `given` load none, unless one is named for them.
    """
    loaded: dict[tuple[str, str], Any] = {}
    ready: dict[str, Ready] = {}
    missing: dict[str, str] = {}
    for name in ids:
        cls = metric(name)
        from_file = cls.given in given and not cls.backends.keys() & specs.keys()
        wanted = {} if from_file else {role: specs.get(role, default) for role, default in cls.backends.items()}
        wanted |= {role: specs[role] for role in cls.optional if role in specs}
        try:
            for item in wanted.items():
                if item not in loaded:
                    loaded[item] = resolve(*item, device)
        except Unavailable as reason:
            missing[name] = str(reason)
            continue
        backends = {role: loaded[role, spec] for role, spec in wanted.items()}
        label = ",".join(f"{role}={getattr(b, 'id', wanted[role])}" for role, b in sorted(backends.items()))
        same = all(getattr(b, "comparable", True) for b in backends.values())
        ready[name] = Ready(cls, backends, label or ("given" if from_file else "none"), cls.info.comparable and same)
    return ready, missing


def process() -> tuple[int, int]:
    """(rank, number of processes), as `accelerate launch` and torchrun set them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def evaluate(request: Request, tick: Callable[[str], None] = lambda _: None) -> Evaluation | None:
    """Score every video by every metric; earlier results of the same file, metric and backend are taken over.

    Under `accelerate launch` each process scores its share and writes its own part; process 0 returns the whole,
    the others None. The result is the same for any number of processes.

    Args:
        tick: called with the path of each video that is done.
    """
    rank, world = process()
    if world > 1 and request.out is None:
        raise BadInput("several processes need -o DIR to hand their results together")
    ready, missing = prepare(_with_static(request), request.specs, frozenset(request.known.given), request.device)
    journal = Journal(request.out / RESULTS if request.out else None)
    for part in sorted(request.out.glob("results.*.part.jsonl")) if request.out else ():
        journal.records |= Journal(part).records  # left by processes that were interrupted
    mine = Journal(request.out / f"results.{rank}.part.jsonl" if request.out and world > 1 else journal.path)
    mine.records = journal.records
    done: list[Record] = []
    skipped: dict[str, str] = {}
    for path in _paths(request, ready)[rank::world]:
        try:
            done += _score_one(path, request, ready, mine)
        except BadInput as reason:
            skipped[str(path)] = str(reason).removeprefix(f"{path}: ")
        tick(str(path))
    if world > 1:
        gathered = _gather(request, done, skipped, rank, world)
        if gathered is None:
            return None
        done, skipped = gathered
    if request.out is not None:
        fresh = {r.key for r in done}
        kept = [r for r in journal.records.values() if r.key not in fresh]
        request.out.mkdir(parents=True, exist_ok=True)
        write(request.out / RESULTS, kept + done)
    return summarise(request, done, skipped, missing)


def _with_static(request: Request) -> tuple[str, ...]:
    extra = ("static_classical",) if request.static_only and "static_classical" not in request.metrics else ()
    return request.metrics + extra


def _paths(request: Request, ready: Mapping[str, Ready]) -> list[Path]:
    """The videos, and after them the reference set where a metric compares whole sets."""
    sets = any(r.cls.corpus for r in ready.values())
    return list(dict.fromkeys([*request.videos, *(request.known.reference if sets else ())]))


def _score_one(path: Path, request: Request, ready: Mapping[str, Ready], journal: Journal) -> list[Record]:
    if path not in request.videos:
        ready = {name: r for name, r in ready.items() if r.cls.corpus}
    video = describe(path, request.known)
    digest = file_hash(path)
    records: dict[str, Record] = {}
    todo: dict[str, Record] = {}
    for name, r in ready.items():
        dimension = name.removesuffix("_long")
        if video.dimensions is not None and dimension in QUALITY + SEMANTIC and dimension not in video.dimensions:
            continue
        blank = make(video, digest, r.cls, r.backend, r.comparable, Score.none("not scored"))
        old = journal.find(blank)
        (records if old else todo)[name] = old or blank
    if todo:
        fresh = score(video, {name: (ready[name].cls, ready[name].backends) for name in todo})
        new = {name: replace(todo[name], score=s) for name, s in fresh.items()}
        journal.append(new.values())
        records |= new
    return [records[name] for name in ready if name in records]


def _gather(
    request: Request, done: list[Record], skipped: dict[str, str], rank: int, world: int
) -> tuple[list[Record], dict[str, str]] | None:
    """Every process's results in process 0, by way of files in the output folder."""
    import json

    from accelerate import PartialState

    assert request.out is not None
    request.out.mkdir(parents=True, exist_ok=True)
    write(request.out / f"gather.{rank}.jsonl", done)
    (request.out / f"gather.{rank}.json").write_text(json.dumps(skipped), encoding="utf-8")
    PartialState(cpu=True).wait_for_everyone()
    if rank:
        return None
    records: list[Record] = []
    reasons: dict[str, str] = {}
    for r in range(world):
        records += read(request.out / f"gather.{r}.jsonl")
        reasons |= json.loads((request.out / f"gather.{r}.json").read_text(encoding="utf-8"))
        for name in (f"gather.{r}.jsonl", f"gather.{r}.json", f"results.{r}.part.jsonl"):
            (request.out / name).unlink(missing_ok=True)
    return records, reasons


def summarise(
    request: Request, records: Sequence[Record], skipped: Mapping[str, str], missing: Mapping[str, str]
) -> Evaluation:
    """Corpus scores from records alone, in the order of path: nothing else can change them."""
    ordered = sorted(records, key=lambda r: (r.path, r.metric))
    allowed = _static_paths(request, ordered) if request.static_only else None
    wanted, reference = ({str(p) for p in paths} for paths in (request.videos, request.known.reference))
    summary: dict[str, Score] = {}
    for name in request.metrics:
        mine = [r for r in ordered if r.metric == name and r.path in wanted]
        if name == "temporal_flickering" and allowed is not None:
            mine = [r for r in mine if r.path in allowed]
        if mine and metric(name).corpus:
            other = [r.score for r in ordered if r.metric == name and r.path in reference]
            summary[name] = metric(name).against([r.score for r in mine], other)
        elif mine:
            summary[name] = metric(name).summarise([r.score for r in mine])
    shown = tuple(r for r in ordered if r.metric in request.metrics and r.path in wanted)
    return Evaluation(shown, dict(skipped), dict(missing), summary, tuple(sorted(wanted)))


def _static_paths(request: Request, records: Sequence[Record]) -> set[str]:
    """VBench's standard mode: of each prompt's videos the first five that are static."""
    from longgen.metrics.videos import SAMPLE_NUMBER

    kept: dict[str, list[str]] = {}
    for r in records:
        if r.metric == "static_classical" and r.score.value == 1:
            kept.setdefault(SAMPLE_NUMBER.sub("", Path(r.path).stem), []).append(r.path)
    return {path for paths in kept.values() for path in paths[:5]}
