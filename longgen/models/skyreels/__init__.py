"""SkyReels-V2, text-to-video and diffusion forcing, over unmodified diffusers classes.

Importing this loads no model code.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from longgen.models.skyreels.info import describe

if TYPE_CHECKING:
    from longgen.models.skyreels.model import SkyReelsModel
    from longgen.types import LoadOptions, ModelInfo

__all__ = ["describe", "from_pipeline", "load"]


def load(info: ModelInfo, path: Path, options: LoadOptions) -> SkyReelsModel:
    """The model in a folder."""
    from longgen.models.skyreels.model import SkyReelsModel

    return SkyReelsModel.load(info, path, options)


def from_pipeline(pipe: Any) -> SkyReelsModel:
    """A model around a pipeline in hand, which is used as it is and comes back unpatched."""
    from longgen.models.skyreels.model import SkyReelsModel

    return SkyReelsModel.from_pipeline(pipe)
