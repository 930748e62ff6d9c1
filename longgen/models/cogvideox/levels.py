"""One noise level per latent in CogVideoX, whose blocks take one per video.

The timestep embedding is computed for B·T levels, and while a forward runs, hooks on the norm layers let each latent's
tokens pass as a video of their own, so each takes the shift, scale and gate of its own level. Text rows take those of
the cleanest latent (as TokensGen does). No module changes, and the hooks go after the call.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor


@contextmanager
def level_per_latent(transformer: CogVideoXTransformer3DModel, frames: int, cleanest: Tensor) -> Iterator[None]:
    """Lets forwards take timesteps [B·T].

    Args:
        frames: T, latents per video, each a frame of tokens.
        cleanest: [B] index of each video's cleanest latent.
    """
    videos = len(cleanest)
    rows = torch.arange(videos, device=cleanest.device)

    def apart(hidden: Tensor) -> Tensor:
        return hidden.reshape(videos * frames, -1, hidden.shape[-1])

    def whole(hidden: Tensor) -> Tensor:
        return hidden.reshape(videos, -1, hidden.shape[-1])

    def words(text: Tensor) -> Tensor:
        return text.unflatten(0, (videos, frames))[rows, cleanest]

    def enter(module: Any, args: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        hidden, text, temb = args
        return apart(hidden), text.repeat_interleave(frames, dim=0), temb

    def leave(module: Any, args: Any, out: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
        hidden, text, gate, text_gate = out
        return whole(hidden), words(text), whole(gate.expand(-1, hidden.shape[1], -1)), words(text_gate)

    def enter_last(module: Any, args: tuple[Tensor], kwargs: dict[str, Any]) -> tuple[tuple[Tensor], dict[str, Any]]:
        return (apart(args[0]),), kwargs

    def leave_last(module: Any, args: Any, out: Tensor) -> Tensor:
        return whole(out)

    with ExitStack() as stack:
        for block in transformer.transformer_blocks:
            for norm in (block.norm1, block.norm2):
                stack.callback(norm.register_forward_pre_hook(enter).remove)
                stack.callback(norm.register_forward_hook(leave).remove)
        last = transformer.norm_out
        stack.callback(last.register_forward_pre_hook(enter_last, with_kwargs=True).remove)
        stack.callback(last.register_forward_hook(leave_last).remove)
        yield
