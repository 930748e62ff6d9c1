"""Roles whose weights are not ours to load: the user gives a callable."""

from __future__ import annotations

from typing import Any

from longgen.metrics.base import Unavailable


def only_callable(spec: str, device: str = "cpu") -> Any:
    """Refuses everything but `call:module:name`, which never reaches this loader."""
    raise Unavailable(f"needs {spec}; give your own as --backend ROLE=call:module:name")
