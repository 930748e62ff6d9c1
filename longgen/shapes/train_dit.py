"""Stages `latents` and `dit`: WanTransformer3DModel and its UMT5 encoder on precomputed latents of procedural videos.

Knows flow matching in the latent space of a given VAE, and the tokenizer of the grammar. The pool of latents grows
while training goes on, so that the transformer does not memorise it.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from longgen.shapes import render
from longgen.shapes.grammar import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, Spec, seen_specs
from longgen.shapes.train_common import (
    Budget,
    Clock,
    Log,
    average,
    load_state,
    optimisers,
    save_state,
    set_rate,
    write_json,
)
from longgen.shapes.train_vae import whole_clips

logger = logging.getLogger(__name__)

TEXT_LENGTH = 16
"""Tokens that every prompt is padded to, in training and sampling: WanPipeline pads with zeros and uses no mask."""

TRANSFORMER: dict[str, Any] = {
    "patch_size": (1, 4, 4),
    "num_attention_heads": 4,
    "attention_head_dim": 48,
    "in_channels": 8,
    "out_channels": 8,
    "text_dim": 64,
    "freq_dim": 128,
    "ffn_dim": 768,
    "num_layers": 8,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 1024,
}
TEXT_ENCODER: dict[str, Any] = {
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_heads": 4,
    "num_layers": 2,
    "dropout_rate": 0.0,
    "relative_attention_num_buckets": 16,
    "relative_attention_max_distance": 32,
}
MUON_RATE, ADAMW_RATE = 0.02, 1e-3
EMA_DECAY = 0.999
BATCH = 32
EMPTY_PROMPTS = 0.1
SHIFT = 3.0
FIRST_LATENT_WEIGHT = 3.0
NEAR_WEIGHT = 3.0
CHUNK = 512
"""Videos per stored chunk of latents."""


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word of the grammar; every other word is `<unk>`."""
    words = {"a", "an", "on", "background", *COLOURS, *SHAPES, *BACKGROUNDS, *(w for m in MOTIONS for w in m.split())}
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *sorted(words)])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=TEXT_LENGTH,
    )


class TextToVelocity(nn.Module):
    """Text encoder and transformer as one trainable module."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            words = len(tokenizer())
            self.text = UMT5EncoderModel(UMT5Config(vocab_size=words, **TEXT_ENCODER))
            self.transformer = WanTransformer3DModel(**TRANSFORMER)
        nn.init.zeros_(self.transformer.proj_out.weight)

    def forward(self, noisy: Tensor, time: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Velocity of [B, C, T, H, W] latents at `time` in [0, 1] for token ids [B, TEXT_LENGTH]."""
        embeds = self.text(ids, mask).last_hidden_state * mask[..., None]
        return self.transformer(noisy, time * 1000, embeds, return_dict=False)[0].float()


@dataclass(frozen=True)
class Pool:
    """Normalised latents [N, C, T, H, W] (bfloat16), shape coverage [N, T, H, W] (bytes) and token rows [N]."""

    latents: Tensor
    near: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return self.rows.shape[0]


