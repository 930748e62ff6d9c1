"""Key/value sharing against a dense reference that recomputes every source."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from longgen.errors import BadInput, RunFailed
from longgen.methods.ditctrl import DiTCtrl
from longgen.types import Branch, Level, Rope, Schedule, Site, View

STEPS, LAYERS, TOKENS, WIDTH = 50, 6, 2, 8
WINDOWS = [tuple(range(4 * k, 4 * k + 6)) for k in range(4)]
TOTAL = WINDOWS[-1][-1] + 1
sigma = torch.linspace(1, 0, STEPS + 1)
SCHEDULE = Schedule(Level(sigma, 1 - sigma, sigma * 1000, torch.arange(STEPS + 1)))
BRANCHES: tuple[Branch, ...] = ("cond", "uncond")


def view(bank: dict[str, Tensor] | None = None) -> View:
    return View(6, 6, TOTAL, TOKENS, LAYERS, Rope(), SCHEDULE, 0.5, {} if bank is None else bank)


def site(step: int, layer: int, branch: Branch, window: int | None, expert: int = 0) -> Site:
    frames = tuple(range(TOTAL)) if window is None else WINDOWS[window]
    grid = (len(frames), 1, TOKENS)
    return Site(layer, LAYERS, branch, expert, SCHEDULE[step], frames, grid, window, step, STEPS)


class Toy:
    """A stack of residual attention layers, one set of weights per guidance branch."""

    def __init__(self, seed: int = 0) -> None:
        drawn = torch.Generator().manual_seed(seed)
        shape = (2, LAYERS, 3, WIDTH, WIDTH)
        self.weights = torch.randn(shape, generator=drawn, dtype=torch.float64) / WIDTH**0.5
        length = len(WINDOWS[0]) * TOKENS
        self.x = torch.randn(len(WINDOWS), 1, length, 1, WIDTH, generator=drawn, dtype=torch.float64)

    def project(self, branch: Branch, layer: int, x: Tensor) -> list[Tensor]:
        return [x @ w for w in self.weights[BRANCHES.index(branch), layer]]

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sdpa(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)

    def hooked(self, method: DiTCtrl, step: int, at: View) -> dict[tuple[int, Branch], Tensor]:
        """Window after window, branch after branch, as a loop and an adapter call it."""
        share, out = method.patch(at).kv, {}
        assert share is not None
        for window, branch in product(range(len(WINDOWS)), BRANCHES):
            x = self.x[window]
            for layer in range(LAYERS):
                q, k, v = self.project(branch, layer, x)
                x = x + self.attend(q, *share(site(step, layer, branch, window), k, v))
            out[window, branch] = x
        return out

    def dense(self, window: int, branch: Branch, sharing: set[int], depth: int = LAYERS) -> Tensor:
        """Hidden state after `depth` layers; the source window is computed again from the start at every layer."""
        x = self.x[window]
        for layer in range(depth):
            q, k, v = self.project(branch, layer, x)
            if layer in sharing and window > 0:
                source = self.dense(window - 1, branch, sharing, layer)
                _, k, v = self.project(branch, layer, source)
            x = x + self.attend(q, k, v)
        return x


@pytest.mark.parametrize("step", range(0, STEPS, 3))
def test_sharing_equals_recomputing_the_source(step: int) -> None:
    toy, bank = Toy(), dict[str, Tensor]()
    out = toy.hooked(DiTCtrl(layers=0.5), step, view(bank=bank))
    sharing = {3, 4, 5} if 2 <= step < 25 else set[int]()
    for (window, branch), x in out.items():
        torch.testing.assert_close(x, toy.dense(window, branch, sharing), rtol=1e-12, atol=1e-12)
    assert not bank, "nothing is left for the checkpoint between two steps"


@pytest.mark.parametrize("layers", [0.0, 0.5, 5 / 6, 1.0])
def test_layers_outside_the_range_keep_their_own_keys(layers: float) -> None:
    share = DiTCtrl(layers=layers).patch(view()).kv
    assert share is not None
    for layer in range(LAYERS):
        first, second = torch.ones(1, 12, 1, 8), torch.zeros(1, 12, 1, 8)
        share(site(10, layer, "cond", 0), first, first)
        k, _ = share(site(10, layer, "cond", 1), second, second)
        assert bool(k.any()) == (layer >= round(layers * LAYERS))


def test_the_first_window_can_be_everyones_source() -> None:
    share = DiTCtrl(layers=0.0, source="first").patch(view()).kv
    assert share is not None
    own = [torch.full((1, 12, 1, 8), float(w)) for w in range(4)]
    read = [float(share(site(10, 0, "cond", w), own[w], own[w])[0].mean()) for w in range(4)]
    assert read == [0, 0, 0, 0]


def test_experts_and_branches_never_mix() -> None:
    share = DiTCtrl(layers=0.0).patch(view()).kv
    assert share is not None
    places = list(product((0, 1), BRANCHES, range(LAYERS)))
    marks = {place: torch.full((1, 12, 1, 8), float(i)) for i, place in enumerate(places)}
    for (expert, branch, layer), mark in marks.items():
        share(site(10, layer, branch, 0, expert), mark, mark)
    zero = torch.zeros(1, 12, 1, 8)
    for (expert, branch, layer), mark in marks.items():
        assert torch.equal(share(site(10, layer, branch, 1, expert), zero, zero)[1], mark)


def test_own_keys_change_nothing_and_calls_without_a_window_are_left_alone() -> None:
    share = DiTCtrl(layers=0.0).patch(view()).kv
    assert share is not None
    k = torch.randn(1, 12, 1, 8)
    share(site(10, 0, "cond", 0), k, k)
    assert torch.equal(share(site(10, 0, "cond", 1), k.clone(), k.clone())[0], k)
    whole = torch.randn(1, TOTAL * TOKENS, 1, 8)
    assert share(site(10, 0, "cond", None), whole, whole)[0] is whole


def test_windows_of_two_lengths_are_refused() -> None:
    share = DiTCtrl(layers=0.0).patch(view()).kv
    assert share is not None
    share(site(10, 0, "cond", 0), torch.zeros(1, 12, 1, 8), torch.zeros(1, 12, 1, 8))
    with pytest.raises(RunFailed, match="windows of one length"):
        share(site(10, 0, "cond", 1), torch.zeros(1, 14, 1, 8), torch.zeros(1, 14, 1, 8))


def test_an_empty_range_of_steps_is_bad_input() -> None:
    with pytest.raises(BadInput, match=r"ditctrl\.start must be below"):
        DiTCtrl(start=0.6).check(21, None)  # type: ignore[arg-type]
