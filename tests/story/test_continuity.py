"""What holds the chunks of a stretch together; what ends at a cut is told in test_cuts."""

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


def test_all_chunks_are_matched_to_the_first() -> None:
    run, references = bench(lambda call: torch.tanh(call.x), 17, info=INFO), list[Tensor]()

    def stabilise(x: Tensor, reference: Tensor) -> Tensor:
        references.append(reference)
        return x + len(references)

    ctx, loop = replace(run.context(), stabilise=stabilise), Extend(overlap_latents=1).fit(INFO)
    state, finals = loop.init(ctx), list[Tensor]()
    while not state.done:
        state, events = loop.step(ctx, state)
        finals += [e.x for e in events if isinstance(e, Final)]
    assert len(references) == 3 and all(torch.equal(r, finals[0]) for r in references)
    assert all(float(x.mean()) > k - 1 for k, x in enumerate(finals)), "what is emitted is what was matched"


@pytest.mark.parametrize("kind", ["continue", "blend", "cut"])
def test_only_shots_entered_by_a_cut_are_cuts(kind: Transition) -> None:
    shots = (Shot("a", 0, 29, "a", transition="cut"), Shot("b", 29, 61, "b", transition=kind))
    assert cuts(Timeline(shots, 8), 4) == ((8,) if kind == "cut" else ())
