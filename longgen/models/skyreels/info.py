"""What a SkyReels-V2 checkpoint is, from its JSON files. Knows config keys; loads nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from longgen.errors import BadInput
from longgen.models.describe import Files
from longgen.models.wan.info import DEFAULTS as WAN_DEFAULTS
from longgen.models.wan.info import footprint as wan_footprint
from longgen.models.wan.info import parameters as wan_parameters
from longgen.types import Footprint, ModelInfo, Rope

PIPELINES = {"SkyReelsV2Pipeline": "skyreels-v2-t2v", "SkyReelsV2DiffusionForcingPipeline": "skyreels-v2-df"}
# Configs of both sizes are the same, so the name tells them apart: native frames, (height, width) in pixels.
SIZES = {"540P": (97, (544, 960)), "720P": (121, (720, 1280))}
# Frame rate, steps, guidance and shift of the authors' scripts (SkyworkAI/SkyReels-V2, generate_video_df.py).
FPS, STEPS, GUIDANCE, SHIFT = 24, 30, 6.0, 8.0
# What the transformer's class takes where its config is silent.
CONFIG = {"num_attention_heads": 16, "attention_head_dim": 128, "num_layers": 32, "ffn_dim": 8192, "in_channels": 16}
REFUSALS = {
    "joint_text": "SkyReels-V2 takes text through cross-attention",
    "image": "this checkpoint runs from text alone; its image-to-video pipelines are not supported",
    "control": "SkyReels-V2 takes no control video",
}


def describe(files: Files) -> ModelInfo:
    """ModelInfo of a SkyReels-V2 pipeline folder; values of longgen.json win over the family's defaults."""
    pipeline = files.index.get("_class_name")
    if pipeline not in PIPELINES:
        raise BadInput(f"model {files.id} is a {pipeline}, which is not supported; supported: {', '.join(PIPELINES)}")
    transformer, vae = {**CONFIG, **files.config("transformer")}, files.config("vae")
    channels = int(vae.get("z_dim", 16))
    if int(transformer["in_channels"]) != channels:
        raise BadInput(
            f"model {files.id}: the transformer takes {transformer['in_channels']} channels, the VAE makes {channels}; "
            "only text-to-video checkpoints are supported"
        )
    frames, size = SIZES["720P" if "720P" in files.id.upper() else "540P"]
    values: dict[str, Any] = {
        "native_frames": frames,
        "native_size": size,
        "fps": FPS,
        "steps": STEPS,
        "guidance": GUIDANCE,
    }
    values |= {"variant": PIPELINES[pipeline], "negative_prompt": _negative(), **files.overrides}
    capabilities, refusals = _capabilities(pipeline, transformer)
    head = int(transformer["attention_head_dim"])
    height, width = values["native_size"]
    return ModelInfo(
        id=files.id,
        family="skyreels",
        variant=values["variant"],
        channels=channels,
        stride=int(vae.get("scale_factor_temporal", 4)),
        spatial=int(vae.get("scale_factor_spatial", 8)),
        patch=tuple(transformer.get("patch_size", (1, 2, 2))),
        native_frames=values["native_frames"],
        native_size=(height, width),
        fps=float(values["fps"]),
        steps=values["steps"],
        guidance=float(values["guidance"]),
        flow_shift=float(values.get("flow_shift", _shift(files.config("scheduler")))),
        layers=int(transformer["num_layers"]),
        heads=int(transformer["num_attention_heads"]),
        head_dim=head,
        ffn_dim=int(transformer["ffn_dim"]),
        text_tokens=files.text_tokens,
        # The temporal axis takes what height and width leave: D − 2·2·⌊D/6⌋ channels.
        rope=Rope("table", head - 4 * (head // 6), 10_000.0, int(transformer.get("rope_max_seq_len", 1024))),
        capabilities=capabilities,
        negative_prompt=values["negative_prompt"],
        parameters=parameters(transformer),
        refusals=refusals,
        footprint=footprint(files, transformer),
    )


def _capabilities(pipeline: str, transformer: Mapping[str, Any]) -> tuple[frozenset[str], dict[str, str]]:
    """What methods can do, and why not where they cannot."""
    able = {"per_latent_level", "rope", "self_attention", "cross_text", "stream_decode", "windows"}
    refusals = dict(REFUSALS)
    if pipeline == "SkyReelsV2DiffusionForcingPipeline":
        able.add("prefix_condition")
    else:
        refusals["prefix_condition"] = (
            "only SkyReels-V2's diffusion-forcing checkpoints were trained with clean latents"
        )
    if int(transformer.get("num_frame_per_block", 1)) > 1:
        able.remove("self_attention")
        refusals["self_attention"] = "the block-causal mask of this checkpoint already says which keys a query sees"
    return frozenset(able), refusals


def _negative() -> str:
    """SkyReels' scripts use Wan's."""
    return json.loads(WAN_DEFAULTS.read_text(encoding="utf-8"))["negative_prompt"]


def _shift(scheduler: Mapping[str, Any]) -> float:
    """The scheduler's shift; SkyReels' own where nobody has set one (1 is the class's default)."""
    told = scheduler.get("flow_shift", scheduler.get("shift"))
    return SHIFT if told is None or float(told) == 1.0 else float(told)


def parameters(config: Mapping[str, Any]) -> int:
    """Weights of the transformer, counted from its config: Wan's, and those that read the frame rate."""
    config = {**CONFIG, **config}
    d = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
    rate = 2 * d + d * d + d + 6 * (d * d + d) if config.get("inject_sample_info", False) else 0
    return wan_parameters(config) + rate


def footprint(files: Files, transformer: Mapping[str, Any]) -> Footprint:
    """Wan's, but levels are embedded latent by latent before they are spread over tokens."""
    forcing = files.index.get("_class_name") == "SkyReelsV2DiffusionForcingPipeline"
    own = wan_footprint(transformer, files.config("vae"), files.class_of("scheduler"), expanded=forcing)
    return replace(own, level_per_token=False)
