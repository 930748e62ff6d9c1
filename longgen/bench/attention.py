"""Windowed against full attention, alone: the time ratio and what share of the ideal it is.

Interleaved pairs, so that a busy machine slows both sides alike. Knows engines and plans. Does not know models.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from longgen.attention import choose
from longgen.attention.cost import flops, pairs
from longgen.bench.rows import Rows
from longgen.types import Dense, FrameWindow


def sliding(frames: int, window: int, tokens: int) -> FrameWindow:
    """Query frame i sees the U frames from clamp(i − ⌊U/2⌋, 0, T − U) on."""
    starts = (min(max(i - window // 2, 0), frames - window) for i in range(frames))
    return FrameWindow(tokens, tuple((s, s + window) for s in starts))


def seconds(call: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    """Wall time and processor time of one call, finished on its device. On CUDA both are the device's time."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize(device)
        return (start.elapsed_time(end) / 1e3,) * 2
    began, used = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - began, time.process_time() - used


def measure(
    multiple: int,
    tokens: int = 240,
    window: int = 21,
    heads: int = 2,
    head_dim: int = 64,
    *,
    engine: str = "auto",
    full: str = "auto",
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    repeats: int = 5,
    seed: int = 0,
) -> dict[str, Any]:
    """Time attention over T = multiple·U latents in windows of U, against all pairs of frames.

    Args:
        multiple: length of the video in windows; the ideal time ratio.
        tokens: P. `window`: U in latents.
        engine, full: engines of the windowed and of the full side. Compare with the fastest full attention there is.
        repeats: interleaved pairs after one warm-up of each side.

    Returns:
        Minimum and median seconds of both sides, the ratio of the minima, the median of the paired ratios, the ratio of
        processor times (which other programs on the machine disturb less), the ideal, the share of it in percent (of
        the three ratios), achieved TFLOP/s, and on CUDA the peak memory in bytes.
    """
    where, frames = torch.device(device), multiple * window
    length, plan = frames * tokens, sliding(frames, window, tokens)
    draw = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(1, length, heads, head_dim, generator=draw).to(where, dtype) for _ in range(3))
    windowed, whole = (choose(name, where, dtype, head_dim, [plan]) for name in (engine, full))
    sides: tuple[Callable[[], Any], ...] = (
        lambda: windowed.attend(q, k, v, plan),
        lambda: whole.attend(q, k, v, Dense()),
    )
    for side in sides:
        seconds(side, where)
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
    times = [[seconds(side, where) for side in sides] for _ in range(repeats)]
    ours, theirs = ([t[i][0] for t in times] for i in range(2))
    our_cpu, their_cpu = (min(t[i][1] for t in times) for i in range(2))
    ideal = length**2 / pairs(plan, length, length)
    best, paired = min(theirs) / min(ours), statistics.median(b / a for a, b in zip(ours, theirs))
    return {
        "window_engine": windowed.name,
        "full_engine": whole.name,
        "window_s_min": min(ours),
        "window_s_median": statistics.median(ours),
        "full_s_min": min(theirs),
        "full_s_median": statistics.median(theirs),
        "ratio_min": best,
        "ratio_median": paired,
        "ratio_cpu_time": their_cpu / our_cpu,
        "ideal": ideal,
        "percent_of_ideal": 100 * best / ideal,
        "percent_of_ideal_median": 100 * paired / ideal,
        "percent_of_ideal_cpu_time": 100 * their_cpu / our_cpu / ideal,
        "window_tflops": flops(plan, length, length, heads, head_dim) / min(ours) / 1e12,
        "full_tflops": flops(Dense(), length, length, heads, head_dim) / min(theirs) / 1e12,
        "peak_bytes": torch.cuda.max_memory_allocated(where) if where.type == "cuda" else None,
        "repeats": repeats,
    }


def run(
    rows: Rows,
    multiples: Sequence[int] = (4, 8),
    tokens: int = 240,
    window: int = 21,
    heads: int = 2,
    head_dim: int = 64,
    engine: str = "auto",
    full: str = "auto",
    device: str = "cpu",
    dtype: str = "float32",
    repeats: int = 5,
) -> None:
    """Record windowed against full attention at each multiple that is not yet recorded; options as of `measure`."""
    shape = {"tokens": tokens, "window": window, "heads": heads, "head_dim": head_dim}
    for multiple in multiples:
        key = {"multiple": multiple, **shape, "engine": engine, "full": full, "device": device, "dtype": dtype}
        if not rows.has(**key):
            kind = getattr(torch, dtype)
            row = measure(multiple, **shape, engine=engine, full=full, device=device, dtype=kind, repeats=repeats)
            rows.add(key, row)
