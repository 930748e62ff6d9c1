"""Defects of diffusers 0.42.1 that longgen works round. A test turns red when upstream mends one: see footguns.md."""

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, PyramidAttentionBroadcastConfig
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from models import tiny


@torch.no_grad()
def test_pyramid_attention_broadcast_drops_guidance():
    """One state serves both branches, so the unconditional output is the conditional one."""
    transformer = tiny.transformer(4)
    config = PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        cross_attention_block_skip_range=2,
        spatial_attention_block_identifiers=("blocks",),
        cross_attention_block_identifiers=("blocks",),
        current_timestep_callback=lambda: 500,
    )
    x, t = tiny.latents(), torch.tensor([500.0])
    texts = {"cond": torch.randn(1, 12, 16), "uncond": torch.zeros(1, 12, 16)}

    def run(name):
        with transformer.cache_context(name):
            return transformer(x, t, texts[name], return_dict=False)[0]

    assert (run("cond") - run("uncond")).abs().max() > 1e-2
    transformer.enable_cache(config)
    assert torch.equal(run("cond"), run("uncond"))


def test_the_attention_backend_of_one_model_is_that_of_the_process():
    before = _AttentionBackendRegistry._active_backend
    transformer = tiny.transformer(4)
    try:
        transformer.set_attention_backend("_native_math")
        transformer.reset_attention_backend()
        assert _AttentionBackendRegistry._active_backend != before
    finally:
        _AttentionBackendRegistry.set_active_backend(before)


def test_per_token_euler_has_the_opposite_sign():
    scheduler, v = tiny.euler(), torch.ones(1, 3, 2)
    scheduler.set_timesteps(4)
    x, t = torch.zeros(1, 3, 2), scheduler.timesteps[1]
    tokens = t.expand(1, 3)
    per_token = scheduler.step(v, t, x, per_token_timesteps=tokens, return_dict=False)[0]
    scheduler._step_index = 1
    scalar = scheduler.step(v, t, x, return_dict=False)[0]
    assert torch.allclose(per_token, -scalar, atol=1e-6)


def test_ddim_steps_beside_the_timestep_that_it_calls_next():
    """With trailing spacing and a number of steps that does not divide 1000, t − ⌊1000/n⌋ is not the next row."""
    scheduler = CogVideoXDDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(7)
    reached = [int(t) - 1000 // 7 for t in scheduler.timesteps[:-1]]
    assert reached != scheduler.timesteps[1:].tolist()


def test_the_dpm_rule_ignores_the_noise_that_it_is_given():
    scheduler, x = CogVideoXDPMScheduler(timestep_spacing="trailing"), torch.ones(1, 2, 2)
    scheduler.set_timesteps(4)

    def step(noise):
        torch.manual_seed(0)
        return scheduler.step(x, None, 749, None, x, variance_noise=noise)[0]

    assert torch.equal(step(torch.zeros(1, 2, 2)), step(torch.full((1, 2, 2), 9.0)))
