"""Docs tables of `bench quality`: what every method does at a length, and which ones the rows cannot tell apart."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

from longgen.bench.markdown import Row, half_interval, load, share, table
from longgen.bench.quality import idle


def _videos(row: Row) -> dict[int, Row]:
    return {int(i): v for i, v in row["videos"].items()}


def _mean(values: list[float]) -> str:
    """Mean ± half a 95 % interval."""
    if len(values) < 2:
        return "–"
    return f"{statistics.fmean(values):.3f} ± {half_interval(values):.3f}"


def quality(folder: Path, args: list[str]) -> list[str]:
    """One length (`frames=N`): every method, means with intervals, and path drift paired with `direct`; of the prompts
    for choosing with `rows=choosing`."""
    asked = {"rows": "quality", **dict(a.split("=") for a in args)}
    rows = [r for r in load(folder, asked["rows"]) if str(r["frames"]) == asked["frames"]]
    base = next((_videos(r) for r in rows if r["method"] == "direct"), {})
    head = ("method", "videos", "kept", "shape", "motion", "path drift", "paired with direct", "hue drift", "jumps")
    return table((*head, "frozen", "repetition"), (_quality_row(r, base) for r in rows))


def _quality_row(row: Row, base: dict[int, Row]) -> list[str]:
    videos = _videos(row)
    if idle(row["videos"]):
        return [f"`{row['method']}`", str(len(videos)), "the bits of `direct`", *["–"] * 8]
    read = list(videos.values())
    pairs = [(v, base[i]) for i, v in videos.items() if i in base and row["method"] != "direct"]
    both = [(_drift(a, "path"), _drift(b, "path")) for a, b in pairs]
    diffs = [a - b for a, b in both if a is not None and b is not None]
    return [
        f"`{row['method']}`",
        str(len(read)),
        share(sum(v["kept"] for v in read), len(read)),
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


Videos = dict[int, Row]
FIGURES = {"kept": 1.0, "path": -1.0, "jumps": -1.0}  # and which way is better


def ties(folder: Path, args: list[str]) -> list[str]:
    """By length: the methods that are not worse than the best in any figure, as far as the rows can tell."""
    rows = load(folder, "quality")
    lengths = sorted({r["frames"] for r in rows})

    def cells(frames: int) -> list[str]:
        read = {r["method"]: _videos(r) for r in rows if r["frames"] == frames and not idle(r["videos"])}
        most = max(len(videos) for videos in read.values())
        read = {name: videos for name, videos in read.items() if len(videos) == most}
        return [str(frames), str(most), " ".join(f"`{name}`" for name in unbeaten(read))]

    return table(("frames", "videos", "not told apart from the best"), (cells(n) for n in lengths))


def beside(folder: Path, args: list[str]) -> list[str]:
    """One method (`method=wide`) at one length, minus each of others (`against=a;b,c`), video by video."""
    asked = dict(a.split("=") for a in args)
    read = {r["method"]: _videos(r) for r in load(folder, "quality") if str(r["frames"]) == asked["frames"]}
    mine = read.get(asked["method"], {})

    def cells(name: str, theirs: Videos) -> list[str]:
        both = sorted(set(mine) & set(theirs))
        kept = (f"{sum(videos[i]['kept'] for i in both)}" for videos in (mine, theirs))
        gaps = []
        for figure in ("path", "jumps"):
            pairs = [(_figure(mine[i], figure), _figure(theirs[i], figure)) for i in both]
            gaps.append(_mean([a - b for a, b in pairs if a is not None and b is not None]))
        return [f"`{name}`", str(len(both)), *kept, *gaps]

    head = ("beside", "videos", "kept", "kept by it", "path drift, difference", "jumps, difference")
    return table(head, (cells(name, read[name]) for name in asked["against"].split(";") if mine and name in read))


def unbeaten(read: dict[str, Videos]) -> list[str]:
    """Figure by figure, drops methods whose paired difference to the best of the rest is surely worse (95 %)."""
    for figure, sign in FIGURES.items():
        means = {name: statistics.fmean(told) for name in read if (told := _figures(read[name].values(), figure))}
        if not means:
            continue
        best = max(means, key=lambda name: sign * means[name])
        read = {name: videos for name, videos in read.items() if not _worse(videos, read[best], figure, sign)}
    return list(read)


def _worse(mine: Videos, best: Videos, figure: str, sign: float) -> bool:
    pairs = [(_figure(mine[i], figure), _figure(best[i], figure)) for i in mine if i in best]
    gaps = [sign * (b - a) for a, b in pairs if a is not None and b is not None]
    return bool(gaps) and statistics.fmean(gaps) > half_interval(gaps)


def _figure(video: Row, figure: str) -> float | None:
    return _drift(video, figure) if figure == "path" else float(video[figure])


def _figures(videos: Iterable[Row], figure: str) -> list[float]:
    return [value for v in videos if (value := _figure(v, figure)) is not None]


TABLES: dict[str, Callable[[Path, list[str]], list[str]]] = {
    "quality": quality,
    "quality-ties": ties,
    "quality-beside": beside,
}
