"""AdaIN: each later chunk takes on the per-channel statistics of the first, against creeping colour and contrast.

Knows finished latents. Does not know how chunks are made; the loop decides when it is asked (`extend` does).
"""

from __future__ import annotations

from torch import Tensor

from longgen.protocols import Method, MethodInfo, Setting


class Adain(Method):
    """z' = (1 − f)·z + f·((z − μ)/s·s_ref + μ_ref), μ and s per channel over T, H, W; the reference is chunk 0.

    Taking the chunk before as reference instead would follow the drift.
    """

    info = MethodInfo(
        name="adain",
        title="Per-channel statistics of later chunks matched to the first",
        slots=("stabilise",),
        settings={"strength": Setting(0.25, "1", "f: 0 changes nothing, 1 matches fully", low=0.0, high=1.0)},
        cost="none",
        laws={"conflicts": {}},
    )

    def stabilise(self, x: Tensor, reference: Tensor) -> Tensor:
        if self.strength == 0:
            return x
        axes = (2, 3, 4)
        mean, mean_ref = x.mean(axes, keepdim=True), reference.mean(axes, keepdim=True)
        std, std_ref = x.std(axes, keepdim=True, correction=0), reference.std(axes, keepdim=True, correction=0)
        matched = (x - mean) / std.clamp(min=1e-8) * std_ref + mean_ref
        return x.lerp(matched, self.strength)
