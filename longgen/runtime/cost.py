"""What a run computes and holds, before any weight loads: calls, FLOPs, bytes, and a rough time.

Knows JSON facts of the model and rehearses the loop. Does not know devices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from longgen.config import Request
from longgen.protocols import PromptSchedule
from longgen.runtime import memory
from longgen.runtime.compose import Composition
from longgen.runtime.latents import decode_chunk
from longgen.runtime.memory import Memory
from longgen.runtime.rehearse import Ask, Forward, expected_schedule, forwards, rehearse
from longgen.runtime.stretches import Stretch, longest
from longgen.types import LatentGrid, LoadOptions, ModelInfo

# Sustained TFLOP/s of whole denoising runs, for a rough time estimate. Orders of magnitude, not promises: the GPU rows
# come from published dense-attention rates in bf16, the CPU row from bf16 GEMMs on two AVX-512/AMX cores.
SUSTAINED_TFLOPS = {"cpu-2-cores": 0.15, "rtx4090": 130.0, "a100": 220.0, "h100": 550.0, "h200": 600.0}
REHEARSED = 4000  # calls that are walked one by one; what is beyond is taken to cost the same on average


@dataclass(frozen=True)
class Cost:
    """What a run computes and holds. `flops` counts a multiply-add as two; `seconds` are rough estimates per device.

    Args:
        calls: of the model by the loop. forwards: runs of the network, several for a call.
    """

    calls: int
    forwards: int
    latents_per_call: int
    tokens_per_call: int
    branches: int
    flops: float
    memory: Memory
    seconds: dict[str, float]


@dataclass
class Walk:
    """A rehearsed run in numbers."""

    calls: int = 0
    held: int = 0  # most latents that the loop has at once
    runs: Counter[Forward] = field(default_factory=Counter)
    whole: bool = True  # nothing was left out


def walk(asks: Iterator[Ask], prompts: PromptSchedule, info: ModelInfo, remembered: int) -> Walk:
    """Counts calls and forwards, and the latents alive in the fullest step.

    Those are the state, the estimate shown last, what the step rule remembers; all calls and estimates of the windows
    that are asked for together; and one side of guidance while the other runs.
    """
    seen = Walk()
    for ask in asks:
        lengths = [call.x.shape[2] for call in ask.calls]
        together = 2 * sum(lengths) if len(lengths) > 1 else 0
        seen.held = max(seen.held, ask.state * (1 + max(1, remembered)) + together + 2 * max(lengths, default=0))
        seen.calls += len(lengths)
        for call in ask.calls:
            seen.runs.update(forwards(call, prompts, info))
        if seen.calls >= REHEARSED:
            seen.whole = next(asks, None) is None
            break
    return seen


def estimate(
    c: Composition,
    grid: LatentGrid,
    info: ModelInfo,
    request: Request,
    steps: int,
    prompts: PromptSchedule,
    parts: Sequence[Stretch],
) -> Cost:
    """The cost of a composition on a video of `grid`, made in `parts`, in so many steps, told `prompts`."""
    schedule = expected_schedule(info, steps, request.flow_shift or info.flow_shift)
    own = info.footprint.memory if info.footprint else 1
    remembered = min(steps, memory.SOLVERS.get(request.solver or "", own))
    asks = chain.from_iterable(rehearse(c, grid, info, schedule, part) for part in parts)
    seen = walk(asks, prompts, info, remembered)
    calls = seen.calls
    if not seen.whole:
        rounds = c.wrapper.rounds() if c.wrapper else 1
        calls = sum(n for part in parts for n, _ in c.loop.calls(part.frames, steps, info)) * rounds
    scale = calls / seen.calls
    route = next((p.method for slot in ("route", "logits") for p in c.parts if slot in p.slots), None)
    flops = 0.0
    for run, count in seen.runs.items():
        keys = route.key_frames(run.latents, info) if route else float(run.latents)
        flops += scale * count * forward_flops(info, run, grid.tokens, keys)
    view = c.loop.view(longest(parts), info)
    dtype = request.dtype or ("fp32" if request.device == "cpu" else "bf16")
    chunk = decode_chunk(request.decode_chunk, grid)
    return Cost(
        calls=calls,
        forwards=round(scale * seen.runs.total()),
        latents_per_call=view,
        tokens_per_call=view // info.patch[0] * grid.tokens,
        branches=1 if info.embedded_guidance or seen.runs.total() == seen.calls else 2,
        flops=flops,
        memory=memory.estimate(info, grid, _loading(request), seen.runs, seen.held, chunk, dtype),
        seconds={name: flops / (rate * 1e12) for name, rate in SUSTAINED_TFLOPS.items()},
    )


def _loading(request: Request) -> LoadOptions:
    """What of the request changes memory."""
    return LoadOptions(
        offload=request.offload,
        layerwise_fp8=request.fp8,
        vae_tiling=request.vae_tiling,
        cache=request.cache,
        transformers=request.transformer,
        quantize=request.quantize,
        window_batch=request.window_batch,
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
        return 2 * (info.layers + info.control_layers) * (video * token + words * word + 2 * d * pairs)
    apart = run.own_levels or foot.level_always
    levels = 1 if not apart else video if foot.level_per_token else run.latents
    linear = video * foot.token + words * foot.word + levels * foot.level
    return 2 * linear + 4 * d * ((info.layers + info.control_layers) * pairs + foot.word_layers * words**2)
