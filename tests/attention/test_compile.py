"""Plans are constants to the compiler: one graph, no breaks, the same numbers."""

from __future__ import annotations

import math
import re
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


@pytest.mark.slow
def test_generated_code_keeps_windows_as_views() -> None:
    """Inductor once copied every window out (U-fold keys); now no buffer is larger than the stacked q, k and v."""
    from torch._inductor.utils import run_and_get_code

    torch._dynamo.reset()
    frames, tokens, window = 24, 16, 6
    starts = [min(max(i - 3, 0), frames - window) for i in range(frames)]
    plan = FrameWindow(tokens, tuple((s, s + window) for s in starts))

    def layer(x: Tensor) -> Tensor:
        q, k, v = x.unflatten(2, (3, 2, 16)).unbind(2)
        return ENGINE.attend(q, k * 2.0, v + 1.0, plan)[0]  # elementwise work to fuse, as rotation is

    x = torch.randn(1, frames * tokens, 96)
    with torch.no_grad():
        out, code = run_and_get_code(torch.compile(layer, fullgraph=True), x)
        torch.testing.assert_close(out, layer(x))
    shapes = re.findall(r"empty_strided_cpu\(\(([\d, ]+)\)", code[0])
    made = [math.prod(int(n) for n in shape.split(",") if n.strip()) for shape in shapes]
    assert made and max(made) <= x.numel()
