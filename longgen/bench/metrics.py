"""Cost of all weight-free metrics: seconds per frame and peak memory against length, one pass over the file.

The video is procedural (a drifting texture with a moving disc), written by our own writer. Each length is
scored in a fresh process, so that its peak resident memory is its own.
"""

from __future__ import annotations

import multiprocessing
import re
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from longgen.bench.rows import Rows, listed
from longgen.media import VideoWriter

LENGTHS = (125, 1000)
FPS = 24.0
WINDOW = 125


def run(rows: Rows, lengths: str = "", size: str = "848x480") -> None:
    """Score `lengths` (semicolon-separated frame counts) by every metric of the presets vbench-free and long.

    What metrics keep of a video is a bounded number of descriptors (1,024), whatever the size of its frames: memory
    grows up to that length and is flat after it, which a small `size` shows quickly.
    """
    width, height = (int(n) for n in size.split("x"))
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for frames in [int(n) for n in listed(lengths)] or LENGTHS:
            video = make_video(Path(folder) / f"{frames}.mp4", frames, width, height)
            with context.Pool(1) as pool:
                values = pool.apply(measure, (str(video),))
            rows.add({"frames": frames, "size": size}, values)


def measure(path: str) -> dict[str, Any]:
    """Time (by the clock, and of all threads) and growth of peak resident memory of one scoring, in this process."""
    from longgen.media import open_video
    from longgen.metrics import metric
    from longgen.metrics.base import Metric, Video, score
    from longgen.metrics.evaluate import names

    ids = names("vbench-free,long")
    classes: dict[str, tuple[type[Metric], dict[str, Any]]] = {name: (metric(name), {}) for name in ids}
    reader = open_video(path)
    edges = tuple(range(WINDOW, len(reader), WINDOW))
    video = Video(reader, prompt="a disc", boundaries=edges, shots=((0, "a disc"),))
    before, start, busy = peak_mib(), time.perf_counter(), time.process_time()
    scores = score(video, classes)
    seconds, cpu = time.perf_counter() - start, time.process_time() - busy
    return {
        "metrics": len(ids),
        "without_value": [name for name, s in scores.items() if s.value is None],
        "seconds": seconds,
        "cpu_seconds": cpu,
        "cpu_ms_per_frame": 1000 * cpu / len(reader),
        "peak_growth_mib": peak_mib() - before,
        "peak_mib": peak_mib(),
    }


def peak_mib() -> float:
    """Peak resident memory of this process so far, MiB.

    From the kernel's own count: `ru_maxrss` also remembers the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def make_video(path: Path, frames: int, width: int, height: int) -> Path:
    """A texture that drifts by two pixels a frame, with a disc that circles and slowly brightens."""
    noise = np.random.default_rng(0).random((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    low, high = float(smooth.min()), float(smooth.max())
    base: NDArray[np.uint8] = ((smooth - low) / (high - low) * 200).astype(np.uint8)
    with VideoWriter(path, FPS) as writer:
        for t in range(frames):
            frame = np.roll(base, 2 * t, axis=1)
            angle = 2 * np.pi * t / 100
            centre = (int(width / 2 + height / 3 * np.cos(angle)), int(height / 2 + height / 3 * np.sin(angle)))
            cv2.circle(frame, centre, height // 8, (230, 60, min(250, 40 + t // 8)), -1, cv2.LINE_AA)
            writer.write(frame)
    return path