class Encoder:
    """Makes chunks of the pool: chunk k is a function of (seed, k) and the VAE alone."""

    PART = 32
    """Videos encoded at once."""

    def __init__(self, vae: AutoencoderKLWan, seed: int, device: torch.device, compiled: bool) -> None:
        self.vae, self.seed, self.device = vae, seed, device
        self.encode: Any = torch.compile(vae.encoder, dynamic=False) if compiled else vae.encoder

    def raw(self, index: int, start: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Posterior moments, coverage and rows of videos [start, start + count) of chunk `index`."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + index) * 4096 + start)
        specs = seen_specs()
        rows = torch.randint(len(specs), (count,), generator=generator)
        scenes = render.draw([specs[i] for i in rows.tolist()], generator)
        mask = render.masks(scenes, torch.arange(render.NATIVE_FRAMES))
        video = (render.compose(scenes, mask) * 2 - 1).to(self.device)
        video = video.contiguous(memory_format=torch.channels_last_3d)
        with torch.no_grad(), whole_clips(self.vae), torch.autocast(self.device.type, torch.bfloat16):
            moments = self.vae.quant_conv(self.encode(video)).float()
        near = F.max_pool2d(F.avg_pool2d(mask, 4), 3, stride=1, padding=1)  # one cell about the shape
        near = torch.cat([near[:, :1], near[:, 1:].unflatten(1, (-1, 4)).amax(2)], 1)
        return moments.cpu(), (near * 255).to(torch.uint8), rows

    def chunk(self, state: Path, index: int) -> Pool:
        """Chunk `index`, from the state folder or made and stored there."""
        path = state / "latents" / f"{index:04d}.pt"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            parts = [self.raw(index, start, self.PART) for start in range(0, CHUNK, self.PART)]
            moments, near, rows = (torch.cat(column) for column in zip(*parts))
            std = torch.tensor(self.vae.config.latents_std).view(1, -1, 1, 1, 1)
            mean = (moments.chunk(2, 1)[0] - torch.tensor(self.vae.config.latents_mean).view(1, -1, 1, 1, 1)) / std
            part = path.with_suffix(f".{os.getpid()}")  # another process may be making the same chunk
            torch.save({"latents": mean.bfloat16(), "near": near, "rows": rows}, part)
            part.replace(path)
        return Pool(**torch.load(path, weights_only=True))

    def measure(self, state: Path) -> None:
        """Fill `latents_mean` and `latents_std` of the VAE's config from 256 training videos, once per state folder.

        The deviation is that of sampled latents: a channel that the VAE leaves unused is then noise of deviation 1
        about a mean that hardly moves, instead of next to nothing blown up to unit size.
        """
        path = state / "latents" / "statistics.json"
        if not path.exists():
            moments = torch.cat([self.raw(CHUNK, i * self.PART, self.PART)[0] for i in range(8)])
            mean, logvar = (m.transpose(0, 1).flatten(1) for m in moments.chunk(2, 1))
            std = (mean.var(1) + logvar.exp().mean(1)).sqrt()
            path.parent.mkdir(parents=True, exist_ok=True)
            values = {"latents_mean": mean.mean(1).tolist(), "latents_std": std.tolist()}
            write_json(path, {name: [round(v, 5) for v in row] for name, row in values.items()})
        self.vae.register_to_config(**json.loads(path.read_text()))


def join(pools: list[Pool]) -> Pool:
    """One pool of several."""
    return Pool(*(torch.cat([getattr(p, name) for p in pools]) for name in ("latents", "near", "rows")))


def tokens(prompts: list[str]) -> tuple[Tensor, Tensor]:
    """Token ids and mask, [N, TEXT_LENGTH] each."""
    out = tokenizer()(prompts, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt")
    return out["input_ids"], out["attention_mask"]


def prompts_of(specs: list[Spec]) -> list[str]:
    """The prompt of every spec and, last, the empty prompt of guidance."""
    return [*(spec.prompt for spec in specs), ""]


def sample_times(count: int, generator: torch.Generator) -> Tensor:
    """Logit-normal noise levels in (0, 1), shifted like the sampler's: t -> s t / (1 + (s - 1) t)."""
    t = torch.sigmoid(torch.randn(count, generator=generator))
    return SHIFT * t / (1 + (SHIFT - 1) * t)


def flow_loss(model: TextToVelocity, pool: Pool, table: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
    """Flow-matching loss on one random batch: velocity = noise - data, weighted up about the shape and at latent 0."""
    device = next(model.parameters()).device
    pick = torch.randint(len(pool), (BATCH,), generator=generator)
    clean, near, rows = pool.latents[pick].float(), pool.near[pick].float() / 255, pool.rows[pick]
    rows = torch.where(torch.rand(BATCH, generator=generator) < EMPTY_PROMPTS, len(table[0]) - 1, rows)
    noise, time = torch.randn(clean.shape, generator=generator), sample_times(BATCH, generator)
    level = time.view(-1, 1, 1, 1, 1)
    batch = (clean.lerp(noise, level), time, table[0][rows], table[1][rows])
    with torch.autocast(device.type, torch.bfloat16):
        out = model(*(a.to(device) for a in batch))
    weight = 1 + NEAR_WEIGHT * near
    weight[:, 0] *= FIRST_LATENT_WEIGHT
    weight = (weight / weight.mean())[:, None].to(device)
    return (weight * (out - (noise - clean).to(device)).square()).mean()


def hidden_matrices(model: TextToVelocity) -> list[nn.Parameter]:
    """The matrices inside the transformer's blocks."""
    return [p for p in model.transformer.blocks.parameters() if p.ndim == 2]


@dataclass(frozen=True)
class Growth:
    """The pool starts with `first` chunks and gains one every `every` steps up to `most`."""

    first: int
    every: int
    most: int


def train(state: Path, encoder: Encoder, budget: Budget, growth: Growth, seed: int, compiled: bool) -> None:
    """Train (or go on training) transformer and text encoder; state is stored every three minutes."""
    model = TextToVelocity(seed).to(encoder.device)
    built = optimisers(model, hidden_matrices(model), MUON_RATE, ADAMW_RATE)
    ema, log = {k: v.detach().clone() for k, v in model.state_dict().items()}, Log()
    if stored := load_state(state, "dit"):
        tensors, log = stored
        model.load_state_dict(tensors["model"])
        ema = tensors["ema"]
        for optimiser, values in zip(built, tensors["optimisers"]):
            optimiser.load_state_dict(values)
    table = tokens(prompts_of(seen_specs()))
    grown = min(growth.most, growth.first + log.step // growth.every)
    pool = join([encoder.chunk(state, i) for i in range(grown)])
    clock = Clock(budget, log, warmup=200)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + log.step)
    if compiled:
        model.transformer.compile_repeated_blocks(dynamic=False)
    # On CPUs the backward pass of PyTorch's flash attention takes longer than all the rest of a step.
    kernels = [SDPBackend.MATH]
    if encoder.device.type != "cpu":
        kernels += [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]
    losses, saved = [], log.seconds
    while clock.progress < 1:
        set_rate(built, clock.rate())
        with sdpa_kernel(kernels):
            loss = flow_loss(model, pool, table, generator)
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in built:
            optimiser.step()
        average(ema, model, log.step, EMA_DECAY)
        clock.tick()
        losses.append(loss.item())
        if log.step % 50 == 0:
            log.note(losses)
            logger.info("dit step %d, %.0f s, loss %.4f, pool %d", *log.curve[-1].values(), len(pool))
            losses = []
        if log.step % growth.every == 0 and grown < growth.most:
            pool = join([pool, encoder.chunk(state, grown)])
            grown += 1
        if log.seconds - saved > 180 or clock.progress >= 1:
            saved = log.seconds
            parts = [o.state_dict() for o in built]
            save_state(state, "dit", {"model": model.state_dict(), "ema": ema, "optimisers": parts}, log)
