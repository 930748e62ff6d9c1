"""The plan's calls and FLOPs are those of the run, counted; for every family, loop and kind of prompt."""

import functools
import itertools

import pytest
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

from longgen.api import Session
from longgen.attention.cost import counter
from longgen.config import Request
from longgen.errors import BadInput
from longgen.runtime.sample import Sampler, conditions
from longgen.types import LoadOptions

ONE = "a red circle moving left on black background blurry star right gray"  # as many words as the encoders take
TWO = f"{ONE} | a blue square moving right on gray background blurry star left black"
TOKENS = (4, 6)  # of a latent: enough that text does not outweigh the video
FAMILIES = {
    "2.1": (lambda: tiny.wan("2.1"), tiny.OVERRIDES),
    "a14b": (lambda: tiny.wan("a14b"), tiny.OVERRIDES),
    "ti2v": (lambda: tiny.wan("ti2v"), tiny.OVERRIDES),
    "ltx": (tiny_ltx.ltx, tiny_ltx.OVERRIDES),
    "ltx-condition": (lambda: tiny_images.ltx_i2v(condition=True), tiny_ltx.OVERRIDES),
    "cogvideox-2b": (lambda: tiny_cogvideox.cogvideox("2b"), tiny_cogvideox.OVERRIDES),
    "cogvideox-5b": (lambda: tiny_cogvideox.cogvideox("5b"), tiny_cogvideox.OVERRIDES),
    "cogvideox-1.5": (lambda: tiny_cogvideox.cogvideox("1.5"), tiny_cogvideox.OVERRIDES),
    "hunyuan": (tiny_hunyuan.hunyuan, tiny_hunyuan.OVERRIDES),
    "hunyuan15": (tiny_hunyuan15.hunyuan15, {**tiny_hunyuan15.OVERRIDES, "negative_prompt": ONE}),
    "ltx2": (tiny_ltx2.ltx2, tiny_ltx2.OVERRIDES),
    "skyreels": (tiny_skyreels.skyreels, tiny_skyreels.OVERRIDES),
    "vace": (tiny_vace.vace, tiny.OVERRIDES),
}


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")

    @functools.cache
    def session(kind):
        make, told = FAMILIES[kind]
        return Session(
            tiny.save(make(), root / kind, **{**told, "native_frames": 2 * told["native_frames"] // 3}), LoadOptions()
        )

    return session


def counted(session, **asked):
    """(plan, FLOPs of its sampling, forwards of the network)."""
    unit = session.info.spatial * session.info.patch[1]
    size = {name: n * unit for name, n in zip(("height", "width"), TOKENS)}
    if session.info.variant == "cogvideox-1.5":  # knows its rotary positions up to its native size
        size = dict(zip(size, session.info.native_size))
    frames = (round(session.info.native_latents * 2.5) - 1 - session.info.lead_pad) * session.info.stride
    asked = {"prompt": ONE, "num_frames": frames, "num_inference_steps": 2, **size, **asked}
    plan = session.plan(Request(**asked))
    runs = []
    hooks = [t.register_forward_hook(lambda *_: runs.append(1)) for t in session.model.experts]
    sampler = Sampler(plan, session.model, conditions(plan))
    steps = sampler.run()
    with counter() as flops:
        totals = [(p.round, p.done, p.total) for p in steps]
    for hook in hooks:
        hook.remove()
    assert plan.cost.calls == sampler.forwards
    assert all(a[1] < b[1] <= b[2] for a, b in itertools.pairwise(totals) if a[0] == b[0])
    assert totals[-1][1] == totals[-1][2]
    return plan, flops.get_total_flops(), len(runs)


def agree(session, **asked):
    plan, flops, runs = counted(session, **asked)
    assert plan.cost.forwards == runs
    assert plan.cost.flops == pytest.approx(flops, rel=0.02)
    return plan


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("method", ["direct", "windows"])
def test_calls_and_flops_of_every_family(sessions, kind, method):
    agree(sessions(kind), method=method)


@pytest.mark.parametrize("kind", ["2.1", "a14b", "ti2v", "ltx", "cogvideox-5b", "skyreels"])
@pytest.mark.parametrize("method", ["fifo", "miga", "extend"])
def test_levels_of_their_own(sessions, kind, method):
    """Modulations per token or latent; and a call with levels on both sides of an expert's boundary runs twice."""
    queue = {"fifo.partitions": 2} if method == "fifo" else {}
    plan = agree(sessions(kind), method=method, set=queue)
    if kind == "a14b" and method == "fifo":
        assert plan.cost.forwards > 2 * plan.cost.calls


@pytest.mark.parametrize("method", ["freelong", "freelongpp", "freenoise", "lvsa", "freepca", "ultravico", "flowlong"])
def test_routes(sessions, method):
    """At 96 tokens in a latent: beside fewer, the filters and components of spectral methods would count."""
    agree(sessions("2.1"), method=method, height=128, width=192, num_inference_steps=4)


@pytest.mark.parametrize("sparse", ["none", "0", "all"])
def test_layers_of_two_kinds(sessions, sparse):
    asked = {"height": 128, "width": 192, "num_inference_steps": 4, "set": {"freeloc.sparse": sparse}}
    agree(sessions("2.1"), method="freeloc", **asked)


@pytest.mark.parametrize("kind", ["2.1", "ltx", "ltx-condition", "cogvideox-5b", "hunyuan"])
def test_later_rounds_start_later(sessions, kind):
    plan = agree(sessions(kind), method="freeinit", set={"freeinit.rounds": 2}, num_inference_steps=8)
    assert plan.cost.calls < 2 * plan.steps


@pytest.mark.parametrize("kind", ["2.1", "cogvideox-5b", "hunyuan"])
@pytest.mark.parametrize("schedule", ["hold", "window", "travel", "blend"])
def test_prompts(sessions, kind, schedule):
    agree(sessions(kind), prompt=TWO, schedule=schedule, method="windows")


@pytest.mark.parametrize("schedule", ["relay", "inject"])
def test_prompts_of_cross_attention(sessions, schedule):
    agree(sessions("2.1"), prompt=TWO, schedule=schedule, method="windows")


@pytest.mark.parametrize("kind", ["cogvideox-5b", "hunyuan"])
def test_windows_that_share_keys_run_once(sessions, kind):
    asked = {"prompt": TWO, "method": "windows,ditctrl", "num_frames": 41}
    with pytest.raises(BadInput, match="shares keys between windows that run once; use window"):
        sessions(kind).plan(Request(**asked))
    plan = sessions(kind).plan(Request(**asked, schedule="window"))
    assert plan.cost.forwards == plan.cost.branches * plan.cost.calls


def test_a_leading_latent_is_no_frame(sessions):
    """CogVideoX 1.5 denoises one latent in front that is never decoded."""
    plan = sessions("cogvideox-1.5").plan(Request(prompt=ONE, method="windows", num_frames=25))
    latents, frames = plan.info.native_latents, plan.info.native_frames
    assert any(f"windows of {latents} latents ({(latents - 2) * 4 + 1} frames)" in note for note in plan.notes)
    assert (latents - 2) * 4 + 1 <= frames < (latents - 1) * 4 + 1
    spans = plan.windows_in_frames()
    assert spans[0][0] == 0 and spans[-1][1] == plan.frames and spans[0][1] == (latents - 2) * 4 + 1


def test_a_long_plan_is_quick_and_scaled(sessions):
    """Beyond what is rehearsed, the rest costs the same on average."""
    plan = sessions("2.1").plan(Request(prompt=ONE, method="windows", num_frames=20_001, num_inference_steps=50))
    assert plan.cost.calls == 50 * len(plan.windows) and plan.cost.forwards == 2 * plan.cost.calls


@pytest.mark.parametrize("kind", ["2.1", "cogvideox-5b"])
def test_guidance_off(sessions, kind):
    on, off = (agree(sessions(kind), method="direct", guidance_scale=scale) for scale in (4.0, 1.0))
    assert off.cost.flops == pytest.approx(on.cost.flops / 2)
    assert (on.cost.branches, off.cost.branches) == (2, 1)
