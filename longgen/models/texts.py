"""Which text tokens each latent of a call sees: a `Mix` made concrete over encoded prompts.

Distinct texts lie one after another along the token axis; each latent attends to its own segment (exact: one text per
latent), or to all segments with a penalty on each. Knows tensors only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from longgen.errors import BadInput
from longgen.types import Mix


@dataclass(frozen=True)
class TextPlan:
    """Text of one call on one side of guidance.

    Args:
        tokens: [1, m·L, D], m texts of L tokens.
        count: m.
        late, early: index (0 … m − 1) of the text that each latent sees, and the same for layers before `split`.
        split: share of the layers that count as early; 0 for none.
        penalties: [T, m], taken from the logits between latent i and text j; every latent then sees all texts.
    """

    tokens: Tensor
    count: int = 1
    late: tuple[int, ...] = ()
    early: tuple[int, ...] = ()
    split: float = 0.0
    penalties: Tensor | None = None

    @property
    def plain(self) -> bool:
        """One text for all latents and layers."""
        return self.count == 1

    def at(self, layer: int, layers: int) -> tuple[int, ...]:
        return self.early if layer < self.split * layers else self.late


def lerp(texts: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Σ w_j·e_j over texts [1, L, D], in fp32."""
    mixed = sum(float(w) * e.float() for w, e in zip(weights, texts, strict=True) if w != 0)
    assert isinstance(mixed, Tensor)
    return mixed.to(texts[0].dtype)


def slerp(texts: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Spherical interpolation of two texts token by token; where a token is zero or parallel, linear.

    sin((1 − w)·Ω)/sin Ω · e_0 + sin(w·Ω)/sin Ω · e_1, Ω the angle between the tokens.
    """
    used = [j for j in range(len(texts)) if weights[j] != 0]
    if len(used) > 2:
        raise BadInput(f"spherical mixing takes two prompts at a time, got {len(used)}")
    a, b = (texts[j].float() for j in used)
    w = float(weights[used[1]])
    norms = a.norm(dim=-1, keepdim=True) * b.norm(dim=-1, keepdim=True)
    cosine = (a * b).sum(-1, keepdim=True) / norms.clamp_min(1e-12)
    omega = torch.acos(cosine.clamp(-1, 1))
    sine = torch.sin(omega)
    curved = (torch.sin((1 - w) * omega) * a + torch.sin(w * omega) * b) / sine.clamp_min(1e-6)
    straight = (norms < 1e-12) | (sine < 1e-4)
    return torch.where(straight, (1 - w) * a + w * b, curved).to(texts[0].dtype)


def blend(texts: Sequence[Tensor], weights: Tensor, spherical: bool) -> Tensor:
    """One text [1, L, D]; a one-hot row gives that text untouched."""
    used = weights.nonzero().flatten().tolist()
    if len(used) == 1 and float(weights[used[0]]) == 1.0:
        return texts[used[0]]
    return slerp(texts, weights) if spherical else lerp(texts, weights)


def outputs(mix: Mix, texts: Sequence[Tensor]) -> list[tuple[TextPlan, Tensor | None]]:
    """The model runs that a mix asks for: (text plan, weight per latent [T] or None for the only run)."""
    if mix.weights.shape[1] != len(texts):
        raise ValueError(f"a mix over {mix.weights.shape[1]} texts, but the schedule has {len(texts)}")
    if mix.space != "output":
        return [(_plan(mix, texts), None)]
    if mix.early is not None:
        raise BadInput("early layers can have other prompts in the text space only, not in the output space")
    used = [j for j in range(len(texts)) if bool((mix.weights[:, j] != 0).any())]
    if len(used) == 1:
        return [(TextPlan(texts[used[0]]), None)]
    return [(TextPlan(texts[j]), mix.weights[:, j]) for j in used]


def _plan(mix: Mix, texts: Sequence[Tensor]) -> TextPlan:
    if mix.space == "bias":
        if mix.early is not None:
            raise BadInput("early layers can have other prompts in the text space only, not in the bias space")
        if len(texts) == 1:
            return TextPlan(texts[0])  # one penalty for all tokens cancels in the softmax
        return TextPlan(torch.cat(list(texts), dim=1), len(texts), penalties=mix.weights)
    rows: dict[tuple[float, ...], int] = {}
    late = tuple(rows.setdefault(tuple(row), len(rows)) for row in mix.weights.tolist())
    early = tuple(rows.setdefault(tuple(row), len(rows)) for row in (() if mix.early is None else mix.early.tolist()))
    distinct = [blend(texts, torch.tensor(row), mix.spherical) for row in rows]
    split = mix.split if mix.early is not None else 0.0
    return TextPlan(torch.cat(distinct, dim=1), len(distinct), late, early, split)
