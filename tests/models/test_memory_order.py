"""Text encoders and transformers of a folder are never in memory together, and results do not change for that."""

import gc
import weakref

import pytest
import torch
from diffusers import DiffusionPipeline
from models import tiny, tiny_cogvideox, tiny_hunyuan, tiny_ltx

from longgen.api import Session
from longgen.config import Request
from longgen.models import common
from longgen.runtime.run import Job
from longgen.types import LoadOptions

FAMILIES = {
    "wan": (lambda: tiny.wan("2.1"), tiny.OVERRIDES),
    "a14b": (lambda: tiny.wan("a14b"), tiny.OVERRIDES),
    "ltx": (tiny_ltx.ltx, tiny_ltx.OVERRIDES),
    "cogvideox": (lambda: tiny_cogvideox.cogvideox("5b"), tiny_cogvideox.OVERRIDES),
    "hunyuan": (tiny_hunyuan.hunyuan, tiny_hunyuan.OVERRIDES),
}
ONE, TWO = "a red circle moving left", "a blue square"


@pytest.fixture(autouse=True)
def heavy(monkeypatch):
    """The tiny text encoders count as ones that must go."""
    monkeypatch.setattr(common, "LIGHT", 0)


class Watch:
    """Counts the weights alive by kind, from the moment that a pipeline gets them."""

    def __init__(self, monkeypatch):
        self.alive, self.peaks, self.loads = {}, [], {"text": 0, "video": 0}
        own = DiffusionPipeline.register_modules

        def registered(pipe, **modules):
            own(pipe, **modules)
            for name, module in modules.items():
                if isinstance(module, torch.nn.Module) and id(module) not in self.alive:
                    self.add("text" if name.startswith("text_encoder") else "video", module)

        monkeypatch.setattr(DiffusionPipeline, "register_modules", registered)

    def add(self, kind, module):
        gc.collect()
        size = sum(p.numel() * p.element_size() for p in module.parameters())
        self.alive[id(module)] = (kind, size)
        self.loads[kind] += 1
        weakref.finalize(module, self.alive.pop, id(module), None)
        self.peaks.append({k: sum(s for kind, s in self.alive.values() if kind == k) for k in ("text", "video")})


def whole(folder):
    """A session on all of a folder's pipeline, loaded by diffusers itself."""
    return Session(DiffusionPipeline.from_pretrained(folder))


def video(session, prompt):
    width = 64 if session.info.family == "ltx" else 48
    plan = session.plan(Request(prompt=prompt, num_frames=17, num_inference_steps=2, height=32, width=width))
    return session.run(plan, Job(keep=True)).latents


@pytest.mark.parametrize("kind", FAMILIES)
def test_text_encoders_go_before_the_rest_comes(kind, tmp_path, monkeypatch):
    make, told = FAMILIES[kind]
    folder = tiny.save(make(), tmp_path / kind, **told)
    want = video(whole(folder), ONE)
    watch = Watch(monkeypatch)
    session = Session(folder, LoadOptions())
    assert torch.equal(video(session, ONE), want)
    assert max(p["text"] for p in watch.peaks) > 0 and max(p["video"] for p in watch.peaks) > 0
    assert not any(p["text"] and p["video"] for p in watch.peaks)
    assert session.model.pipe.text_encoder is None


def test_texts_are_kept_and_only_new_ones_bring_the_encoder_back(tmp_path, monkeypatch):
    folder = tiny.save(tiny.wan(), tmp_path / "wan")
    want = [video(whole(folder), text) for text in (ONE, TWO)]
    watch = Watch(monkeypatch)
    session = Session(folder, LoadOptions())
    first = video(session, ONE)
    made = weakref.ref(session.model.pipe)  # a name for it would keep the transformer in memory
    assert torch.equal(video(session, ONE), first) and session.model.pipe is made()
    assert watch.loads == {"text": 1, "video": 2}
    assert torch.equal(first, want[0]) and torch.equal(video(session, TWO), want[1])
    assert watch.loads == {"text": 2, "video": 4}
    assert not any(p["text"] and p["video"] for p in watch.peaks)


def test_the_texts_of_several_runs_are_read_at_once(tmp_path, monkeypatch):
    folder = tiny.save(tiny.wan(), tmp_path / "wan")
    watch = Watch(monkeypatch)
    session = Session(folder, LoadOptions())
    plans = [session.plan(Request(prompt=text, num_frames=17, num_inference_steps=2)) for text in (ONE, TWO)]
    session.prepare(plans)
    for plan in plans:
        session.run(plan, Job(keep=True))
    assert watch.loads == {"text": 1, "video": 2}
    assert not any(p["text"] and p["video"] for p in watch.peaks)


def test_a_denoiser_reads_what_it_was_not_prepared_for(tmp_path):
    """Beside the transformer then: hooks and patches on it stay."""
    folder = tiny.save(tiny.wan(), tmp_path / "wan")
    model, own = Session(folder, LoadOptions()).model, whole(folder).model
    made = model.pipe
    got, want = (tiny.denoiser(m).denoise(tiny.call(m)) for m in (model, own))
    assert torch.equal(got, want) and model.pipe is made


def test_light_text_encoders_stay_and_nothing_is_loaded_twice(tmp_path, monkeypatch):
    folder = tiny.save(tiny.wan(), tmp_path / "wan")
    want = [video(whole(folder), text) for text in (ONE, TWO)]
    watch = Watch(monkeypatch)
    monkeypatch.setattr(common, "LIGHT", 2**30)
    session = Session(folder, LoadOptions())
    first = video(session, ONE)
    made = session.model.pipe
    assert torch.equal(first, want[0]) and torch.equal(video(session, TWO), want[1])
    assert session.model.pipe is made and watch.loads == {"text": 1, "video": 2}
