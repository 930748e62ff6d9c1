"""Every method on every model family, at 2.5 times the native length, on tiny random checkpoints.

A pair either runs (right length and size, other video than `direct`, hooks once per layer and forward, no trace left
in the model) or is refused before anything loads, as `longgen models` says.
"""

import functools
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from models import tiny

from longgen import registry
from longgen.api import Session
from longgen.config import Request
from longgen.errors import BadInput
from longgen.runtime.matrix import refusal
from longgen.runtime.run import Job
from longgen.types import LoadOptions

KINDS = ("2.1", "a14b", "ti2v")
FRAMES, STEPS = 43, 4  # native is 17: 12 latents, two frames trimmed after decode
# Parts that do nothing by themselves: they act beside another method's loop.
BESIDE = {"adain": "extend,adain", "ditctrl": "windows,ditctrl", "freeinit": "freeinit"}


@dataclass
class Bench:
    """One family's session, its `direct` video, and counters on its modules."""

    session: Session
    plain: torch.Tensor
    counts: Counter = field(default_factory=Counter)

    def watch(self):
        for transformer in self.session.model.experts:
            transformer.register_forward_hook(lambda *_: self.counts.update(["forward"]))
            for block in transformer.blocks:
                block.attn1.register_forward_hook(lambda *_: self.counts.update(["attention"]))

    def traces(self):
        """What a patch may touch, by identity."""
        experts = self.session.model.experts
        processors = [id(p) for t in experts for b in t.blocks for p in (b.attn1.processor, b.attn2.processor)]
        return processors + [id(table) for t in experts for table in (t.rope.freqs_cos, t.rope.freqs_sin)]


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")

    @functools.cache
    def bench(kind):
        folder = tiny.save(tiny.wan(kind), root / kind, native_size=list(tiny.size(kind)), steps=STEPS)
        session = Session(folder, LoadOptions())
        made = Bench(session, generate(session, "direct").latents)
        made.watch()
        return made

    return bench


def generate(session, method):
    plan = session.plan(Request(prompt="a red circle moving left", method=method, num_frames=FRAMES))
    return session.run(plan, Job(keep=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", sorted(registry.METHODS))
def test_a_method_on_a_model(benches, kind, method):
    bench, name = benches(kind), BESIDE.get(method, method)
    session = bench.session
    if refusal(method, session.info) is not None:
        fresh = Session(session.folder, LoadOptions())
        with pytest.raises(BadInput):
            generate(fresh, name)
        assert fresh._model is None, "weights were loaded for a refused pair"
        return
    bench.counts.clear()
    before = bench.traces()
    outcome = generate(session, name)
    assert outcome.frames.shape == (FRAMES, *tiny.size(kind), 3) and outcome.frames.dtype == np.uint8
    assert outcome.latents.shape[2] == 12 and torch.isfinite(outcome.latents).all()
    assert bench.counts["attention"] == bench.counts["forward"] * session.info.layers
    assert bench.counts["forward"] >= 2 * outcome.sidecar["calls"] > 0  # two branches; more where experts share a call
    assert torch.equal(outcome.latents, bench.plain) == (method == "direct")
    assert bench.traces() == before


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_a_method_is_left(benches, kind):
    """Bit for bit, after methods that patch everything there is."""
    bench = benches(kind)
    generate(bench.session, "freelong")
    generate(bench.session, "riflex,ultravico,windows")
    assert torch.equal(generate(bench.session, "direct").latents, bench.plain)
