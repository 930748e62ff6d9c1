"""Wan2.1, Wan2.2-A14B (two transformers) and Wan2.2-TI2V-5B (a timestep per token), over unmodified diffusers classes.

Importing this loads no model code.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from longgen.models.wan.info import describe

if TYPE_CHECKING:
    from longgen.models.wan.model import WanModel
    from longgen.types import LoadOptions, ModelInfo

__all__ = ["describe", "from_pipeline", "load"]


def load(info: ModelInfo, path: Path, options: LoadOptions) -> WanModel:
    """The model in a folder."""
    from longgen.models.wan.model import WanModel

    return WanModel.load(info, path, options)


def from_pipeline(pipe: Any) -> WanModel:
    """A model around a pipeline in hand, which is used as it is and comes back unpatched."""
    from longgen.models.wan.model import WanModel

    return WanModel.from_pipeline(pipe)
