"""RIFLEx: the one temporal frequency that completes its period within the clip is slowed down.

Knows temporal frequencies. Does not know attention or loops; costs nothing.
"""

from __future__ import annotations

from functools import partial

from longgen.core import rope
from longgen.errors import BadInput
from longgen.protocols import Method, MethodInfo, Setting
from longgen.types import ModelInfo, Patch, View


class Riflex(Method):
    """θ_k := 0.9·2π/T where T exceeds the period N_k (arXiv 2502.15894, §4; the 0.9 is in the public code alone)."""

    info = MethodInfo(
        name="riflex",
        title="One temporal RoPE frequency lowered, so that its period exceeds the clip",
        slots=("rope",),
        paper="2502.15894",
        needs=frozenset({"rope"}),
        settings={
            "k": Setting("auto", "1", "index of the frequency from 1, or auto: smallest period ≥ the native length"),
            "margin": Setting(0.9, "1", "share of its period that the clip may fill", low=0.1, high=1.0),
        },
        cost="none",
        laws={name: {} for name in ("finite", "no_op", "beyond", "removal", "conflicts")},
        conflicts={"ntk": rope.EXCLUSIVE, "pi": rope.EXCLUSIVE},
    )

    unit = 1  # latents per token along time

    def fit(self, info: ModelInfo) -> Riflex:
        fitted = Riflex(**self.settings)
        fitted.unit = info.patch[0]
        return fitted

    def check(self, frames: int, info: ModelInfo) -> None:
        count = info.rope.dim // 2
        whole = isinstance(self.k, int) and not isinstance(self.k, bool)
        if self.k != "auto" and not (whole and 1 <= self.k <= count):
            raise BadInput(f"riflex.k must be auto or a whole number from 1 to {count} (got {self.k!r})")

    def patch(self, view: View) -> Patch:
        theta = rope.thetas(view.rope)
        index = self._index(view)
        length = rope.extent(view, view.frames, self.unit)
        if view.frames <= view.native or length <= float(rope.periods(theta)[index]):
            return Patch()
        return Patch(freqs=partial(rope.lower, index=index, length=length, margin=self.margin))

    def notes(self, frames: int, info: ModelInfo) -> list[str]:
        if not info.rope.dim:
            return []
        theta = rope.thetas(info.rope)
        latent = info.stride / info.fps if info.rope.kind == "coords" else 1 / self.unit  # one, in units of positions
        index = rope.intrinsic(theta, info.native_latents * latent) if self.k == "auto" else self.k - 1
        period = float(rope.periods(theta)[index]) / latent
        if frames <= max(info.native_latents, period):
            return [f"riflex: no-op, {frames} latents are within the period {period:.1f} of frequency k = {index + 1}"]
        return [f"riflex: frequency k = {index + 1}, period {period:.1f} latents"]

    def _index(self, view: View) -> int:
        if self.k != "auto":
            return int(self.k) - 1
        return rope.intrinsic(rope.thetas(view.rope), rope.extent(view, view.native, self.unit))
