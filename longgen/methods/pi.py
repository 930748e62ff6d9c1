"""Position interpolation: temporal positions are squeezed into the trained range.

Knows temporal frequencies. Does not know attention or loops; costs nothing.
"""

from __future__ import annotations

from functools import partial

from longgen.core import rope
from longgen.protocols import Method, MethodInfo, Setting
from longgen.types import ModelInfo, Patch, View


class Pi(Method):
    """θ := θ/s, s = T/T0, which is position p → p/s (arXiv 2306.15595, eq. 4) on the temporal axis."""

    info = MethodInfo(
        name="pi",
        title="Temporal positions interpolated into the trained range",
        slots=("rope",),
        paper="2306.15595",
        needs=frozenset({"rope"}),
        settings={
            "factor": Setting(None, "1", "stretch s; default: longest call / native length", low=1.0, high=1e4),
        },
        cost="none",
        laws={name: {} for name in ("finite", "no_op", "beyond", "removal", "conflicts")},
        conflicts={"ntk": rope.EXCLUSIVE, "riflex": rope.EXCLUSIVE},
    )

    def patch(self, view: View) -> Patch:
        if view.frames <= view.native:
            return Patch()
        return Patch(freqs=partial(rope.interpolate, stretch=self.factor or view.frames / view.native))

    def notes(self, frames: int, info: ModelInfo) -> list[str]:
        if frames <= info.native_latents:
            return [f"pi: no-op, {frames} latents are within the native {info.native_latents}"]
        return []
