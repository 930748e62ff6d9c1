"""Wan-VACE as a denoiser: what the control branch is shown for the latents of a call.

As in `WanVACEPipeline`, the branch reads per latent the known picture, the picture to react to, and a mask: known
frames have mask 0, frames to be made are gray and have mask 1, and react to the control video or to gray. A first-frame
image is a known latent.

The control video is encoded once, whole, and sliced by absolute latent index, as the noise is: in every window a latent
meets the same control. A window's first latent so has a control that covers four frames and remembers those before,
like the latent itself; encoded anew per window it would cover one frame, and neighbours would disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from diffusers import WanVACETransformer3DModel
from torch import Tensor
from torch.nn.functional import interpolate

from longgen.models.denoise import Job
from longgen.models.images import at_one_level, known_latents, noisiest
from longgen.models.wan.denoiser import WanDenoiser
from longgen.protocols import Conditions
from longgen.types import Call, LatentGrid, Level

if TYPE_CHECKING:
    from longgen.models.vace.model import VaceModel


class VaceDenoiser(WanDenoiser):
    """A Wan-VACE checkpoint conditioned on prompts, a control video, and the known latents of a call.

    Latents of a call at a lower level than the others are known (`extend.condition=native`). The transformer has one
    timestep, so it sees them at the others' level, noised with the noise of their index, and their content through the
    control branch. The encoder remembers them in the gray that follows, which is encoded once for as long as they stay.
    """

    model: VaceModel

    def __init__(self, model: VaceModel, conditions: Conditions, grid: LatentGrid, steps: int) -> None:
        super().__init__(model, conditions, grid, steps)
        self.grid = grid
        self.gray = model.encode_gray(grid)
        self._after: tuple[Tensor, Tensor] | None = None  # the last known latents, and the gray after them
        self.reactive = None if conditions.control is None else model.encode_control(conditions.control)

    def predict(self, transformer: WanVACETransformer3DModel, x: Tensor, jobs: Sequence[Job]) -> Tensor:
        shown = [at_one_level(job.call, self._noise) for job in jobs]
        control = torch.cat([self.control(job.call) for job in jobs])
        return transformer(
            torch.cat([call.x for call in shown]).to(x),
            torch.stack([call.level.t for call in shown]).to(x.device),
            self.tokens(jobs),
            control_hidden_states=control.to(x),
            return_dict=False,
        )[0]

    def control(self, call: Call) -> Tensor:
        """The branch's input [1, 2·C + p², T, H, W]: known and reactive latents, and the mask of p × p pixels each."""
        frames = torch.tensor(call.frames)
        gray = self.gray[:, :, frames.clamp(max=self.gray.shape[2] - 1)].to(call.x.device)
        reactive = gray if self.reactive is None else self.reactive[:, :, frames].to(call.x.device)
        known = known_latents(call.level, len(frames)).to(call.x.device)[:, None, None]  # [T, 1, 1]
        shown = torch.where(known, call.x.float(), gray)
        if (count := int(known.sum())) and bool(known[:count].all()):
            shown[:, :, count:] = self._gray_after(shown[:, :, :count], len(frames) - count)
        mask = frame_mask(~known, self.grid.stride).expand(1, self.info.spatial**2, *call.x.shape[2:])
        return torch.cat([shown, torch.where(known, gray, reactive), mask], dim=1)

    def _gray_after(self, known: Tensor, latents: int) -> Tensor:
        """The gray after known latents, which are the same at all steps of a chunk."""
        kept = self._after
        if kept is None or kept[1].shape[2] != latents or not torch.equal(kept[0], known):
            self._after = kept = (known.clone(), self.model.encode_after(known, latents).to(known))
        return kept[1]

    def _experts(self, level: Level) -> Tensor:
        """One expert for all latents of a call: that of its level."""
        return super()._experts(noisiest(level)).expand_as(level.t)


def frame_mask(made: Tensor, stride: int) -> Tensor:
    """Mask [T, 1, 1] out of which latents are to be made [T, 1, 1], as the pipeline picks it from a mask of frames.

    It takes T of the F frames at nearest-exact places, as VACE was trained; near the end of a short prefix these belong
    to the next latent, so the last known latent may count as one to be made.
    """
    frames = torch.cat([made[:1], made[1:].repeat_interleave(stride, dim=0)]).flatten().float()
    return interpolate(frames[None, None], size=len(made), mode="nearest-exact").view(-1, 1, 1)
