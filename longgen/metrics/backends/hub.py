"""Where weights lie: hub ids, folders, files. Knows caches and naming, no network architecture.

Nothing is downloaded here. What is not in the local cache is Unavailable, with the exact id, the place where it was
expected and the command that fetches it; so an evaluation never starts a download nor changes under one's feet.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from longgen.metrics.base import Unavailable


def hub_cache() -> Path:
    """Folder of the Hugging Face cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def folder_of(role: str, spec: str) -> tuple[Path, str]:
    """(folder of a saved model, exact name of its weights) for `hf:owner/name[@revision]` or a path.

    The name of a hub model is completed by the commit found in the cache.
    """
    if not spec.startswith("hf:"):
        path = Path(spec).expanduser()
        if not (path / "config.json").is_file():
            raise Unavailable(f"needs weights for {role}: {path} is no folder with a config.json")
        return path.resolve(), str(path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    name, _, revision = spec.removeprefix("hf:").partition("@")
    place = hub_cache() / f"models--{name.replace('/', '--')}"
    try:
        found = Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    except (LocalEntryNotFoundError, FileNotFoundError) as error:
        raise Unavailable(
            f"needs the weights hf:{name}, expected in {place}; fetch them with `hf download {name}` "
            f"or give a folder: --backend {role}=PATH"
        ) from error
    return found, f"hf:{name}@{found.name}"


def file_of(role: str, spec: str, source: str) -> Path:
    """A single weights file: a path, or the file's name in ~/.cache/longgen. Unavailable says where it comes from."""
    cache = Path(os.environ.get("LONGGEN_CACHE", Path.home() / ".cache" / "longgen"))
    path = Path(spec).expanduser()
    for place in (path, cache / spec):
        if place.is_file():
            return place
    raise Unavailable(
        f"needs the weights {path.name}, expected in {cache / path.name} ({source}), or --backend {role}=PATH"
    )


def seed_of(spec: str) -> int | None:
    """The seed of `random:<seed>`; None for every other name."""
    match = re.fullmatch(r"random:(\d+)", spec)
    return int(match[1]) if match else None


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's generator seeded inside the block alone."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def toy_tokens(text: str, vocabulary: int, length: int = 16) -> list[int]:
    """Token ids for networks with random weights: a fixed hash of each word, closed by the last id."""
    words = text.lower().split()[: length - 1]
    return [zlib.crc32(w.encode()) % (vocabulary - 2) + 1 for w in words] + [vocabulary - 1]
