"""Every method on every model family, at 2.5 times the native length, on tiny random checkpoints.

A pair either runs (right length and size, other video than `direct`, hooks once per layer and forward, no trace left
in the model) or is refused before anything loads, as `longgen models` says.
"""

import functools

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


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")

    @functools.cache
    def folder(kind):
        height, width = tiny.size(kind)
        return tiny.save(tiny.wan(kind), root / kind, native_size=[height, width], steps=STEPS)

    return folder


def generate(session, method):
    plan = session.plan(Request(prompt="a red circle moving left", method=method, num_frames=FRAMES))
    return session.run(plan, Job(keep=True))


class Counter:
    """Counts forwards of self-attention modules and of whole transformers."""

    def __init__(self, model):
        self.attention = self.forwards = 0
        for transformer in model.experts:
            transformer.register_forward_hook(lambda *_: self.add(forwards=1))
            for block in transformer.blocks:
                block.attn1.register_forward_hook(lambda *_: self.add(attention=1))

    def add(self, attention=0, forwards=0):
        self.attention += attention
        self.forwards += forwards


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", sorted(registry.METHODS))
def test_a_method_on_a_model(folders, kind, method):
    session = Session(folders(kind), LoadOptions())
    name, reason = BESIDE.get(method, method), refusal(method, session.info)
    if reason is not None:
        with pytest.raises(BadInput):
            generate(session, name)
        assert session._model is None, "weights were loaded for a refused pair"
        return
    plain = generate(session, "direct")
    counter = Counter(session.model)
    outcome = generate(session, name)
    assert outcome.frames.shape == (FRAMES, *tiny.size(kind), 3) and outcome.frames.dtype == np.uint8
    assert outcome.latents.shape[2] == 12 and torch.isfinite(outcome.latents).all()
    assert counter.attention == counter.forwards * session.info.layers > 0
    assert counter.forwards >= 2 * outcome.sidecar["forwards"]  # both branches; more where experts share a call
    if method != "direct":
        assert (outcome.latents - plain.latents).abs().max() > 1e-4
    assert torch.equal(generate(session, "direct").latents, plain.latents)  # nothing of the method is left
