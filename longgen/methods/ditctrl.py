"""DiTCtrl (2412.18597): a window's self-attention reads the keys and values of the window before it.

Knows the window of a call, the layer and the level. Does not know prompts or where windows lie: any loop that denoises
its windows one after another carries it. Keys and values are shared before rotation, so that the source's latents take
the target's local positions, and for each expert, layer and guidance branch apart.
"""

from __future__ import annotations

from torch import Tensor

from longgen.errors import BadInput, RunFailed
from longgen.protocols import Method, MethodInfo, Setting
from longgen.types import Interval, ModelInfo, Patch, Site, View

SOURCES = ("previous", "first")


class DiTCtrl(Method):
    """Subject kept from window to window: K_j, V_j ← K_{j−1}, V_{j−1} in the last layers and the middle levels.

    The source's keys and values are kept while it is computed, instead of computing it again beside its target, which
    gives the same numbers. Only video tokens are shared; on joint-text models the public code shares the source's text
    too.
    """

    info = MethodInfo(
        name="ditctrl",
        title="Key and value sharing between neighbouring windows",
        slots=("kv",),
        paper="2412.18597",
        needs=frozenset({"self_attention"}),
        settings={
            "start": Setting(0.04, "steps", "share from this fraction of the steps on (paper: step 2 of 50)", 0, 1),
            "stop": Setting(0.5, "steps", "share up to this fraction of the steps (paper: step 25 of 50)", 0, 1),
            "layers": Setting(5 / 6, "layers", "share from this fraction of the layers on (paper: 25 of 30)", 0, 1),
            "source": Setting("previous", "1", "window read: the previous, or the first", choices=SOURCES),
        },
        cost="n · forward(T), and U latents of keys and values in the sharing layers",
        window_order="chain",
        laws={"finite": {}, "removal": {}, "conflicts": {}},
        exempt={
            "no_op": "sharing depends on windows, not on the native length; a single window is left alone",
            "beyond": "the patch acts on windows at any length, and on nothing that has no window",
        },
    )

    def check(self, frames: int, info: ModelInfo) -> None:
        if self.start >= self.stop:
            raise BadInput(f"ditctrl.start must be below ditctrl.stop (got {self.start:g} and {self.stop:g})")

    def patch(self, view: View) -> Patch:
        schedule = view.schedule
        levels = Interval(schedule.sigma_at(self.stop), schedule.sigma_at(self.start))
        bank = _Bank(view, self.source == "first")

        def share(site: Site, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            """k, v [B, U·P, N, D] → the source's, for window j ≥ 1 inside the ranges."""
            if site.key is None or site.layer < int(self.layers * site.layers + 1e-9) or site.level not in levels:
                return k, v
            return bank.exchange(site, k, v)

        return Patch(kv=share)


class _Bank:
    """Keys and values named by expert, layer, branch and source window, in the run's own store."""

    def __init__(self, view: View, first: bool) -> None:
        self.store, self.total, self.first = view.bank, view.total, first

    def exchange(self, site: Site, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Read the source of this window, leave this window's own where it is a source, drop what nobody will read."""
        place = f"ditctrl/{site.expert}/{site.layer}/{site.branch}/"
        held = self._held(place) if site.key else None
        if held is None or not self.first:
            self._drop(place)
            self.store[f"{place}{site.key}/k"], self.store[f"{place}{site.key}/v"] = k, v
        if site.frames == tuple(range(site.frames[0], self.total)):
            self._drop(place)  # the last window of the step: an empty store keeps checkpoints small
        if held is None:
            return k, v
        if held[0].shape != k.shape:
            raise RunFailed(
                "ditctrl shares keys between windows of one length; drop windows.retain, or set windows.plan"
            )
        return held

    def _held(self, place: str) -> tuple[Tensor, Tensor]:
        """The source's K and V."""
        name = next(n.removesuffix("k") for n in self.store if n.startswith(place) and n.endswith("/k"))
        return self.store[name + "k"], self.store[name + "v"]

    def _drop(self, place: str) -> None:
        for name in [n for n in self.store if n.startswith(place)]:
            del self.store[name]
