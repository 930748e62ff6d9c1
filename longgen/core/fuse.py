"""Windows back into one latent. Knows frames and shares; does not know where windows come from or what they hold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from longgen.core.windows import Window


def cut(x: Tensor, window: Window) -> Tensor:
    """The latents [1, C, U, H, W] that a window's call sees, out of x [1, C, T, H, W]."""
    return x.index_select(2, torch.tensor(window.frames, device=x.device))


def fuse(estimates: Sequence[Tensor], windows: Sequence[Window], frames: int) -> Tensor:
    """y = Σ_k share_k · y_k at each latent, [1, C, T, H, W] accumulated in fp32 (fp64 stays fp64).

    Each estimate is [1, C, len(window.frames), H, W]; its first `lead` latents are dropped. Shares are normalised
    beforehand, so a latent that lies in one window alone passes bit for bit.
    """
    first = estimates[0]
    dtype = torch.promote_types(first.dtype, torch.float32)
    out = torch.zeros(*first.shape[:2], frames, *first.shape[3:], dtype=dtype, device=first.device)
    for y, window in zip(estimates, windows, strict=True):
        share = window.share.to(first.device)[:, None, None]
        out.index_add_(2, torch.tensor(window.body, device=first.device), y[:, :, window.lead :].to(dtype) * share)
    return out
