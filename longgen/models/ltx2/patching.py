"""Patches on an LTX-2 transformer's video stream: LTX-Video's, with gates on heads and another order of channels.

A pair that turns together is two halves of a head apart (`split`) where LTX-Video's are neighbours. Queries and keys
are reordered alike, which no product of them notices, so LTX-Video's tables and patches serve. Knows
LTX2VideoTransformer3DModel's attention. Does not know guidance or schedules.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longgen.models.ltx import patching as ltx
from longgen.models.patching import Part, project_out


class SelfProcessor(ltx.SelfProcessor):
    """For `attn1`."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        query_rotary_emb: Part | None = None,
        key_rotary_emb: Part | None = None,
        perturbation_mask: Tensor | None = None,
        all_perturbed: bool | None = None,
    ) -> Tensor:
        assert query_rotary_emb is not None
        q, k, v = ltx.heads(attn, hidden_states, hidden_states)
        if attn.rope_type == "split":
            q, k, query_rotary_emb = paired(q), paired(k), spread(query_rotary_emb)
        return gated_out(attn, hidden_states, self.rows(q, k, v, *query_rotary_emb))


class CrossProcessor(ltx.CrossProcessor):
    """For `attn2`; hands plain rows to the processor that it replaced."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        query_rotary_emb: Part | None = None,
        key_rotary_emb: Part | None = None,
        perturbation_mask: Tensor | None = None,
        all_perturbed: bool | None = None,
    ) -> Tensor:
        assert encoder_hidden_states is not None
        if self.patch.cross is None and self.stage.plain:
            return self.inner(attn, hidden_states, encoder_hidden_states, attention_mask)
        q, k, v = ltx.heads(attn, hidden_states, encoder_hidden_states)
        return gated_out(attn, hidden_states, self.rows(q, k, v))


def paired(x: Tensor) -> Tensor:
    """[B, S, N, D] with pairs (j, D/2 + j) → pairs (2j, 2j + 1)."""
    return x.unflatten(3, (2, -1)).transpose(3, 4).flatten(3)


def spread(rotary: Part) -> Part:
    """cos, sin [B, N, S, D/2] of pairs → [B, S, N·D], every angle twice."""
    cos, sin = (table.transpose(1, 2).flatten(2).repeat_interleave(2, dim=2) for table in rotary)
    return cos, sin


def gated_out(attn: Any, hidden: Tensor, out: Tensor) -> Tensor:
    """[B, S, N, D] → [B, S, C]; checkpoints from 2.3 on weigh each head by 2·sigmoid of the input."""
    if attn.to_gate_logits is not None:
        out = out * (2.0 * torch.sigmoid(attn.to_gate_logits(hidden)))[..., None]
    return project_out(attn, out, hidden.dtype)
