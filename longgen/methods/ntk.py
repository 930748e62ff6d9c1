"""NTK-aware scaling of the temporal axis: slow frequencies are stretched by T/T0, fast ones kept.

Knows temporal frequencies. Does not know attention or loops; costs nothing.
"""

from __future__ import annotations

from functools import partial

from longgen.core import rope
from longgen.protocols import Method, MethodInfo, Setting
from longgen.types import ModelInfo, Patch, View


class Ntk(Method):
    """θ_j := θ_j·s^(−2j/(d−2)), s = T/T0: the base becomes b·s^(d/(d−2))."""

    info = MethodInfo(
        name="ntk",
        title="NTK-aware stretch of the temporal RoPE frequencies",
        slots=("rope",),
        needs=frozenset({"rope"}),
        settings={
            "factor": Setting(None, "1", "stretch s; default: longest call / native length", low=1.0, high=1e4),
        },
        cost="none",
        laws={name: {} for name in ("finite", "no_op", "beyond", "removal", "conflicts")},
        conflicts={"riflex": rope.EXCLUSIVE, "pi": rope.EXCLUSIVE},
    )

    def patch(self, view: View) -> Patch:
        if view.frames <= view.native:
            return Patch()
        return Patch(freqs=partial(rope.ntk, stretch=self.factor or view.frames / view.native))

    def notes(self, frames: int, info: ModelInfo) -> list[str]:
        if frames <= info.native_latents:
            return [f"ntk: no-op, {frames} latents are within the native {info.native_latents}"]
        return []
