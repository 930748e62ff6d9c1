"""What an LTX-Video checkpoint is, from its JSON files. Knows config keys; loads nothing.

Defaults are LTXPipeline's own (diffusers 0.42.1): 161 frames of 512×704, 25 frames per second, 50 steps, guidance 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from longgen.errors import BadInput
from longgen.models.describe import Files
from longgen.types import Decode, Footprint, ModelInfo, Moment, Rope

CONDITION = "LTXConditionPipeline"  # of checkpoints from 0.9.5 on
PIPELINES = ("LTXPipeline", "LTXImageToVideoPipeline", CONDITION)
DEFAULTS: dict[str, Any] = {"native_frames": 161, "native_size": (512, 704), "fps": 25.0, "steps": 50, "guidance": 3.0}
TEXT_TOKENS = {CONDITION: 256}  # the pipelines' max_sequence_length; 128 for the others
CAPABILITIES = {
    "per_latent_level",
    "image",
    "prefix_condition",
    "rope",
    "self_attention",
    "split_pass",
    "cross_text",
    "stream_decode",
    "windows",
}
REFUSALS = {
    "joint_text": "LTX-Video takes text through cross-attention",
    "control": "LTX-Video takes no control video",
}


def describe(files: Files) -> ModelInfo:
    """ModelInfo of an LTX-Video folder; values of longgen.json win over the family's defaults."""
    pipeline = files.index.get("_class_name")
    if pipeline not in PIPELINES:
        raise BadInput(f"model {files.id} is a {pipeline}, which is not supported; supported: {', '.join(PIPELINES)}")
    transformer, values = files.config("transformer"), {**DEFAULTS, **files.overrides}
    time, space = ratios(files.config("vae"))
    heads, head = int(transformer.get("num_attention_heads", 32)), int(transformer.get("attention_head_dim", 64))
    height, width = values["native_size"]
    tokens = ((values["native_frames"] - 1) // time + 1) * (height // space) * (width // space)
    return ModelInfo(
        id=files.id,
        family="ltx",
        variant=values.get("variant", "ltx-video"),
        channels=int(transformer.get("in_channels", 128)),
        stride=time,
        spatial=space,
        patch=(
            int(transformer.get("patch_size_t", 1)),
            int(transformer.get("patch_size", 1)),
            int(transformer.get("patch_size", 1)),
        ),
        native_frames=values["native_frames"],
        native_size=(height, width),
        fps=float(values["fps"]),
        steps=values["steps"],
        guidance=float(values["guidance"]),
        flow_shift=None,
        layers=int(transformer.get("num_layers", 28)),
        heads=heads,
        head_dim=head,
        ffn_dim=4 * heads * head,
        text_tokens=min(TEXT_TOKENS.get(pipeline, 128), files.text_tokens),
        # A third of the inner width turns with time; angles are not per head.
        rope=Rope("coords", 2 * (heads * head // 6), 10_000.0),
        capabilities=frozenset(CAPABILITIES),
        negative_prompt=values.get("negative_prompt", ""),
        parameters=parameters(transformer),
        refusals=REFUSALS,
        footprint=footprint(
            transformer,
            files.config("vae"),
            linear_quadratic() if pipeline == CONDITION else course(files.config("scheduler"), tokens),
        ),
    )


def ratios(vae: Mapping[str, Any]) -> tuple[int, int]:
    """Temporal and spatial compression as AutoencoderKLLTXVideo computes them from its config."""
    halvings = sum(vae.get("spatio_temporal_scaling", (True, True, True, False)))
    time = vae.get("temporal_compression_ratio") or int(vae.get("patch_size_t", 1)) * 2**halvings
    space = vae.get("spatial_compression_ratio") or int(vae.get("patch_size", 4)) * 2**halvings
    return int(time), int(space)


def parameters(config: Mapping[str, Any]) -> int:
    """Weights of the transformer, counted from its config."""
    d = int(config.get("num_attention_heads", 32)) * int(config.get("attention_head_dim", 64))
    cross, caption = int(config.get("cross_attention_dim", 2048)), int(config.get("caption_channels", 4096))
    channels = int(config.get("in_channels", 128))
    out = int(config.get("out_channels") or channels)
    own = 4 * (d * d + d) + 2 * d  # projections, and the norms of q and k
    text = 2 * (d * d + d) + 2 * (cross * d + d) + 2 * d
    block = own + text + 2 * 4 * d * d + 4 * d + d + 6 * d
    time = 256 * d + d + d * d + d + 6 * (d * d + d)
    words = caption * d + d + d * d + d
    return int(config.get("num_layers", 28)) * block + time + words + channels * d + d + d * out + out + 2 * d


def footprint(config: Mapping[str, Any], vae: Mapping[str, Any], course: tuple[float, ...]) -> Footprint:
    """Multiply-adds of LTXVideoTransformer3DModel, counted as for Wan; the feed-forward is four times as wide as d.

    Fullest moments: the feed-forward holds the block's input, its hidden state, the norm, the last attention's output
    and the inner layer before and after GELU; two rotary tables of the whole width are fp32. In half precision keys
    turn in fp32: three copies over the input, the norm, q, k, v and the pairs.
    """
    d = int(config.get("num_attention_heads", 32)) * int(config.get("attention_head_dim", 64))
    cross, caption = int(config.get("cross_attention_dim", 2048)), int(config.get("caption_channels", 4096))
    channels, layers = int(config.get("in_channels", 128)), int(config.get("num_layers", 28))
    out = int(config.get("out_channels") or channels)
    return Footprint(
        token=layers * 14 * d * d + (channels + out) * d,
        word=layers * 2 * cross * d + caption * d + d * d,
        level=256 * d + 7 * d * d,
        course=course,
        moments=(
            Moment("feed-forward", 12 * d + channels, 2 * d, d + 2 * caption),
            Moment("keys turn", 6 * d + channels, 5 * d, d + 2 * caption, half=True),
        ),
        levels=Moment("levels", 13 * d),
        decode=decode(vae),
        memory=1,
    )


def decode(config: Mapping[str, Any]) -> Decode:
    """LTXVideoDecoder3d in its last stage: a piece and its halos at once. A resnet holds its activation, the
    convolution's output and its padded input, under them the last upsampling's output."""
    dims = list(config.get("decoder_block_out_channels") or config.get("block_out_channels", (128, 256, 512, 512)))
    layers = list(config.get("decoder_layers_per_block") or config.get("layers_per_block", (4, 3, 3, 3, 4)))[::-1]
    scaled = config.get("decoder_spatio_temporal_scaling") or config.get(
        "spatio_temporal_scaling", (True,) * 3 + (False,)
    )
    time, space = ratios(config)
    rate, total = 1.0, 1.0 + 2 * layers[0]
    for up, count in zip(reversed(scaled), layers[1:], strict=False):
        total += 1 / rate if up else 0
        rate *= 2 if up else 1
        total += 2 * count / rate
    reach = math.ceil((2 if config.get("decoder_causal") else 1) * (total + 1 / rate))
    area = (space // int(config.get("patch_size", 4))) ** 2
    return Decode(
        fixed=area * (2 - 3 * (time - 1)) * dims[0],
        per_latent=area * time * 4.1 * dims[0],
        least=reach,
        most=64,
        halo=2 * reach,
    )


def course(config: Mapping[str, Any], tokens: int, steps: int = 50) -> tuple[float, ...]:
    """σ of the pipeline's schedule at native length: u from 1 to 1/n, shifted by e^mu, stretched to end at
    `shift_terminal` (FlowMatchEulerDiscreteScheduler); () without dynamic shifting."""
    if not config.get("use_dynamic_shifting", False):
        return ()
    low, high = int(config.get("base_image_seq_len", 256)), int(config.get("max_image_seq_len", 4096))
    base, most = float(config.get("base_shift", 0.5)), float(config.get("max_shift", 1.15))
    shift = math.exp(base + (most - base) * (tokens - low) / (high - low))
    odds = [steps / (steps - i) - 1 for i in range(steps)]  # 1/u − 1
    signals = [o / (shift + o) for o in odds]  # 1 − σ
    end = config.get("shift_terminal")
    scale = 1.0 if end is None else (1 - float(end)) / signals[-1]
    return (*(1 - scale * signal for signal in signals), 0.0)


def linear_quadratic(steps: int = 50, threshold: float = 0.025) -> tuple[float, ...]:
    """σ of LTXConditionPipeline (Movie Gen, arXiv 2410.13720, §3.4.2): half of the steps go from 1 to 1 − `threshold`
    in a line, the others on to 0 as a parabola, at first as steep."""
    half = steps // 2
    rest = steps - half
    bend = (1 - threshold - threshold * rest / half) / rest**2  # what a straight line would leave over
    line = tuple(1 - threshold * i / half for i in range(half))
    return (*line, *(1 - threshold - threshold * j / half - bend * j**2 for j in range(rest)), 0.0)
