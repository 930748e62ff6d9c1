"""Stage `vae`: AutoencoderKLWan on procedural clips.

Knows how to train the causal autoencoder on whole clips at once. Long clips matter: the causal convolutions see zero
history only at a clip's start, and a VAE that never saw long histories drifts to another colour.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample
from torch import Tensor, nn

from longgen.shapes import render
from longgen.shapes.grammar import seen_specs
from longgen.shapes.train_common import (
    Budget,
    Clock,
    Log,
    average,
    load_state,
    optimisers,
    save_state,
    set_rate,
)

logger = logging.getLogger(__name__)

CONFIG: dict[str, Any] = {
    "base_dim": 16,
    "z_dim": 8,
    "dim_mult": [1, 2, 4],
    "num_res_blocks": 1,
    "attn_scales": [],
    "temperal_downsample": [True, True],
    "scale_factor_spatial": 4,
    "scale_factor_temporal": 4,
    "latents_mean": [0.0] * 8,
    "latents_std": [1.0] * 8,
}


MUON_RATE, ADAMW_RATE = 0.03, 2e-3
EMA_DECAY = 0.998


@dataclass(frozen=True)
class Clips:
    """One kind of training batch: `batch` clips of `frames` frames, cropped to `crop` pixels a side."""

    batch: int
    frames: int
    crop: int


SCHEDULE: tuple[tuple[float, tuple[Clips, ...]], ...] = (
    (0.25, (Clips(8, 17, 32), Clips(4, 9, 64))),
    (1.00, (Clips(6, 65, 32), Clips(4, 25, 64))),
)
"""Up to which share of the budget which kinds of batches are used, in turn: short clips first, then long ones."""


def _whole_clip(self: WanResample, x: Tensor, feat_cache: Any = None, feat_idx: Any = None) -> Tensor:
    """`WanResample.forward` for a whole clip: the same numbers as frame-by-frame caching, in one go.

    The first frame never passes the temporal convolution; the rest does, with zeros before it (up) or with the first
    frame as its history (down).
    """
    if self.mode == "upsample3d" and x.shape[2] > 1:
        first, rest = x[:, :, :1], self.time_conv(x[:, :, 1:])
        rest = rest.unflatten(1, (2, -1)).permute(0, 2, 3, 1, 4, 5).flatten(2, 3)  # B (2 C) T H W -> B C (T 2) H W
        x = torch.cat([first, rest], 2)
    b, _, t, _, _ = x.shape
    x = self.resample(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (b, t)).transpose(1, 2)
    if self.mode == "downsample3d" and t > 1:
        x = torch.cat([x[:, :, :1], self.time_conv(x)], 2)
    return x


@contextmanager
def whole_clips(vae: AutoencoderKLWan) -> Iterator[None]:
    """Within: `vae.encoder` and `vae.decoder` without a cache treat a whole clip at once, as training needs."""
    layers = [m for m in vae.modules() if isinstance(m, WanResample)]
    for layer in layers:
        layer.forward = MethodType(_whole_clip, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def build(seed: int) -> AutoencoderKLWan:
    """A fresh VAE with seeded weights.

    Wan's normalisation discards amplitude, so with the default initialisation biases drown the colours for hundreds
    of steps. Here convolutions keep variance, biases start at zero except those of the first layers, residual
    branches start small and resampling starts as averaging or repeating.
    """
    vae = AutoencoderKLWan(**CONFIG)
    generator = torch.Generator().manual_seed(seed)
    for name, layer in vae.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            _initialise(name, layer, generator)
    return vae


@torch.no_grad()
def _initialise(name: str, layer: nn.Conv2d | nn.Conv3d, generator: torch.Generator) -> None:
    weight = layer.weight
    noise = torch.randn(weight.shape, generator=generator) / math.sqrt(weight[0].numel())
    start = torch.randn(weight.shape[0], generator=generator) * 0.5
    assert layer.bias is not None
    layer.bias.copy_(start if name.endswith("conv_in") else torch.zeros_like(start))
    out, inside = weight.shape[:2]
    rows = torch.arange(out)
    if name.endswith("time_conv"):
        weight.copy_(0.3 * noise)
        weight[rows, rows % inside, 2 if out > inside else 1] += 1
    elif ".resample." in name and out == inside:
        weight.copy_(0.3 * noise)
        weight[rows, rows, :2, :2] += 0.25
    else:
        weight.copy_(0.5 * noise if name.endswith("conv2") else noise)


def channels_last(vae: AutoencoderKLWan) -> AutoencoderKLWan:
    """The same VAE with convolution weights laid out channels-last: bfloat16 kernels are several times faster so."""
    for module in vae.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return vae


def clip_batch(kind: Clips, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random training clips [B, 3, F, h, w] in [-1, 1] and loss weights [B, 1, F, h, w].

    Pixels about the shape weigh more, the more so the lower its contrast: a green star on gray is an outline too.
    """
    specs = seen_specs()
    chosen = torch.randint(len(specs), (kind.batch,), generator=generator).tolist()
    scenes = render.draw([specs[i] for i in chosen], generator)
    corner = torch.randint(0, render.SIDE - kind.crop + 1, (kind.batch, 2), generator=generator).float()
    mask = render.masks(scenes, torch.arange(kind.frames), corner=corner, crop=kind.crop)
    video = render.compose(scenes, mask, corner=corner) * 2 - 1
    near = F.max_pool2d(mask, 5, stride=1, padding=2)
    contrast = (scenes.colour - scenes.shade).norm(dim=1).view(-1, 1, 1, 1)
    return video, (1 + 4 * near / contrast)[:, None]


