"""Counted FLOPs equal the formulas: of plans, and of a whole Wan-2.1-1.3B forward (on no memory at all)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import dense_reference as reference
import pytest
import torch
from hypothesis import given, settings

from longgen.attention import sdpa
from longgen.attention.cost import counter, flops, pairs
from longgen.attention.plans import run
from longgen.types import ModelInfo, Union


@pytest.mark.parametrize("kernel", [sdpa.cpu, sdpa.math])
@given(case=reference.cases())
@settings(max_examples=60, deadline=None)
def test_counted_flops_are_the_formula(kernel: Any, case: Any) -> None:
    q, k, v, plan, scale = case
    with counter() as counted:
        run(kernel, q, k, v, plan, scale)
    want = flops(plan, q.shape[1], k.shape[1], q.shape[2], q.shape[3], q.shape[0])
    assert counted.get_total_flops() == pytest.approx(want, rel=0.02)


@given(case=reference.cases())
@settings(max_examples=60, deadline=None)
def test_pairs_are_the_ones_in_the_mask(case: Any) -> None:
    q, k, _, plan, _ = case
    masks = [
        reference.frame_mask(p, q.shape[1], k.shape[1]) for p in (plan.parts if isinstance(plan, Union) else [plan])
    ]
    assert pairs(plan, q.shape[1], k.shape[1]) == sum(int(m.sum()) for m in masks)


@pytest.mark.parametrize("latents", [21, 81])
def test_a_whole_forward_costs_what_the_plan_says(latents: int) -> None:
    """Wan-2.1-1.3B at 480 × 832, counted on the meta device, against `runtime.cost.forward_flops`."""
    from diffusers import WanTransformer3DModel

    from longgen.runtime.cost import forward_flops
    from longgen.runtime.rehearse import Forward

    shape = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30}
    with torch.device("meta"), torch.no_grad():
        model = WanTransformer3DModel(**shape).bfloat16()
        x, text = torch.empty(1, 16, latents, 60, 104).bfloat16(), torch.empty(1, 512, 4096).bfloat16()
        with counter() as counted:
            model(x, torch.zeros(1), text, return_dict=False)
    info = SimpleNamespace(
        layers=30,
        heads=12,
        head_dim=128,
        ffn_dim=8960,
        text_tokens=512,
        capabilities=(),
        patch=(1, 2, 2),
        footprint=None,
        control_layers=0,
    )
    want = forward_flops(cast(ModelInfo, info), Forward(latents, False), 30 * 52, float(latents))
    assert counted.get_total_flops() == pytest.approx(want, rel=0.02)


@pytest.mark.parametrize("latents", [9, 33])
def test_a_joint_forward_costs_what_the_plan_says(latents: int) -> None:
    """HunyuanVideo's width at 720 × 1280, two layers of either kind, 256 words in the sequence."""
    from diffusers import HunyuanVideoTransformer3DModel

    from longgen.runtime.cost import forward_flops
    from longgen.runtime.rehearse import Forward

    with torch.device("meta"), torch.no_grad():
        model = HunyuanVideoTransformer3DModel(num_layers=2, num_single_layers=2, num_refiner_layers=1).bfloat16()
        x, text, mask = (torch.empty(1, *shape).bfloat16() for shape in ((16, latents, 90, 160), (256, 4096), (256,)))
        pooled, guidance = torch.empty(1, 768).bfloat16(), torch.empty(1).bfloat16()
        with counter() as counted:
            model(x, torch.zeros(1), text, mask, pooled, guidance, return_dict=False)
    info = SimpleNamespace(
        layers=4, heads=24, head_dim=128, ffn_dim=12288, text_tokens=256, capabilities=("joint_text",),
        patch=(1, 2, 2), footprint=None, control_layers=0,
    )  # fmt: skip
    want = forward_flops(cast(ModelInfo, info), Forward(latents, False), 45 * 80, float(latents))
    assert counted.get_total_flops() == pytest.approx(want, rel=0.02)
