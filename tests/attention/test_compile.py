"""Plans are constants to the compiler: one graph, no breaks, the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from longgen.attention import choose, with_text
from longgen.types import Dense, FrameGather, FrameWindow, Plan, Union

ENGINE = choose("sdpa", "cpu", torch.float32, 16)  # the bound method that models call
FRAMES, TOKENS = 9, 4
STARTS = [min(max(i - 1, 0), FRAMES - 3) for i in range(FRAMES)]
WINDOW = FrameWindow(TOKENS, tuple((s, s + 3) for s in STARTS))
PLANS: dict[str, Plan] = {
    "dense": Dense(),
    "window": WINDOW,
    "empty": FrameWindow(TOKENS, ((0, 0),) * 4 + ((1, 5),) * 5),
    "gather": FrameGather(TOKENS, tuple((0, (i + 2) % 8 + 1, 4 if i != 2 else 5) for i in range(FRAMES))),
    "union": Union((FrameWindow(TOKENS, ((0, 2),) * FRAMES), FrameWindow(TOKENS, ((2, 9),) * FRAMES)), (1.0, 0.9)),
}


class Layers(torch.nn.Module):
    """A few layers that route their attention through one plan, as a patched transformer does."""

    def __init__(self, plan: Plan, text: bool) -> None:
        super().__init__()
        self.plan, self.text = plan, text
        self.layers = torch.nn.ModuleList(torch.nn.Linear(32, 96) for _ in range(3))

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        for layer in self.layers:
            q, k, v = layer(x).unflatten(2, (3, 2, 16)).unbind(2)
            run = with_text(ENGINE.attend, words, words) if self.text else ENGINE.attend
            x = x + run(q, k, v, self.plan)[0].flatten(2)
        return x


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("name", PLANS)
def test_one_graph_and_the_same_numbers(name: str, text: bool) -> None:
    torch._dynamo.reset()
    graphs: list[Any] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.manual_seed(0)
    model = Layers(PLANS[name], text)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    with torch.no_grad():
        for step in range(3):
            x = torch.randn(1, FRAMES * TOKENS, 32, generator=torch.Generator().manual_seed(step))
            words = torch.randn(1, 3, 2, 16, generator=torch.Generator().manual_seed(step))
            torch.testing.assert_close(compiled(x, words), model(x, words))
    assert len(graphs) == 1


def test_functionalised_windows_are_still_right() -> None:
    torch._dynamo.reset()
    model = Layers(WINDOW, text=False)
    x, words = torch.randn(2, FRAMES * TOKENS, 32), torch.randn(2, 3, 2, 16)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(x, words), model(x, words))
