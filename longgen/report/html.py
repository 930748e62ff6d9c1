"""The HTML report of an evaluation: one self-contained file. Knows records and pictures, no formula.

A metric puts what should be drawn into its score's extras:

* ``curves``: {name: {"t": seconds [n], "y": values [n]}}, drawn over time with the window boundaries marked; with
  ``"axis": "lag, s"`` beside them the horizontal axis is that instead and bears no marks,
* ``matrix``: {"t": seconds [n], "values": [n][n]}, a self-similarity matrix, drawn as a picture (n at most about 128),
* ``bars``: {"labels": [n], "y": [n]}.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longgen import __version__
from longgen.errors import BadInput
from longgen.media import open_video
from longgen.media.sheet import sheet_times
from longgen.metrics import metric
from longgen.metrics.evaluate import Evaluation
from longgen.metrics.records import Record
from longgen.metrics.videos import boundaries_of, sidecar_of
from longgen.report.console import ARROWS, interval, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DETAILED = 60
"""Videos that get pictures and plots; the others stand in the table only, and the report says so."""
INK, MARK, LINE = "#22262b", "#c2571a", "#2a6fb0"


@dataclass(frozen=True)
class VideoPart:
    """One video's section: thumbnails as data URIs with their captions, plots as SVG text."""

    name: str
    link: str
    facts: str
    scores: tuple[tuple[str, str, str, str], ...]
    thumbs: tuple[tuple[str, str], ...]
    plots: tuple[str, ...]


def write_report(result: Evaluation, out: Path) -> Path:
    """Write the report; videos are linked relative to it. Replaces an earlier report of the same folder."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    env = Environment(loader=PackageLoader("longgen.report", "."), autoescape=select_autoescape(default=True))
    by_path: dict[str, list[Record]] = {p: [] for p in result.paths}
    for record in result.records:
        by_path[record.path].append(record)
    scored = [(path, rows) for path, rows in by_path.items() if rows]
    page = env.get_template("report.html.j2").render(
        version=__version__,
        summary=[_summary_row(name, score) for name, score in result.summary.items()],
        videos=[_part(Path(path), rows, out) for path, rows in scored[:DETAILED]],
        hidden=max(0, len(scored) - DETAILED),
        table=_table(result, [p for p, _ in scored]),
        skipped=result.skipped,
        unavailable=result.unavailable,
    )
    part = out.with_name(f".{out.name}.part")
    part.write_text(page, encoding="utf-8")
    os.replace(part, out)
    return out


def _summary_row(name: str, score: Any) -> dict[str, str]:
    info = metric(name).info
    return {
        "id": name,
        "arrow": ARROWS[info.better],
        "title": info.title,
        "value": number(score.value),
        "interval": interval(score.ci) if score.value is not None else (score.reason or ""),
        "n": str(score.n),
        "comparable": "VBench" if info.comparable else "",
    }


def _table(result: Evaluation, paths: Sequence[str]) -> dict[str, Any]:
    names = list(result.summary)
    cells = {(r.path, r.metric): r.score for r in result.records}
    rows = [(Path(p).name, [_cell(cells.get((p, n))) for n in names]) for p in paths]
    return {"names": names, "rows": rows}


def _cell(score: Any) -> tuple[str, str]:
    return ("", "not asked for") if score is None else (number(score.value), score.reason or "")


def _part(path: Path, records: Sequence[Record], out: Path) -> VideoPart:
    boundaries = boundaries_of(sidecar_of(path)) or ()
    fps = records[0].fps
    scores = tuple(
        (r.metric, number(r.score.value), interval(r.score.ci), r.score.reason or metric(r.metric).info.title)
        for r in records
    )
    return VideoPart(
        name=path.name,
        link=os.path.relpath(path, out.parent),
        facts=f"{records[0].frames} frames, {fps:g} fps, {records[0].frames / fps:.1f} s, {len(boundaries)} boundaries",
        scores=scores,
        thumbs=_thumbs(path),
        plots=tuple(_plots(records, [b / fps for b in boundaries])),
    )


def _thumbs(path: Path, count: int = 8, width: int = 144) -> tuple[tuple[str, str], ...]:
    from PIL import Image

    try:
        reader = open_video(path)
        thumbs = []
        for index in sheet_times(len(reader), count):
            picture = Image.fromarray(reader.window(index, index + 1)[0])
            picture = picture.resize((width, max(1, round(picture.height * width / picture.width))))
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=80)
            uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
            thumbs.append((uri, f"{index / reader.info.fps:.1f} s"))
        return tuple(thumbs)
    except BadInput:  # the video moved or changed since it was scored from the cache; its numbers still stand
        return ()


def _plots(records: Sequence[Record], marks: Sequence[float]) -> list[str]:
    plots = []
    for r in records:
        for name, curve in r.score.extras.get("curves", {}).items():
            plots.append(_svg(lambda ax, c=curve: _curve(ax, c, marks), f"{r.metric}: {name}"))
        if "matrix" in r.score.extras:
            plots.append(_svg(lambda ax, m=r.score.extras["matrix"]: _matrix(ax, m, marks), r.metric, square=True))
        if "bars" in r.score.extras:
            plots.append(_svg(lambda ax, b=r.score.extras["bars"]: _bars(ax, b), r.metric))
    return plots


def _curve(ax: Axes, curve: Mapping[str, Any], marks: Sequence[float]) -> None:
    for mark in () if "axis" in curve else marks:
        ax.axvline(mark, color=MARK, linewidth=0.8, linestyle="--")
    ax.plot(curve["t"], curve["y"], color=LINE, linewidth=1.2)
    ax.set_xlabel(curve.get("axis", "s"))
    ax.ticklabel_format(axis="y", useOffset=False)


def _matrix(ax: Axes, matrix: Mapping[str, Any], marks: Sequence[float]) -> None:
    values, end = np.asarray(matrix["values"], dtype=float), float(matrix["t"][-1])
    ax.imshow(values, origin="lower", extent=(0, end, 0, end), cmap="viridis", interpolation="nearest")
    for mark in marks:
        ax.axvline(mark, color="white", linewidth=0.6, linestyle="--")
    ax.set_xlabel("s")


def _bars(ax: Axes, bars: Mapping[str, Any]) -> None:
    ax.bar([str(x) for x in bars["labels"]], bars["y"], color=LINE)


def _svg(draw: Any, title: str, square: bool = False) -> str:
    """One small figure as SVG text; the same data give the same text."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "longgen", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(2.6, 2.4) if square else (4.6, 1.9), layout="constrained")
        ax = figure.add_subplot()
        draw(ax)
        ax.set_title(title, fontsize=8, color=INK)
        ax.tick_params(labelsize=7)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
