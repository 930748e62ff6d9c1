"""Docs tables out of recorded rows: what stands between `<!-- table: NAME -->` and `<!-- end -->` is written here.

Knows rows and Markdown. A test fails when a page and the rows disagree.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from longgen.bench import quality_tables, speed_tables, story_tables
from longgen.bench.markdown import Row, load, table

MARK = re.compile(r"(<!-- table: (?P<name>[\w-]+)(?P<args>[^>]*) -->\n)(?P<body>.*?)(<!-- end -->)", re.S)


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


# ------------------------------------------------------------------------------------------------- model


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


def methods(folder: Path, args: list[str]) -> list[str]:
    """Every method and named composition: what it is, which slots it fills, what it costs."""
    from longgen import registry

    def cells(name: str) -> list[str]:
        info = registry.method(name).info
        page = f"[`{name}`]({name}.md)"
        paper = f"[{info.paper}](https://arxiv.org/abs/{info.paper})" if info.paper[:1].isdigit() else info.paper or "–"
        return [page, info.title, " ".join(info.slots), info.cost, paper]

    def composed(name: str, parts: str, settings: dict[str, Any]) -> list[str]:
        given = " ".join(f"{key}={value:g}" for key, value in settings.items())
        return [f"[`{name}`]({name}.md)", f"`{parts}` with `{given}`", "", "", "–"]

    body = [cells(name) for name in registry.METHODS]
    body += [composed(name, *told) for name, told in registry.COMPOSITIONS.items()]
    return table(("method", "what it does", "slots", "cost", "paper"), body)


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
    **quality_tables.TABLES,
    "model": model,
    "vae": vae,
    **speed_tables.TABLES,
    "matrix": matrix,
    "methods": methods,
    "laws": laws,
    "validation": validation,
    "doses": doses,
    "agreement": agreement,
    **story_tables.TABLES,
}
