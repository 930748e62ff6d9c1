"""Docs tables out of recorded rows: what stands between `<!-- table: NAME -->` and `<!-- end -->` is written here.

Knows rows and Markdown. A test fails when a page and the rows disagree.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from longgen.shapes.judge import wilson

Row = dict[str, Any]
MARK = re.compile(r"(<!-- table: (?P<name>[\w-]+)(?P<args>[^>]*) -->\n)(?P<body>.*?)(<!-- end -->)", re.S)


def load(folder: Path, kind: str) -> list[Row]:
    """Rows of one kind, in the order in which they were recorded."""
    path = folder / f"{kind}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def rewrite(folder: Path, docs: Path | None = None) -> list[str]:
    """Fill every table of every page (and the README) from the rows; returns the pages that changed."""
    docs = docs or folder.parent
    changed = []
    for page in [*sorted(docs.rglob("*.md")), docs.parent / "README.md"]:
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        fresh = filled(text, folder)
        if fresh != text:
            page.write_text(fresh, encoding="utf-8")
            changed.append(str(page.relative_to(docs.parent)))
    return changed


def filled(text: str, folder: Path) -> str:
    """The page with its tables made from the rows. An unknown table name is an error."""

    def fill(found: re.Match[str]) -> str:
        lines = TABLES[found["name"]](folder, found["args"].split())
        return found[1] + "\n".join(lines) + "\n" + found[5]

    return MARK.sub(fill, text)


def table(head: Iterable[str], body: Iterable[Iterable[str]]) -> list[str]:
    """A Markdown table, or a line that says that nothing was measured."""
    rows = [list(r) for r in body]
    if not rows:
        return ["Not measured."]
    columns = list(head)
    return [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *(f"| {' | '.join(r)} |" for r in rows)]


# ---------------------------------------------------------------------------------------------------------- quality


def _videos(row: Row) -> dict[int, Row]:
    return {int(i): v for i, v in row["videos"].items()}


def _mean(values: list[float]) -> str:
    """Mean ± half a 95 % interval (normal approximation)."""
    if len(values) < 2:
        return "–"
    half = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.fmean(values):.3f} ± {half:.3f}"


def _share(hits: int, count: int) -> str:
    low, high = wilson(hits, count)
    return f"{100 * hits / count:.0f} % ({100 * low:.0f}–{100 * high:.0f})"


def quality(folder: Path, args: list[str]) -> list[str]:
    """One length (`frames=N`): every method, means with intervals, and path drift paired with `direct`."""
    frames = int(dict(a.split("=") for a in args)["frames"])
    rows = [r for r in load(folder, "quality") if r["frames"] == frames]
    base = next((_videos(r) for r in rows if r["method"] == "direct"), {})
    head = ("method", "videos", "kept", "shape", "motion", "path drift", "paired with direct", "hue drift", "jumps")
    return table((*head, "frozen", "repetition"), (_quality_row(r, base) for r in rows))


def _quality_row(row: Row, base: dict[int, Row]) -> list[str]:
    videos = _videos(row)
    read = list(videos.values())
    pairs = [(v, base[i]) for i, v in videos.items() if i in base and row["method"] != "direct"]
    both = [(_drift(a, "path"), _drift(b, "path")) for a, b in pairs]
    diffs = [a - b for a, b in both if a is not None and b is not None]
    return [
        f"`{row['method']}`",
        str(len(read)),
        _share(sum(v["kept"] for v in read), len(read)),
        _mean([v["shape"] for v in read]),
        _mean([v["motion"] for v in read]),
        _mean([d for v in read if (d := _drift(v, "path")) is not None]),
        _mean(diffs) if diffs else "–",
        _mean([d for v in read if (d := _drift(v, "colour")) is not None]),
        f"{statistics.fmean(v['jumps'] for v in read):.2f}",
        f"{statistics.fmean(v['freeze'] for v in read):.1f}",
        f"{statistics.fmean(v['repetition'] for v in read):.2f}",
    ]


def _drift(video: Row, name: str) -> float | None:
    value = video["drift"].get(name)
    return None if value is None or value != value else float(value)


# ------------------------------------------------------------------------------------------------- model, speed, memory


def model(folder: Path, args: list[str]) -> list[str]:
    """Shares of the newest model's videos that keep each part of the prompt."""
    rows = [r for r in load(folder, "model") if r["part"] != "vae"]
    newest = rows[-1]["model_hash"] if rows else ""
    parts = ("background", "colour", "motion", "shape", "kept")

    def cells(row: Row) -> list[str]:
        shares = [f"{row[p]['percent']:.1f} % ({row[p]['interval'][0]:.0f}–{row[p]['interval'][1]:.0f})" for p in parts]
        return [row["part"].replace("_", " "), str(row["count"]), *shares]

    return table(("combinations", "prompts", *parts), (cells(r) for r in rows if r["model_hash"] == newest))