class Whole(nn.Module):
    """Encoder, sampling and decoder as one differentiable module over whole clips."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, video: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction of `video` and the KL divergence per latent element."""
        moments = self.vae.quant_conv(self.vae.encoder(video)).float()
        mean, logvar = moments.chunk(2, 1)
        logvar = logvar.clamp(-30, 20)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        z = mean + (0.5 * logvar).exp() * noise
        return self.vae.decoder(self.vae.post_quant_conv(z)).float(), kl


def loss_of(out: Tensor, video: Tensor, weight: Tensor, kl: Tensor) -> Tensor:
    """10 MSE + L1, weighted about the shape, + 2e-3 KL."""
    error = out - video
    norm = weight.mean()
    return (10 * (weight * error.square()).mean() + (weight * error.abs()).mean()) / norm + 2e-3 * kl


def train(state: Path, budget: Budget, seed: int, device: torch.device, compiled: bool) -> AutoencoderKLWan:
    """Train (or go on training) the VAE; returns it in eval mode. State is stored every two minutes."""
    vae = channels_last(build(seed).to(device))
    hidden = [cast(nn.Parameter, m.weight) for m in vae.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
    built = optimisers(vae, hidden, MUON_RATE, ADAMW_RATE)
    ema = {k: v.detach().clone() for k, v in vae.state_dict().items()}
    log = Log()
    if stored := load_state(state, "vae"):
        tensors, log = stored
        vae.load_state_dict(tensors["model"])
        ema = tensors["ema"]
        for optimiser, values in zip(built, tensors["optimisers"]):
            optimiser.load_state_dict(values)
    clock = Clock(budget, log, warmup=30)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + log.step)
    with whole_clips(vae):
        model: Any = torch.compile(Whole(vae), dynamic=False) if compiled else Whole(vae)
        losses, saved = [], log.seconds
        while clock.progress < 1:
            losses.append(_step(model, built, clock, generator, device))
            average(ema, vae, log.step, EMA_DECAY)
            clock.tick()
            if log.step % 50 == 0:
                log.note(losses)
                logger.info("vae step %d, %.0f s, loss %.4f", *log.curve[-1].values())
                losses = []
            if log.seconds - saved > 120 or clock.progress >= 1:
                saved = log.seconds
                parts = [o.state_dict() for o in built]
                save_state(state, "vae", {"model": vae.state_dict(), "ema": ema, "optimisers": parts}, log)
                clock.skip()
    vae.load_state_dict(ema)
    return vae.eval()


def _step(
    model: Any,
    built: list[torch.optim.Optimizer],
    clock: Clock,
    generator: torch.Generator,
    device: torch.device,
) -> float:
    kinds = next(kinds for share, kinds in SCHEDULE if clock.progress < share or share == 1)
    kind = kinds[clock.log.step % len(kinds)]
    video, weight = clip_batch(kind, generator)
    latents = (kind.frames - 1) // 4 + 1
    noise = torch.randn(kind.batch, CONFIG["z_dim"], latents, kind.crop // 4, kind.crop // 4, generator=generator)
    video, weight, noise = (a.to(device) for a in (video, weight, noise))
    video = video.contiguous(memory_format=torch.channels_last_3d)
    set_rate(built, clock.rate())
    with torch.autocast(device.type, torch.bfloat16):
        out, kl = model(video, noise)
    loss = loss_of(out, video, weight, kl)
    model.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser in built:
        optimiser.step()
    return loss.item()
