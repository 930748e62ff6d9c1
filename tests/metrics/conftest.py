"""One way to score a clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import save

from longgen.media import open_video
from longgen.metrics import metric
from longgen.metrics.base import Score, Video, score


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Score]:
    """Score an array losslessly stored: run("metric", clip, fps=8, backends={…}, prompt=…)."""

    def scored(
        name: str, clip: np.ndarray, fps: float = 8, backends: Mapping[str, Any] | None = None, **known: Any
    ) -> Score:
        video = Video(open_video(save(tmp_path / "clip.mkv", clip, fps)), **known)
        return score(video, {name: (metric(name), backends or {})})[name]

    return scored