def vae(folder: Path, args: list[str]) -> list[str]:
    """Reconstruction of rendered truth by the newest model's VAE."""
    rows = [r for r in load(folder, "model") if r["part"] == "vae"]
    newest = rows[-1]["model_hash"] if rows else ""
    head = ("frames", "PSNR (dB)", "first 33 frames", "last 33 frames")
    body = (
        [str(r["frames"]), *(f"{r[k]:.1f}" for k in ("psnr", "psnr_first_33", "psnr_last_33"))]
        for r in rows
        if r["model_hash"] == newest
    )
    return table(head, body)


def speed(folder: Path, args: list[str]) -> list[str]:
    """Sampling seconds of every method and the ratio to the plain diffusers loop."""
    rows = load(folder, "speed")
    head = ("method", "frames", "steps", "calls", "sampling (s, median)", "ratio to plain diffusers", "decoding (s)")

    def cells(r: Row) -> list[str]:
        decode = "–" if r["decode_seconds"] is None else f"{r['decode_seconds']:.1f}"
        figures = [str(r["frames"]), str(r["steps"]), str(r["calls"]), f"{r['seconds_median']:.1f}"]
        return [f"`{r['method']}`", *figures, f"{r['ratio_to_plain']:.2f}", decode]

    return table(head, (cells(r) for r in rows))


def memory(folder: Path, args: list[str]) -> list[str]:
    """Peak MiB that the loop holds, by length."""
    rows = load(folder, "memory")
    lengths = sorted({r["frames"] for r in rows})
    by = {(r["method"], r["frames"]): f"{r['peak_mib']:.2f}" for r in rows}
    names = list(dict.fromkeys(r["method"] for r in rows))
    return table(
        ("method", *(f"{n} frames" for n in lengths)),
        ([f"`{m}`", *(by.get((m, n), "–") for n in lengths)] for m in names),
    )


def hour(folder: Path, args: list[str]) -> list[str]:
    """One line per long run: what the judge read in its minutes, and how memory grew after the first of them."""
    head = ("method", "frames", "minutes", "kept", "colour", "shape", "background", "motion", "jumps per minute")
    head += ("growth of the process", "growth of live tensors", "processor time (min)", "processes")

    def cells(row: Row) -> list[str]:
        read = list(row["minutes"].values())
        shares = [f"{statistics.fmean(m[n] for m in read):.3f}" for n in ("colour", "shape", "background", "motion")]
        jumps = f"{statistics.fmean(m['jumps'] for m in read):.1f}"
        grown = [f"{row[n]:.1f} %" for n in ("rss_growth_percent", "held_growth_percent")]
        minutes = [str(row["count"]), _share(row["kept"], row["count"])]
        last = [f"{row['cpu_seconds'] / 60:.0f}", str(row["processes"])]
        return [f"`{row['method']}`", str(row["frames"]), *minutes, *shares, jumps, *grown, *last]

    return table(head, (cells(r) for r in load(folder, "hour")))


def hour_minutes(folder: Path, args: list[str]) -> list[str]:
    """Some minutes of every long run, side by side."""
    head = ("method", "minute", "kept", "shape", "motion", "jumps", "size", "colour (R G B)", "process (MiB)")
    body = []
    for row in load(folder, "hour"):
        for number in sorted(map(int, row["minutes"])):
            if number % 10 and number + 1 != row["count"]:
                continue
            m = row["minutes"][str(number)]
            seen = m["identity"] or {}
            colour = " ".join(f"{c:.2f}" for c in seen.get("colour", ()))
            size = f"{seen['size']:.3f}" if seen else "–"
            figures = [f"{m['shape']:.2f}", f"{m['motion']:.2f}", str(m["jumps"]), size, colour or "–"]
            kept = "yes" if m["kept"] else "no"
            body.append([f"`{row['method']}`", str(number + 1), kept, *figures, f"{m['rss_mib']:.0f}"])
    return table(head, body)


# ---------------------------------------------------------------------------------------------------------- metrics

CHANGES = ("crf18", "half size", "half rate")


def _asked(args: list[str]) -> str:
    return dict(a.split("=") for a in args).get("metric", "")


def _of_metric(rows: list[Row], metric: str) -> list[Row]:
    """Rows of one metric, of all drifts ("drift"), or all rows ("")."""
    return [r for r in rows if metric in ("", r["metric"]) or (metric == "drift" and r["metric"].startswith("drift_"))]


