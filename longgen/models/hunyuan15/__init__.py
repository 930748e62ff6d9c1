"""HunyuanVideo-1.5 over unmodified diffusers classes. Importing this loads no model code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from longgen.models.hunyuan15.info import describe

if TYPE_CHECKING:
    from longgen.models.hunyuan15.model import Hunyuan15Model
    from longgen.types import LoadOptions, ModelInfo

__all__ = ["describe", "from_pipeline", "load"]


def load(info: ModelInfo, path: Path, options: LoadOptions) -> Hunyuan15Model:
    """The model in a folder."""
    from longgen.models.hunyuan15.model import Hunyuan15Model

    return Hunyuan15Model.load(info, path, options)


def from_pipeline(pipe: Any) -> Hunyuan15Model:
    """A model around a pipeline in hand, which is used as it is and comes back unpatched."""
    from longgen.models.hunyuan15.model import Hunyuan15Model

    return Hunyuan15Model.from_pipeline(pipe)
