"""What Wan's image-to-video checkpoints see of an image: a mask and latents beside the noise, and CLIP's view of it.

WanImageToVideoPipeline encodes the image followed by grey frames as one clip. Its encoder is causal and looks back a
bounded distance, so the latents of the grey part stop changing after `REACH`; that many stand for a video of any
length. Knows the pipeline's own parts; does not know calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from longgen.models.images import beside, known_latents
from longgen.types import Call

REACH = 30  # latents: from the 30th on, Wan's encoder of full depth sees grey alone


@dataclass(frozen=True)
class Seen:
    """An image as the transformer takes it.

    Args:
        beside: [1, stride + C, L, H, W], the mask's channels first; the last latent stands for all later ones.
        clip: [1, tokens, D] for checkpoints with an image encoder.
    """

    beside: Tensor
    clip: Tensor | None

    def of(self, call: Call) -> Tensor:
        """[1, stride + C, T, H, W]: the image at latent 0, known latents as they are, grey beside all others."""
        rows = beside(self.beside, call.frames)
        known = known_latents(call.level, len(call.frames)).to(rows.device)[:, None, None]
        mask = torch.ones_like(rows[:, : rows.shape[1] - call.x.shape[1]])
        return torch.where(known, torch.cat([mask, call.x.to(rows)], dim=1), rows)


@torch.no_grad()
def see(model: Any, image: Tensor, frames: int) -> Seen:
    """The image uint8 [H, W, 3] at the head of a video of `frames` latents, on the model's device and dtype."""
    length = min(frames, REACH)
    stride, (height, width) = model.info.stride, image.shape[:2]
    pixels = model.pixels(image[None])
    clip = torch.cat([pixels, pixels.new_zeros(1, 3, (length - 1) * stride, height, width)], dim=2)
    latents = model.encode_pixels(clip)
    mask = torch.zeros(1, stride, length, *latents.shape[-2:], device=latents.device)
    mask[:, :, 0] = 1
    return Seen(torch.cat([mask, latents], dim=1).to(model.dtype), look(model, image))


def look(model: Any, image: Tensor) -> Tensor | None:
    """The image encoder's last hidden states but one, [1, tokens, D]; None where the checkpoint has no such encoder."""
    if model.pipe.transformer.config.image_dim is None:
        return None
    picture = Image.fromarray(image.cpu().numpy())
    return model.pipe.encode_image(picture, model.device).to(model.dtype)
