"""Wan-VACE: a Wan with a control branch that reads known frames, a mask and a control video, over diffusers' classes.

Importing this loads no model code.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from longgen.models.vace.info import describe

if TYPE_CHECKING:
    from longgen.models.vace.model import VaceModel
    from longgen.types import LoadOptions, ModelInfo

__all__ = ["describe", "from_pipeline", "load"]


def load(info: ModelInfo, path: Path, options: LoadOptions) -> VaceModel:
    """The model in a folder."""
    from longgen.models.vace.model import VaceModel

    return VaceModel.load(info, path, options)


def from_pipeline(pipe: Any) -> VaceModel:
    """A model around a pipeline in hand, which is used as it is and comes back unpatched."""
    from longgen.models.vace.model import VaceModel

    return VaceModel.from_pipeline(pipe)
