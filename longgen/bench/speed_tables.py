"""Docs tables of what runs cost: sampling time, attention, start-up, memory, the hour. Knows rows and Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

from longgen.bench.markdown import Row, load, share, table


def speed(folder: Path, args: list[str]) -> list[str]:
    """Sampling seconds of every method at one length (`frames=N`) on one device (`device=cpu`), with their spread."""
    asked = {"device": "cpu", **dict(a.split("=") for a in args)}
    rows = [r for r in load(folder, "speed") if str(r["frames"]) == asked["frames"]]
    rows = [r for r in rows if r.get("device", "cpu").partition(":")[0] == asked["device"]]
    newest = {r["method"]: r for r in rows}
    head = ("method", "steps", "calls", "seconds, median (all rounds)", "ratio to plain", "by FLOPs", "% of ideal")
    return table((*head, "GFLOP/s"), (_speed_row(r) for r in newest.values()))


def _speed_row(row: Row) -> list[str]:
    name = f"`{row['method']}`"
    if "unavailable" in row:
        return [name, str(row["steps"]), "–", f"not available: {row['unavailable']}", *["–"] * 4]
    spread = f" ({row['seconds_min']:.1f}–{row['seconds_max']:.1f}, {row['rounds']})" if "seconds_max" in row else ""
    first = [name, str(row["steps"]), str(row.get("calls", "–")), f"{row['seconds_median']:.1f}{spread}"]
    ratio = [f"{row['ratio_to_plain']:.2f}" if "ratio_to_plain" in row else "–"]
    ideal = [f"{row['ideal_ratio']:.2f}", f"{row['percent_of_ideal']:.0f}"] if "ideal_ratio" in row else ["–", "–"]
    rate = f"{row['gflops_per_second']:.1f}" if "gflops_per_second" in row else "–"
    return [*first, *ratio, *ideal, rate]


def attention(folder: Path, args: list[str]) -> list[str]:
    """Windowed against full attention alone."""
    head = ("tokens per latent", "window", "heads × channels", "device", "multiple", "windows (s)", "full (s)", "ratio")

    def cells(r: Row) -> list[str]:
        shape = [str(r["tokens"]), str(r["window"]), f"{r['heads']} × {r['head_dim']}", f"{r['device']} {r['dtype']}"]
        times = [f"{r['window_s_median']:.3g}", f"{r['full_s_median']:.3g}"]
        ratios = f"{r['ratio_median']:.2f} (best {r['ratio_min']:.2f}) of {r['ideal']:.2f}"
        return [*shape, f"{r['multiple']}×", *times, ratios, f"{r['percent_of_ideal_median']:.0f} %"]

    return table((*head, "of the ideal"), (cells(r) for r in load(folder, "attention")))


def forward(folder: Path, args: list[str]) -> list[str]:
    """Whole forwards: seconds, and how often faster than the fastest full attention that the machine has."""
    head = ("model", "device", "multiple", "side", "seconds, median (least–most)", "× full", "by FLOPs", "of the ideal")
    rows = load(folder, "forward")
    body = []
    for row in rows:
        first = [row["model"], f"{row['device']} {row['dtype']}{' compiled' if row['compiled'] else ''}"]
        first += [f"{row['multiple']}×", f"`{row['side']}`"]
        if "unavailable" in row:
            body.append([*first, f"not available: {row['unavailable']}", "–", "–", "–"])
            continue
        like = ("model", "device", "dtype", "multiple", "layers")
        full = [r for r in rows if r["side"].startswith("full") and all(r[n] == row[n] for n in like) and "flops" in r]
        spread = f"{row['seconds_median']:.3g} ({row['seconds_min']:.3g}–{row['seconds_max']:.3g})"
        best = min(full, key=lambda r: r["seconds_median"], default=None)
        if best is None:
            body.append([*first, spread, "–", "–", "–"])
            continue
        ratio, ideal = best["seconds_median"] / row["seconds_median"], best["flops"] / row["flops"]
        body.append([*first, spread, f"{ratio:.2f}", f"{ideal:.2f}", f"{100 * ratio / ideal:.0f} %"])
    return table(head, body)


def startup(folder: Path, args: list[str]) -> list[str]:
    """Seconds until a command is there."""
    head = ("what", "seconds, median (least–most)", "processor seconds", "runs")

    def cells(r: Row) -> list[str]:
        spread = f"{r['seconds_median']:.2f} ({min(r['seconds']):.2f}–{max(r['seconds']):.2f})"
        return [f"`{r['command_timed']}`", spread, f"{r['cpu_median']:.2f}", str(r["rounds"])]

    return table(head, (cells(r) for r in load(folder, "startup")))


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
    head = ["method", "frames", "minutes", "kept", "colour", "shape", "background", "motion", "jumps per minute"]
    head += ["process, largest minute", "process, last tenth", "live tensors", "processor time (min)", "processes"]

    def cells(row: Row) -> list[str]:
        read = list(row["minutes"].values())
        agreed = [f"{statistics.fmean(m[n] for m in read):.3f}" for n in ("colour", "shape", "background", "motion")]
        jumps = f"{statistics.fmean(m['jumps'] for m in read):.1f}"
        grown = [f"{g:+.1f} %" for g in (row["rss_growth_percent"], _trend(row), row["held_growth_percent"])]
        minutes = [str(row["count"]), share(row["kept"], row["count"])]
        last = [f"{row['cpu_seconds'] / 60:.0f}", str(row["processes"])]
        return [f"`{row['method']}`", str(row["frames"]), *minutes, *agreed, jumps, *grown, *last]

    return table(head, (cells(r) for r in load(folder, "hour")))


def _trend(row: Row) -> float:
    """Percent by which a process is larger in the last tenth of its minutes than in the first tenth after minute 1."""
    sizes = [row["minutes"][str(n)]["rss_mib"] for n in range(1, row["count"])]
    tenth = max(1, len(sizes) // 10)
    return 100 * (statistics.fmean(sizes[-tenth:]) / statistics.fmean(sizes[:tenth]) - 1) if sizes else 0.0


def hour_minutes(folder: Path, args: list[str]) -> list[str]:
    """Some minutes of every long run."""
    head = ("method", "minute", "kept", "shape", "motion", "jumps", "size", "colour (R G B)", "process (MiB)")
    body = []
    for row in load(folder, "hour"):
        for number in sorted(map(int, row["minutes"])):
            if number % 10 == 0 or number + 1 == row["count"]:
                body.append(_minute(row, number))
    return table(head, body)


def _minute(row: Row, number: int) -> list[str]:
    read = row["minutes"][str(number)]
    seen = read["identity"] or {}
    colour = " ".join(f"{c:.2f}" for c in seen.get("colour", ())) or "–"
    size = f"{seen['size']:.3f}" if seen else "–"
    figures = [f"{read['shape']:.2f}", f"{read['motion']:.2f}", str(read["jumps"]), size, colour]
    return [f"`{row['method']}`", str(number + 1), "yes" if read["kept"] else "no", *figures, f"{read['rss_mib']:.0f}"]


TABLES: dict[str, Callable[[Path, list[str]], list[str]]] = {
    "speed": speed,
    "attention": attention,
    "forward": forward,
    "startup": startup,
    "memory": memory,
    "hour": hour,
    "hour-minutes": hour_minutes,
}
