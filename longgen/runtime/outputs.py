"""Which files a command writes: one prompt or many, one sample or several. Knows names, not videos."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from longgen.config import Naming, read_text
from longgen.errors import BadInput

NAME_BYTES = 255  # longest file name of the usual file systems


@dataclass(frozen=True)
class Item:
    """One video to make. `sample` is added to the seed."""

    prompt: str
    sample: int
    path: Path | None


def read_prompts(path: Path) -> list[str]:
    """One prompt per line; blank lines and lines that begin with # are skipped."""
    lines = [line.strip() for line in read_text(path, "prompt file").splitlines()]
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise BadInput(f"prompt file {path} holds no prompt; write one per line")
    return prompts


def expand(
    prompts: list[str], samples: int, out: str | None, naming: Naming, codec: str | None, many: bool
) -> list[Item]:
    """Every video that the command makes, with its path (None without an output).

    Args:
        out: a file for a single video, or a folder ending in `/` (or existing) for any number.
        many: the prompts came from a file, so `out` must be a folder even for one.
    Names in a folder: `0000.mp4` by index (`0000-1.mp4` with several samples), or `<prompt>-<i>.mp4` for VBench, where
    `/` becomes `_`, a prompt that occurs again goes on counting, and a name over 255 bytes is cut and given a hash.
    """
    if samples < 1:
        raise BadInput(f"--samples must be 1 or more (got {samples})")
    pairs = [(prompt, sample) for prompt in prompts for sample in range(samples)]
    if out is None:
        return [Item(prompt, sample, None) for prompt, sample in pairs]
    folder = out.endswith(("/", os.sep)) or (Path(out).is_dir() and codec != "png")
    if not folder:
        if many or len(pairs) > 1:
            raise BadInput(f"{len(pairs)} videos need a folder: -o {out.rstrip('/')}/")
        return [Item(prompt, sample, Path(out)) for prompt, sample in pairs]
    if codec == "png" and not many and len(pairs) == 1:
        return [Item(*pairs[0], Path(out))]
    suffix = {"png": "", "vp9": ".webm", "gif": ".gif", "ffv1": ".mkv", "h264rgb": ".mkv"}.get(codec or "", ".mp4")
    seen: Counter[str] = Counter()
    items = []
    for index, (prompt, sample) in enumerate(pairs):
        if naming == "vbench":
            name = vbench_name(prompt, seen[prompt], suffix)
            seen[prompt] += 1
        else:
            name = f"{index // samples:04d}" + (f"-{sample}" if samples > 1 else "") + suffix
        items.append(Item(prompt, sample, Path(out) / name))
    return items


def vbench_name(prompt: str, index: int, suffix: str = ".mp4") -> str:
    """`<prompt>-<index>.mp4`, legal as a file name.

    >>> vbench_name("a red/blue ball", 2)
    'a red_blue ball-2.mp4'
    """
    tail = f"-{index}{suffix}"
    stem = prompt.replace("/", "_").replace("\\0", "_")
    if len((stem + tail).encode()) <= NAME_BYTES:
        return stem + tail
    mark = "~" + hashlib.sha256(prompt.encode()).hexdigest()[:8]
    room = NAME_BYTES - len((mark + tail).encode())
    return stem.encode()[:room].decode(errors="ignore") + mark + tail
