"""One shot again: what is kept stays bit for bit, and the model sees it on its way to its known end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from fakes import bench, model_info
from torch import Tensor

from longgen.core.noise import latent_noise
from longgen.methods.windows import Windows
from longgen.story.reroll import Kept, KeptDenoiser, KeptModel, free_latents
from longgen.story.schedules import build, seeds
from longgen.types import Call, LatentGrid, ModelInfo, Shot, Timeline, add_noise

INFO = model_info(native=5)
SHOTS = (
    Shot("a", 0, 29, "a"),
    Shot("b", 29, 61, "b", transition="blend", blend=8),
    Shot("c", 61, 93, "c", transition="blend", blend=8),
)
TIMELINE, TOTAL = Timeline(SHOTS, 8), 24


class Plain:
    """A denoiser out of a function."""

    info: ModelInfo = INFO

    def __init__(self, function: object) -> None:
        self.function, self.seen = function, list[Call]()

    def denoise(self, call: Call) -> Tensor:
        self.seen.append(call)
        return self.function(call.x)  # type: ignore[operator]


def mixing(x: Tensor) -> Tensor:
    """A clean estimate in which every latent depends on all others of the call."""
    return torch.tanh(x + x.mean(2, keepdim=True))


def pieces(free: Tensor, function: object, seed: int) -> tuple[Kept, Plain, KeptDenoiser]:
    grid = bench(lambda call: call.x, TOTAL, info=INFO).grid
    first = bench(lambda call: mixing(call.x), TOTAL, info=INFO, seed=seed)
    clean, _ = first.run(Windows().fit(INFO))
    kept = Kept(clean, latent_noise(grid, seed, 0, TOTAL), free)
    inner = Plain(function)
    return kept, inner, KeptDenoiser(inner, kept, skip=True)  # type: ignore[arg-type]


def test_the_shot_and_the_blends_on_both_sides_are_free() -> None:
    """b weighs more than 0 from its first latent to the end of c's blend, and nowhere else."""
    for name in ("hold", "travel", "blend", "window", "inject", "relay"):
        schedule = build(TIMELINE, name, 4, 5.0)
        free = free_latents(schedule, 1, TOTAL)
        assert free.nonzero().flatten().tolist() == list(range(8, 18))
        if name not in ("hold", "travel", "blend"):
            continue
        weights = schedule.mix(tuple(range(TOTAL)), None).weights[:, 1]  # type: ignore[arg-type]
        assert torch.equal(free, weights > 0)
        # b is frames 29 … 60, latents 8 … 15; c comes in over frames 61 … 68, whose latents 16 and 17 still hold b.
        assert free.nonzero().flatten().tolist() == list(range(8, 18))


def test_kept_latents_are_shown_as_they_were_and_answered_as_they_are() -> None:
    free = torch.zeros(TOTAL, dtype=torch.bool)
    free[8:14] = True
    kept, inner, denoiser = pieces(free, mixing, seed=3)
    run = bench(denoiser.denoise, TOTAL, info=INFO, seed=4)
    run.run(Windows().fit(INFO))
    assert inner.seen and len(inner.seen) < len(run.calls), "windows without a free latent are not computed"
    for call in inner.seen:
        frames = list(call.frames)
        want = add_noise(kept.clean[:, :, frames], kept.noise[:, :, frames], call.level)
        stay = ~free[frames]
        assert bool(free[frames].any()) and torch.equal(call.x[:, :, stay], want[:, :, stay])


def test_a_model_that_mixes_no_latents_gives_the_first_run_again() -> None:
    """With the first run's own noise, nothing that is free may come out otherwise."""
    free = torch.zeros(TOTAL, dtype=torch.bool)
    free[8:14] = True
    first = bench(lambda call: torch.tanh(call.x), TOTAL, info=INFO, seed=3)
    clean, _ = first.run(Windows().fit(INFO))
    kept = Kept(clean, latent_noise(first.grid, 3, 0, TOTAL), free)
    again = bench(KeptDenoiser(Plain(torch.tanh), kept, True).denoise, TOTAL, info=INFO, seed=3)  # type: ignore[arg-type]
    out, _ = again.run(Windows().fit(INFO))
    assert torch.equal(out[:, :, free], clean[:, :, free])


class Decoder:
    """The decoding half of a model: hands on what it is given."""

    info, device = INFO, torch.device("cpu")

    def decode(self, chunks: Iterator[Tensor], chunk: int = 1) -> Iterator[Tensor]:
        yield from chunks

    def to_model(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("size", [1, 5, TOTAL])
def test_final_latents_are_pinned_bit_for_bit_in_chunks_of_any_size(size: int) -> None:
    free = torch.arange(TOTAL) % 3 == 0
    kept, _, _ = pieces(free, mixing, seed=3)
    x = kept.clean + 1e-7
    model = KeptModel(Decoder(), kept)  # type: ignore[arg-type]
    out = torch.cat(list(model.decode(iter(x.split(size, 2)))), 2)
    assert torch.equal(out[:, :, ~free], kept.clean[:, :, ~free]) and torch.equal(out[:, :, free], x[:, :, free])
    assert torch.equal(model.to_model(x), out)


def test_each_shot_draws_from_its_own_seed() -> None:
    shots = (SHOTS[0], Shot("b", 29, 61, "b", seed=7), SHOTS[2])
    timeline = Timeline(shots, 8)
    grid = LatentGrid(TOTAL, 2, 1, 2, 4, (1, 1, 1))
    for start in range(TOTAL):
        for stop in range(start + 1, TOTAL + 3):
            parts = seeds(timeline, 4, 3, start, stop)
            assert parts[0][1] == start and parts[-1][2] == stop
            assert all(a[2] == b[1] for a, b in pairwise(parts))
            drawn = torch.cat([latent_noise(grid, seed, a, b) for seed, a, b in parts], 2)
            for i in range(start, stop):
                own = 7 if 8 <= i < 16 else 3
                assert torch.equal(drawn[:, :, i - start], latent_noise(grid, own, i, i + 1)[:, :, 0])
    assert seeds(TIMELINE, 4, 3, -2, TOTAL + 5) == [(3, -2, TOTAL + 5)]
