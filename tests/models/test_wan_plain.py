"""Truth from outside: the denoiser in a plain loop gives what WanPipeline itself gives."""

import pytest
import torch
from models import tiny

from longgen.models import wan
from longgen.models.describe import read_folder
from longgen.protocols import Conditions
from longgen.types import Call, LoadOptions

PROMPT, NEGATIVE = "a red circle moving left", "blurry gray"


def loop(model, prompts, x, steps):
    """x_T → x_0 over the checkpoint's own solver."""
    solver = model.solver(None, steps, None)
    denoiser = model.denoiser(Conditions(prompts), model.info.grid(17, 32, 48), steps)
    memory, frames = solver.init(), tuple(range(x.shape[2]))
    for row in range(steps):
        clean = denoiser.denoise(Call(x, solver.schedule[row], frames))
        x, memory = solver.step(memory, x, clean, row)
    return x


@pytest.mark.parametrize("steps", [4, 7, 25, 50])
@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("solver", ["unipc", "euler"])
@pytest.mark.parametrize("kind", ["2.1", "a14b", "ti2v"])
def test_equals_the_pipeline(kind, solver, scale, steps):
    pipe, x = tiny.wan(kind, solver), tiny.latents()
    height, width = tiny.size(kind)
    want = pipe(
        PROMPT, NEGATIVE, height, width, 17, steps, scale, latents=x, output_type="latent", max_sequence_length=12
    ).frames
    got = loop(wan.from_pipeline(pipe), tiny.Prompts((PROMPT,), (NEGATIVE,), scale), x, steps)
    assert (got - want).abs().max() < 1e-5
    if solver == "unipc":  # takes the clean estimate itself, so not one bit differs
        assert torch.equal(got, want)


def test_prompts_and_levels_matter():
    """Guards the tests above: a model that ignored its text would pass them."""
    model = wan.from_pipeline(tiny.wan())
    one, other = (tiny.denoiser(model, texts=(t,)) for t in ("a red circle", "a blue star on black"))
    early, late = tiny.call(model, 0), tiny.call(model, 2)
    assert (one.denoise(early) - other.denoise(early)).abs().max() > 1e-2
    assert (one.denoise(early) - one.denoise(late)).abs().max() > 1e-2


def test_folder_and_pipeline_in_hand_give_the_same_bits(tmp_path):
    pipe = tiny.wan("a14b")
    folder = tiny.save(pipe, tmp_path / "model")
    files = read_folder(folder)
    loaded = wan.load(wan.describe(files), folder, LoadOptions())
    x, prompts = tiny.latents(), tiny.Prompts()
    assert torch.equal(loop(loaded, prompts, x, 4), loop(wan.from_pipeline(pipe), prompts, x, 4))


def test_pipeline_is_left_as_it_was():
    pipe, x = tiny.wan("a14b"), tiny.latents()
    kept = {name: id(processor) for name, processor in pipe.transformer.attn_processors.items()}
    config = dict(pipe.scheduler.config)
    before = pipe(PROMPT, "", 32, 48, 17, 4, latents=x, output_type="latent", max_sequence_length=12).frames
    loop(wan.from_pipeline(pipe), tiny.Prompts(), x, 4)
    after = pipe(PROMPT, "", 32, 48, 17, 4, latents=x, output_type="latent", max_sequence_length=12).frames
    assert torch.equal(before, after)
    assert kept == {name: id(processor) for name, processor in pipe.transformer.attn_processors.items()}
    assert config == dict(pipe.scheduler.config)
