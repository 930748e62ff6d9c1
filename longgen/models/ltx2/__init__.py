"""The video of LTX-2 over unmodified diffusers classes. Importing this loads no model code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from longgen.models.ltx2.info import describe

if TYPE_CHECKING:
    from longgen.models.ltx2.model import LTX2Model
    from longgen.types import LoadOptions, ModelInfo

__all__ = ["describe", "from_pipeline", "load"]


def load(info: ModelInfo, path: Path, options: LoadOptions) -> LTX2Model:
    """The model in a folder."""
    from longgen.models.ltx2.model import LTX2Model

    return LTX2Model.load(info, path, options)


def from_pipeline(pipe: Any) -> LTX2Model:
    """A model around a pipeline in hand, which is used as it is and comes back unpatched."""
    from longgen.models.ltx2.model import LTX2Model

    return LTX2Model.from_pipeline(pipe)
