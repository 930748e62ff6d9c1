"""FreeLong++ (arXiv 2507.00162): attention at several window scales, each responsible for one frequency band.

Knows the self-attention of one layer. Does not know loops or noise; its noise is the method `specmix`. There is no
public code: the bands follow the paper's description, the nested form makes them sum to the identity.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from longgen.core.spectral import Padding, correction, lowpass
from longgen.core.windows import band
from longgen.errors import BadInput
from longgen.protocols import Method, MethodInfo, Setting
from longgen.types import Attend, Dense, FrameWindow, ModelInfo, Patch, Rotate, Site, View


def branches(scales: list[int], frames: int, native: int) -> list[int]:
    """The scales in use at this length: those whose window a·T0 is shorter than T, and the next one as the global.

    >>> branches([1, 2, 4, 8], 81, 21), branches([1, 2, 4, 8], 161, 21), branches([1, 2, 4, 8], 30, 21)
    ([1, 2, 4], [1, 2, 4, 8], [1, 2])
    """
    return scales[: sum(a * native < frames for a in scales) + 1]


def kept(frames: int, share: float) -> list[int]:
    """⌈share·T⌉ frames, evenly spread from the first on.

    >>> kept(6, 0.5), kept(7, 0.7)
    ([0, 2, 4], [0, 1, 2, 4, 5])
    """
    places = (int(i / share + 1e-9) for i in range(frames))
    return [place for place in places if place < frames]


class FreeLongPP(Method):
    """Z = Z_1 + Σ_{l≥2} L_{1/(2·a_l)}·(Z_{a_l} − Z_{a_(l−1)}): windows of a·T0 latents, the last one global; L_b a
    Gaussian low-pass at the fraction b of Nyquist. At every step and layer."""

    info = MethodInfo(
        name="freelongpp",
        title="Several window scales, one frequency band each",
        slots=("route", "logits"),
        paper="2507.00162",
        needs=frozenset({"self_attention"}),
        settings={
            "scales": Setting("1,2,4,8", "1", "window lengths as multiples of the native length, ascending"),
            "keys": Setting(
                1.0, "1", "share of frames whose keys the global branch sees; 0.5 takes every second", 0.01, 1
            ),
            "spatial": Setting(0.0, "Nyquist", "spatial cut-off of every band; 0 filters time only", 0, 100),
            "border": Setting("cut", "1", "bands at clip ends: cut short, or moved inside", choices=("cut", "shift")),
            "padding": Setting("circular", "1", "of the temporal filters", choices=("circular", "reflect")),
        },
        cost="n · forward(T), attention over T²·keys + T·T0·Σ a_l frame pairs",
        global_positions=True,
        laws={"stochastic": {}, "zero": {}, "finite": {}, "no_op": {}, "beyond": {}, "removal": {}, "conflicts": {}},
    )

    def factors(self) -> list[int]:
        """The scales as numbers; BadInput unless they ascend from at least 1."""
        try:
            values = [int(word) for word in str(self.scales).split(",")]
        except ValueError:
            values = []
        if not values or values[0] < 1 or any(b <= a for a, b in pairwise(values)):
            raise BadInput(f"freelongpp.scales takes ascending whole numbers such as 1,2,4,8, not {self.scales!r}")
        return values

    def patch(self, view: View) -> Patch:
        if view.frames <= view.native:
            return Patch()
        used = branches(self.factors(), view.frames, view.native)

        def attention(site: Site, q: Tensor, k: Tensor, v: Tensor, rotate: Rotate, attend: Attend) -> Tensor:
            q, k, frames = rotate(q), rotate(k), site.grid[0]
            native = view.native * frames // len(site.frames)
            near = [band(frames, a * native, self.border) for a in used[:-1]]
            parts = [attend(q, k, v, FrameWindow(site.tokens, spans))[0] for spans in near]
            parts.append(attend(q, *(self._thinned(x, frames) for x in (k, v)), Dense())[0])
            low = self._filters(used[1:], site.grid)
            bands = (correction(*pair, band, site.grid) for pair, band in zip(pairwise(parts), low, strict=True))
            return sum(bands, start=parts[0].float()).to(v.dtype)

        return Patch(attention=attention)

    def _thinned(self, x: Tensor, frames: int) -> Tensor:
        """Keys or values [B, T·P, N, D], rotated already, of a uniform share of the frames."""
        if self.keys == 1:
            return x
        index = torch.tensor(kept(frames, self.keys), device=x.device)
        return x.unflatten(1, (frames, -1)).index_select(1, index).flatten(1, 2)

    def _filters(self, used: list[int], grid: tuple[int, int, int]) -> list[list[Tensor | None]]:
        padding: Padding = self.padding
        space = [lowpass(n, self.spatial) if self.spatial else None for n in grid[1:]]
        return [[lowpass(grid[0], 1 / (2 * a), padding), *space] for a in used]

    def key_frames(self, frames: int, info: ModelInfo) -> float:
        native = info.native_latents
        if frames <= native:
            return float(frames)
        used = branches(self.factors(), frames, native)
        near = sum(b - a for scale in used[:-1] for a, b in band(frames, scale * native, self.border))
        return near / frames + len(kept(frames, self.keys))

    def check(self, frames: int, info: ModelInfo) -> None:
        self.factors()

    def notes(self, frames: int, info: ModelInfo) -> list[str]:
        if frames <= info.native_latents:
            return ["freelongpp: within the native length, so attention is the plain one"]
        return [f"freelongpp: window scales {branches(self.factors(), frames, info.native_latents)}, the last global"]
