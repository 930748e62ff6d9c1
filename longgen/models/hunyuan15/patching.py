"""Patches on a HunyuanVideo-1.5 transformer: HunyuanVideo's dual-stream blocks, masked by words instead of pairs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from diffusers import HunyuanVideo15Transformer3DModel
from torch import Tensor
from torch.nn.functional import pad

from longgen.models.hunyuan.patching import JointProcessor, Positions
from longgen.models.patching import Part, Stage
from longgen.types import Patch, Rope


class WordProcessor(JointProcessor):
    """What stands in for HunyuanVideo15AttnProcessor2_0, which makes an S × S mask in every block."""

    def __call__(
        self,
        attn: object,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor,
        image_rotary_emb: Part,
    ) -> tuple[Tensor, Tensor]:
        """attention_mask: [B, L], true for words."""
        seen = pad(attention_mask, (hidden_states.shape[1], 0), value=True)[:, None, None]
        return super().__call__(attn, hidden_states, encoder_hidden_states, seen, image_rotary_emb)


@contextmanager
def installed(
    transformer: HunyuanVideo15Transformer3DModel, patch: Patch, stage: Stage, rope: Rope
) -> Iterator[Positions]:
    """Puts processors in place and takes them off again, whatever happens inside."""
    blocks, positions = list(transformer.transformer_blocks), Positions(patch, rope)
    kept = [block.attn.processor for block in blocks]
    try:
        for layer, block in enumerate(blocks):
            block.attn.processor = WordProcessor(stage, patch, layer, positions=positions)
        yield positions
    finally:
        for block, own in zip(blocks, kept, strict=True):
            block.attn.processor = own