def validation(folder: Path, args: list[str]) -> list[str]:
    """One line per metric and fault (`metric=NAME` for one, `metric=drift` for all drifts)."""
    metric = _asked(args)
    head = (
        "metric",
        "fault",
        "rises with the dose",
        "AUC at dose 2",
        "segments",
        "effect of dose 2",
        *CHANGES,
        "passes",
    )
    return table(head, [_validated(r) for r in _of_metric(load(folder, "metrics"), metric)])


def _validated(row: Row) -> list[str]:
    failed = [name for name, good in row["passes"].items() if not good]
    abstained = f" ({row['abstained']} without a value)" if row["abstained"] else ""
    return [
        f"`{row['metric']}`",
        row["fault"],
        f"{row['monotone']} of {row['clips_scored']} clips",
        "–" if row["auc"] is None else f"{row['auc']:.3f}",
        f"{row['segments']}{abstained}",
        f"{row['effect']:.3g}",
        *(_shift(row, change) for change in CHANGES),
        "yes" if not failed else f"**no: {', '.join(failed)}**",
    ]


def _shift(row: Row, change: str) -> str:
    value = row["shift"].get(change)
    text = "–" if value is None else f"{100 * value:.1f} %"
    return f"{text} (not claimed)" if change in row["exempt"] else text


def doses(folder: Path, args: list[str]) -> list[str]:
    """The median over the clips of every metric at doses 0-5, and the doses themselves."""
    metric = _asked(args)
    body = []
    for row in _of_metric(load(folder, "metrics"), metric):
        columns = zip(*(v for v in row["clips"].values() if None not in v))
        medians = [sorted(c)[len(c) // 2] for c in columns]
        body.append(
            [f"`{row['metric']}`", row["fault"], ", ".join(map(str, row["doses"])), *(f"{m:.3g}" for m in medians)]
        )
    return table(["metric", "fault", "doses", "clean", "1", "2", "3", "4", "5"], [b for b in body if len(b) == 9])


def agreement(folder: Path, args: list[str]) -> list[str]:
    """Rank correlation with the exact judge."""
    metric = _asked(args)
    body = []
    for row in _of_metric(load(folder, "metrics-judge"), metric):
        rho = row["rho"]
        verdict = "no value" if rho is None else ("yes" if rho * row["expected"] >= 0.5 else "**no**")
        size = "size of " if row["size"] else ""
        figures = ["–" if rho is None else f"{rho:+.2f}", str(row["n"]), verdict]
        body.append([f"{size}`{row['metric']}`", row["truth"], "+" if row["expected"] > 0 else "−", *figures])
    return table(["metric", "what the judge reads", "expected", "Spearman ρ", "videos", "|ρ| ≥ 0.5 as expected"], body)


def matrix(folder: Path, args: list[str]) -> list[str]:
    """Which method runs on which checkpoint, from declarations; a number stands for the reason below the table."""
    from longgen import registry
    from longgen.models import describe
    from longgen.runtime.matrix import refusal

    infos = {info.id.rpartition("/")[2].removesuffix("-Diffusers"): info for info in describe.catalogue()}
    reasons: list[str] = []

    def cell(method: str, variant: str) -> str:
        why = refusal(method, infos[variant])
        if why is None:
            return "✓"
        why = why.partition(": ")[2] or why
        if why not in reasons:
            reasons.append(why)
        return f"no ({reasons.index(why) + 1})"

    lines = table(("method", *infos), ([f"`{m}`", *(cell(m, v) for v in infos)] for m in registry.METHODS))
    return [*lines, "", *(f"{i}. {why}" for i, why in enumerate(reasons, 1))]


def laws(folder: Path, args: list[str]) -> list[str]:
    """Law × method, from declarations: ✓ holds, with its settings; e exempt, with the reason below."""
    from longgen import registry
    from longgen.laws import LAWS

    infos = {name: registry.method(name).info for name in registry.METHODS}

    def cell(law: str, name: str) -> str:
        info = infos[name]
        if law in info.laws:
            return "✓" + "".join(f" {k} {v}" for k, v in info.laws[law].items())
        return "e" if law in info.exempt else ""

    lines = table(("law", *(f"`{n}`" for n in infos)), ([f"`{law}`", *(cell(law, n) for n in infos)] for law in LAWS))
    exempt = [f"- `{n}`, {law}: {why}" for n, info in infos.items() for law, why in info.exempt.items()]
    return [*lines, "", *exempt]


TABLES: dict[str, Callable[[Path, list[str]], list[str]]] = {
    "quality": quality,
    "model": model,
    "vae": vae,
    "speed": speed,
    "memory": memory,
    "hour": hour,
    "hour-minutes": hour_minutes,
    "matrix": matrix,
    "laws": laws,
    "validation": validation,
    "doses": doses,
    "agreement": agreement,
}
