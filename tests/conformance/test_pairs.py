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
from models import (
    tiny,
    tiny_cogvideox,
    tiny_hunyuan,
    tiny_hunyuan15,
    tiny_images,
    tiny_ltx,
    tiny_ltx2,
    tiny_skyreels,
    tiny_vace,
)

from longgen import registry
from longgen.api import Session
from longgen.config import Request
from longgen.errors import BadInput
from longgen.runtime.matrix import refusal
from longgen.runtime.run import Job
from longgen.types import LoadOptions

# family → how its tiny pipeline is made, and what its longgen.json states
FAMILIES = {
    "2.1": (lambda: tiny.wan("2.1"), {"native_size": list(tiny.size("2.1"))}),
    "a14b": (lambda: tiny.wan("a14b"), {"native_size": list(tiny.size("a14b"))}),
    "ti2v": (lambda: tiny.wan("ti2v"), {"native_size": list(tiny.size("ti2v"))}),
    # At 12.5 frames per second 2.5 native lengths pass the period that riflex lowers.
    "ltx": (tiny_ltx.ltx, {**tiny_ltx.OVERRIDES, "fps": 12.5}),
    "cogvideox-2b": (lambda: tiny_cogvideox.cogvideox("2b"), tiny_cogvideox.OVERRIDES),
    "cogvideox-5b": (lambda: tiny_cogvideox.cogvideox("5b"), tiny_cogvideox.OVERRIDES),
    "hunyuan": (tiny_hunyuan.hunyuan, tiny_hunyuan.OVERRIDES),
    "hunyuan15": (tiny_hunyuan15.hunyuan15, tiny_hunyuan15.OVERRIDES),
    "skyreels": (tiny_skyreels.skyreels, tiny_skyreels.OVERRIDES),
    "ltx2": (tiny_ltx2.ltx2, {**tiny_ltx2.OVERRIDES, "fps": 12.5}),
    "vace": (tiny_vace.vace, {}),
    "2.1-i2v": (lambda: tiny_images.wan_i2v("2.1"), {"native_size": list(tiny.size("2.1"))}),
    "cogvideox-5b-i2v": (lambda: tiny_images.cogvideox_i2v("5b"), tiny_cogvideox.OVERRIDES),
}
# Families that share another's patches: one method per kind of patch and loop in every run, the rest in the slow half.
ONE_OF_A_KIND = {"direct", "extend", "fifo", "freelongpp", "freenoise", "riflex", "ultravico", "windows"}
SOME = dict.fromkeys(("hunyuan15", "ltx2", "skyreels", "vace", "2.1-i2v", "cogvideox-5b-i2v"), ONE_OF_A_KIND)
KINDS = tuple(FAMILIES)
LENGTH, STEPS = 2.5, 4  # of the native length, one frame less than the VAE decodes
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
            for module in self_attention(transformer):
                module.register_forward_hook(lambda *_: self.counts.update(["attention"]))

    def traces(self):
        """What a patch may touch, by identity."""
        experts = self.session.model.experts
        processors = [id(m.processor) for t in experts for m in t.modules() if hasattr(m, "processor")]
        hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for t in experts for m in t.modules()]
        return processors + hooks + [id(table) for t in experts for table in t.buffers()]


def self_attention(transformer):
    """The modules in which video tokens attend to each other."""
    named = [(n.rsplit(".", 1)[-1], n, m) for n, m in transformer.named_modules() if hasattr(m, "processor")]
    return [m for last, name, m in named if last in ("attn1", "attn") and "embedder" not in name]


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")

    @functools.cache
    def bench(kind):
        make, told = FAMILIES[kind]
        folder = tiny.save(make(), root / kind, **{**told, "steps": STEPS})
        session = Session(folder, LoadOptions())
        if session.info.needs_image:
            tiny_images.image(*session.info.native_size).save(folder / "first.png")
        made = Bench(session, generate(session, "direct").latents)
        made.watch()
        return made

    return bench


def generate(session, method):
    image = str(session.folder / "first.png") if session.info.needs_image else None
    asked = Request(prompt="a red circle moving left", method=method, num_frames=frames_of(session), image=image)
    return session.run(session.plan(asked), Job(keep=True))


def frames_of(session):
    latents = round(session.info.native_latents * LENGTH) - 1
    return (latents - 1) * session.info.stride


PAIRS = [
    pytest.param(kind, method, marks=[] if method in SOME.get(kind, {method}) else [pytest.mark.slow])
    for method in sorted([*registry.METHODS, *registry.COMPOSITIONS])
    for kind in KINDS
]


@pytest.mark.parametrize(("kind", "method"), PAIRS)
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
    shape = (frames_of(session), *session.info.native_size, 3)
    assert outcome.frames.shape == shape and outcome.frames.dtype == np.uint8
    assert outcome.latents.shape[2] == session.info.latents_for(shape[0]) and torch.isfinite(outcome.latents).all()
    assert bench.counts["attention"] == bench.counts["forward"] * (session.info.layers + session.info.control_layers)
    branches = 1 if session.info.embedded_guidance else 2
    assert bench.counts["forward"] >= branches * outcome.sidecar["calls"] > 0  # more where experts share a call
    assert torch.equal(outcome.latents, bench.plain) == (method == "direct")
    assert bench.traces() == before


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_a_method_is_left(benches, kind):
    """Bit for bit, after methods that patch everything there is."""
    bench = benches(kind)
    generate(bench.session, "freelong")
    turning = "riflex," if refusal("riflex", bench.session.info) is None else ""
    generate(bench.session, turning + "ultravico,windows")
    assert torch.equal(generate(bench.session, "direct").latents, bench.plain)
