"""The plan's memory is what counting every tensor finds, within a tenth: over families, sizes, lengths and loops."""

import functools

import pytest
import torch
from models import tiny, tiny_cogvideox, tiny_hunyuan, tiny_ltx, tiny_ltx2, tiny_skyreels
from models.memory import PeakMemory

from longgen.api import Session
from longgen.config import Request
from longgen.runtime.cost import REHEARSED
from longgen.runtime.sample import Sampler, conditions
from longgen.types import LoadOptions

WORDS = "a red circle moving left on black background blurry star right"
# The proportions of real checkpoints: a feed-forward several times as wide as the hidden state.
FAMILIES = {
    "wan": (lambda: tiny.wan("2.1", ffn_dim=144), tiny.OVERRIDES),
    "ti2v": (lambda: tiny.wan("ti2v", ffn_dim=96), tiny.OVERRIDES),
    "ltx": (tiny_ltx.ltx, tiny_ltx.OVERRIDES),
    "cogvideox-2b": (lambda: tiny_cogvideox.cogvideox("2b"), tiny_cogvideox.OVERRIDES),
    "cogvideox-5b": (lambda: tiny_cogvideox.cogvideox("5b"), tiny_cogvideox.OVERRIDES),
    "hunyuan": (lambda: tiny_hunyuan.hunyuan(mlp_ratio=4.0), tiny_hunyuan.OVERRIDES),
    "ltx2": (tiny_ltx2.ltx2, tiny_ltx2.OVERRIDES),
    "skyreels": (lambda: tiny_skyreels.skyreels("df", ffn_dim=144), tiny_skyreels.OVERRIDES),
}
# (tokens down and across, length in native clips): no formula fits all of them by chance
SAMPLED = {"direct": (((4, 6), 1.0), ((8, 10), 1.7)), "windows": (((6, 8), 2.4),)}
DECODED = (((4, 6), 3.0), ((8, 10), 1.7))


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")

    @functools.cache
    def session(kind, dtype=None):
        make, told = FAMILIES[kind]
        folder = root / kind
        if not folder.exists():
            tiny.save(make(), folder, **{**told, "native_frames": 2 * told["native_frames"] // 3, "steps": 3})
        return Session(folder, LoadOptions(dtype=dtype))

    return session


def planned(session, method, size, length, **more):
    info = session.info
    unit = info.spatial * info.patch[1]
    frames = (round(info.native_latents * length) - 1) * info.stride + 1
    asked = {"height": size[0] * unit, "width": size[1] * unit, "num_frames": frames, "method": method, **more}
    return session.plan(Request(prompt=WORDS, negative_prompt=WORDS, device="cpu", **asked))


def sampled(session, plan):
    """Most bytes alive in sampling, weights and texts from before aside."""
    session.prepare([plan])
    sampler = Sampler(plan, session.model, conditions(plan))
    with PeakMemory() as memory:
        for _ in sampler.run():
            pass
    return memory.peak


def decoded(session, plan):
    grid = plan.grid
    latents = torch.randn(grid.shape, generator=torch.Generator().manual_seed(0))
    with PeakMemory() as memory:
        for _ in session.model.decode(iter(latents.split(1, dim=2)), plan.request.decode_chunk):
            pass
    return memory.peak


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("method", SAMPLED)
def test_sampling(sessions, kind, method):
    for size, length in SAMPLED[method]:
        plan = planned(sessions(kind), method, size, length)
        cost = plan.cost.memory
        assert cost.activations + cost.latents == pytest.approx(sampled(sessions(kind), plan), rel=0.1), (size, length)


@pytest.mark.parametrize("kind", ["wan", "ti2v", "ltx", "cogvideox-5b", "skyreels"])
def test_queues(sessions, kind):
    plan = planned(sessions(kind), "fifo", (4, 6), 2.0)
    cost = plan.cost.memory
    assert plan.cost.calls < REHEARSED
    assert cost.activations + cost.latents == pytest.approx(sampled(sessions(kind), plan), rel=0.1)


@pytest.mark.parametrize("kind", FAMILIES)
def test_half_precision(sessions, kind):
    session = sessions(kind, "bfloat16")
    plan = planned(session, "direct", (4, 6), 1.7, dtype="bf16")
    cost = plan.cost.memory
    assert cost.activations + cost.latents == pytest.approx(sampled(session, plan), rel=0.1)


@pytest.mark.parametrize("kind", FAMILIES)
def test_decoding(sessions, kind):
    for size, length in DECODED:
        plan = planned(sessions(kind), "direct", size, length, decode_chunk=1)
        assert plan.cost.memory.decode == pytest.approx(decoded(sessions(kind), plan), rel=0.1), (size, length)


@pytest.mark.parametrize("kind", FAMILIES)
def test_weights(sessions, kind):
    session = sessions(kind)
    cost, pipe = planned(session, "direct", (4, 6), 1.0).cost.memory, session.model.pipe
    size = {n: sum(t.numel() * 4 for t in getattr(pipe, n).state_dict().values()) for n in ("transformer", "vae")}
    assert (cost.weights, cost.vae) == (size["transformer"], size["vae"])
    assert cost.peak == cost.weights + cost.vae + cost.latents + max(cost.activations, cost.decode)
    assert cost.text_encoder > 0
