"""CogVideoX 2B, 5B and 1.5 over unmodified diffusers classes. Importing this loads no model code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from longgen.models.cogvideox.info import describe

if TYPE_CHECKING:
    from longgen.models.cogvideox.model import CogVideoXModel
    from longgen.types import LoadOptions, ModelInfo

__all__ = ["describe", "from_pipeline", "load"]


def load(info: ModelInfo, path: Path, options: LoadOptions) -> CogVideoXModel:
    """The model in a folder."""
    from longgen.models.cogvideox.model import CogVideoXModel

    return CogVideoXModel.load(info, path, options)


def from_pipeline(pipe: Any) -> CogVideoXModel:
    """A model around a pipeline in hand, which is used as it is and comes back unpatched."""
    from longgen.models.cogvideox.model import CogVideoXModel

    return CogVideoXModel.from_pipeline(pipe)
