"""What a run computes and holds, before any weight loads: calls, FLOPs, bytes, and a rough time.

Knows JSON facts of the model and rehearses the loop. Does not know devices.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice

from longgen.protocols import PromptSchedule
from longgen.runtime.compose import Composition
from longgen.runtime.rehearse import Forward, expected_schedule, forwards, rehearse
from longgen.types import LatentGrid, ModelInfo

# Sustained TFLOP/s of whole denoising runs, for a rough time estimate. Orders of magnitude, not promises: the GPU rows
# come from published dense-attention rates in bf16, the CPU row from bf16 GEMMs on two AVX-512/AMX cores.
SUSTAINED_TFLOPS = {"cpu-2-cores": 0.15, "rtx4090": 130.0, "a100": 220.0, "h100": 550.0, "h200": 600.0}
REHEARSED = 4000  # calls that are walked one by one; what is beyond is taken to cost the same on average


@dataclass(frozen=True)
class Cost:
    """What a run computes. `flops` counts a multiply-add as two; bytes are estimates for the given dtype."""

    calls: int
    forwards: int
    latents_per_call: int
    tokens_per_call: int
    branches: int
    flops: float
    weight_bytes: int | None
    activation_bytes: int
    latent_bytes: int
    seconds: dict[str, float]


def estimate(
    c: Composition,
    grid: LatentGrid,
    info: ModelInfo,
    steps: int,
    flow_shift: float | None,
    prompts: PromptSchedule,
    cuts: tuple[int, ...],
    dtype: str,
) -> Cost:
    """The cost of a composition on a video of `grid`, told `prompts`.

    Args:
        steps: rows of the schedule.
        dtype: that the transformer computes in, "fp32", "bf16" or "fp16".
    """
    stated = c.loop.calls(grid.frames, steps, info)
    walked, runs = Counter[int](), Counter[Forward]()
    schedule = expected_schedule(info, steps, flow_shift)
    walk = rehearse(c, grid, info, schedule, cuts)
    for call in islice(walk, REHEARSED):
        walked[call.x.shape[2]] += 1
        runs.update(forwards(call, prompts, info))
    more = next(walk, None) is not None
    rounds = c.wrapper.rounds() if c.wrapper else 1
    calls = sum(n for n, _ in stated) * rounds if more else walked.total()
    scale = calls / walked.total()
    route = next((p.method for p in c.parts if "route" in p.slots), None)
    flops = 0.0
    for run, count in runs.items():
        keys = route.key_frames(run.latents, info) if route else float(run.latents)
        flops += scale * count * forward_flops(info, run, grid.tokens, keys)
    longest = c.loop.view(grid.frames, info)
    width = info.heads * info.head_dim
    item = 4 if dtype == "fp32" else 2
    tokens = longest // info.patch[0] * grid.tokens
    return Cost(
        calls=calls,
        forwards=round(scale * runs.total()),
        latents_per_call=longest,
        tokens_per_call=tokens,
        branches=1 if info.embedded_guidance or runs.total() == walked.total() else 2,
        flops=flops,
        weight_bytes=None if info.parameters is None else info.parameters * item,
        activation_bytes=tokens * (8 * width + info.ffn_dim) * item,
        latent_bytes=4 * grid.channels * grid.height * grid.width * grid.frames,
        seconds={name: flops / (rate * 1e12) for name, rate in SUSTAINED_TFLOPS.items()},
    )


def forward_flops(info: ModelInfo, run: Forward, tokens: int, key_frames: float) -> float:
    """FLOPs of one run of the network over `run.latents` latents of `tokens` tokens, two per multiply-add.

    The footprint's multiply-adds per token, word and level, and 4·d FLOPs per layer and pair of query and key: video
    sees K key latents and the text; in a joint model words see everything, too. Without a footprint the blocks' alone:
    6d² + 2·d·d_ff per token and 2·d² per word and layer, joint 4d² + 2·d·d_ff for either.
    """
    d, words = info.heads * info.head_dim, info.text_tokens * run.texts
    video = run.latents // info.patch[0] * tokens
    joint = "joint_text" in info.capabilities
    pairs = video * (key_frames / info.patch[0] * tokens + info.text_tokens * run.seen)
    pairs += words * (video + words) if joint else 0
    foot = info.footprint
    if foot is None:
        block = 4 * d * d + 2 * d * info.ffn_dim
        token, word = (block, block) if joint else (block + 2 * d * d, 2 * d * d)
        return 2 * info.layers * (video * token + words * word + 2 * d * pairs)
    apart = run.own_levels or foot.level_always
    levels = 1 if not apart else video if foot.level_per_token else run.latents
    linear = video * foot.token + words * foot.word + levels * foot.level
    return 2 * linear + 4 * d * (info.layers * pairs + foot.word_layers * words**2)
