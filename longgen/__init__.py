"""Long videos from any pretrained text-to-video diffusion transformer, without training."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longgen.api import Result, generate

try:
    __version__ = version("longgen")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

__all__ = ["Result", "__version__", "generate"]


def __getattr__(name: str) -> Any:
    # Lazy, so that `import longgen` and `longgen --help` never pay for torch.
    if name in {"generate", "Result"}:
        from longgen import api

        return getattr(api, name)
    raise AttributeError(f"module 'longgen' has no attribute {name!r}")
