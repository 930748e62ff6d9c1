"""A hard cut ends what holds a video together, on purpose, and nothing else does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fakes import bench, model_info
from torch import Tensor

from longgen.methods.extend import Extend
from longgen.story.schedules import cuts
from longgen.types import Final, Shot, Timeline, Transition

INFO = model_info(native=5)


def matched(at: tuple[int, ...], frames: int = 17) -> tuple[Tensor, list[Tensor]]:
    """Final latents of chunks of five that overlap by one, and the reference of each chunk that was matched."""
    run, references = bench(lambda call: torch.tanh(call.x), frames, info=INFO), list[Tensor]()

    def stabilise(x: Tensor, reference: Tensor) -> Tensor:
        references.append(reference)
        return x

    ctx, loop = replace(run.context(), stabilise=stabilise, cuts=at), Extend(overlap_latents=1).fit(INFO)
    state, finals = loop.init(ctx), list[Tensor]()
    while not state.done:
        state, events = loop.step(ctx, state)
        finals += [e.x for e in events if isinstance(e, Final)]
    return torch.cat(finals, 2), references


def test_without_a_cut_all_chunks_are_matched_to_the_first() -> None:
    out, references = matched(())
    assert len(references) == 3 and all(torch.equal(r, out[:, :, :5]) for r in references)


@pytest.mark.parametrize("cut", range(9, 13))
def test_a_cut_begins_a_new_reference(cut: int) -> None:
    """Chunk 2, latents 9 … 12, holds the cut: it is matched to nothing, and chunk 3 to what follows the cut."""
    out, references = matched((cut,))
    assert len(references) == 2
    assert torch.equal(references[0], out[:, :, :5]) and torch.equal(references[1], out[:, :, cut:13])


@pytest.mark.parametrize("kind", ["continue", "blend", "cut"])
def test_only_shots_entered_by_a_cut_are_cuts(kind: Transition) -> None:
    shots = (Shot("a", 0, 29, "a", transition="cut"), Shot("b", 29, 61, "b", transition=kind))
    assert cuts(Timeline(shots, 8), 4) == ((8,) if kind == "cut" else ())
