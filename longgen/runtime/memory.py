"""How much memory a run takes, by formula: weights, a forward where it is fullest, the loop's latents, the decoder.

What blocks and decoders hold is the family's knowledge (`ModelInfo.footprint`, from JSON files, with the source of
every term there); this adds it up. Counts tensors, not what an allocator keeps besides. Methods that change attention
hold more for a moment (outputs that they add up in fp32), which is not in the estimate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from longgen.runtime.rehearse import Forward
from longgen.types import Decode, LatentGrid, LoadOptions, ModelInfo

BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}
STORED = {"nf4": 0.5, "int8": 1.0}  # bytes per weight of quantised transformers
SOLVERS = {"euler": 1, "ancestral": 1, "ddim": 1, "unipc": 3, "dpm++": 2, "sde-dpm++": 2}  # tensors remembered
VAE_TILE = 32  # side of a spatial tile in latents, as diffusers' VAEs have it


@dataclass(frozen=True)
class Memory:
    """Bytes, None where the JSON files do not tell. `peak` is what is in memory at once, on the device that computes.

    Args:
        weights: of the transformers. text_encoder, vae: of those.
        activations: of one forward. latents: that the loop holds. caches: that a step cache keeps. decode: of a call.
    """

    weights: int | None
    text_encoder: int | None
    vae: int | None
    activations: int
    latents: int
    caches: int
    decode: int | None
    peak: int | None


def estimate(
    info: ModelInfo, grid: LatentGrid, options: LoadOptions, runs: Iterable[Forward], held: int, chunk: int, dtype: str
) -> Memory:
    """The memory of a run that makes these forwards.

    Args:
        runs: the kinds of forwards.
        held: latents that the loop has at once, in fp32, counted in latent frames.
        chunk: latents per decoder call as asked for.
        dtype: that the transformer computes in.
    """
    runs = list(runs)
    forward = max(activations(info, grid.tokens, run, dtype) for run in runs) * max(1, options.window_batch)
    latents = 4 * grid.channels * grid.height * grid.width * held
    kept = caches(info, grid, options.cache, runs, dtype)
    made = _stored(info, options, dtype)
    words = _sum(info.weights, "text_encoder", BYTES[dtype])
    vae = _sum(info.weights, "vae", 4.0)
    foot = info.footprint
    pictures = None if foot is None or foot.decode is None else decode(foot.decode, grid, options.vae_tiling, chunk)
    peak = None
    if made is not None and words is not None and vae is not None and pictures is not None:
        at_work = {
            "none": made + vae + latents + max(forward + kept, pictures),
            "model": latents + max(made / (2 if info.boundary else 1) + forward + kept, vae + pictures),
        }
        peak = int(max(words, at_work.get(options.offload, latents + max(forward + kept, vae + pictures))))
    return Memory(_int(made), _int(words), _int(vae), int(forward), latents, kept, _int(pictures), peak)


def activations(info: ModelInfo, tokens: int, run: Forward, dtype: str) -> float:
    """Bytes of one run of the network where it is fullest, `tokens` tokens in a latent."""
    item, video, words = BYTES[dtype], run.latents // info.patch[0] * tokens, info.text_tokens * run.texts
    foot = info.footprint
    if foot is None or not foot.moments:
        return video * (8 * info.heads * info.head_dim + info.ffn_dim) * item
    extra = foot.levels if run.own_levels or foot.level_always else None
    there = [m for m in foot.moments if m.half is None or m.half == (dtype != "fp32")]
    each = (m.token * item + m.token32 * 4 for m in there)
    rows = 0.0 if extra is None else extra.token * item + extra.token32 * 4
    return max(video * (size + rows) + words * m.word * item for size, m in zip(each, there, strict=True))


def decode(decoder: Decode, grid: LatentGrid, tiled: bool, chunk: int) -> float:
    """Bytes of one decoder call, and of what the decoder remembers."""
    area = grid.height * grid.width
    area = min(area, VAE_TILE**2) if tiled else area
    count = min(grid.frames - grid.lead_pad, decoder.halo + min(max(chunk, decoder.least), decoder.most))
    first, more = decoder.later
    linear = area * (decoder.fixed + decoder.per_latent * count + (more if grid.frames >= first else 0))
    return 4 * max(linear, decoder.pairs * (area * count) ** 2)


def caches(info: ModelInfo, grid: LatentGrid, cache: str, runs: list[Forward], dtype: str) -> int:
    """Bytes that a step cache keeps: three hidden states per context, or two outputs of every attention layer.

    A context is a window under one side of guidance.
    """
    kind = cache.partition(":")[0]
    tensors = {"first_block": 3, "taylorseer": 2 * 2 * info.layers}.get(kind, 0)
    sides = 1 if info.embedded_guidance else 2
    tokens = grid.frames // info.patch[0] * grid.tokens
    return int(sides * tensors * tokens * info.heads * info.head_dim * BYTES[dtype]) if runs else 0


def _stored(info: ModelInfo, options: LoadOptions, dtype: str) -> float | None:
    """Bytes of the transformers' weights as they are kept."""
    if options.transformers:
        return float(sum(Path(file).stat().st_size for file in options.transformers))
    size = STORED.get(options.quantize or "", 1.0 if options.layerwise_fp8 else BYTES[dtype])
    if (known := _sum(info.weights, "transformer", size)) is not None:
        return known
    return None if info.parameters is None else info.parameters * (1 if info.boundary is None else 2) * size


def _sum(weights: Mapping[str, int], start: str, size: float) -> float | None:
    """Bytes of the components whose names start so."""
    found = [count * size for name, count in weights.items() if name.startswith(start)]
    return sum(found) if found else None


def _int(value: float | None) -> int | None:
    return None if value is None else int(value)
