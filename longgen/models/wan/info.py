"""What a Wan checkpoint is, from its JSON files. Knows config keys; loads nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longgen.errors import BadInput
from longgen.models.describe import Files
from longgen.types import ModelInfo, Rope

PIPELINES = ("WanPipeline",)
DEFAULTS = Path(__file__).with_name("defaults.json")
REFUSALS = {
    "joint_text": "Wan takes text through cross-attention",
    "image": "this checkpoint was trained on text alone",
    "control": "this checkpoint takes no control video; Wan-VACE does",
}


def describe(files: Files) -> ModelInfo:
    """ModelInfo of a Wan pipeline folder; values of longgen.json win over the family's defaults."""
    pipeline = files.index.get("_class_name")
    if pipeline not in PIPELINES:
        raise BadInput(f"model {files.id} is a {pipeline}, which is not supported; supported: {', '.join(PIPELINES)}")
    transformer, vae = files.config("transformer"), files.config("vae")
    table = json.loads(DEFAULTS.read_text(encoding="utf-8"))
    variant = files.overrides.get("variant", _variant(files.index))
    values = {**table["variants"][_variant(files.index)], **files.overrides}
    channels = int(vae.get("z_dim", 16))
    if int(transformer.get("in_channels", 16)) != channels:
        raise BadInput(
            f"model {files.id}: the transformer takes {transformer['in_channels']} channels, the VAE makes {channels}; "
            "only text-to-video checkpoints are supported"
        )
    scheduler = files.config("scheduler")
    shift = values.get("flow_shift", scheduler.get("flow_shift", scheduler.get("shift")))
    head = int(transformer.get("attention_head_dim", 128))
    refusals = dict(REFUSALS)
    capabilities = {"per_latent_level", "rope", "self_attention", "cross_text", "stream_decode", "windows"}
    if files.index.get("expand_timesteps"):
        capabilities.add("prefix_condition")
    else:
        refusals["prefix_condition"] = "only Wan2.2-TI2V was trained with clean first latents"
    height, width = values["native_size"]
    return ModelInfo(
        id=files.id,
        family="wan",
        variant=variant,
        channels=channels,
        stride=int(vae.get("scale_factor_temporal", 4)),
        spatial=int(vae.get("scale_factor_spatial", 8)),
        patch=tuple(transformer.get("patch_size", (1, 2, 2))),
        native_frames=values["native_frames"],
        native_size=(height, width),
        fps=float(values["fps"]),
        steps=values["steps"],
        guidance=float(values["guidance"]),
        flow_shift=None if shift is None else float(shift),
        layers=int(transformer.get("num_layers", 40)),
        heads=int(transformer.get("num_attention_heads", 40)),
        head_dim=head,
        ffn_dim=int(transformer.get("ffn_dim", 13824)),
        text_tokens=files.text_tokens,
        # The temporal axis takes what height and width leave: D − 2·2·⌊D/6⌋ channels.
        rope=Rope("table", head - 4 * (head // 6), 10_000.0, int(transformer.get("rope_max_seq_len", 1024))),
        capabilities=frozenset(capabilities),
        negative_prompt=values.get("negative_prompt", table["negative_prompt"]),
        boundary=files.index.get("boundary_ratio"),
        parameters=parameters(transformer),
        refusals=refusals,
    )


def _variant(index: Mapping[str, Any]) -> str:
    if index.get("expand_timesteps"):
        return "wan2.2-ti2v"
    return "wan2.2-a14b" if index.get("boundary_ratio") is not None else "wan2.1"


def parameters(config: Mapping[str, Any]) -> int:
    """Weights of one transformer, counted from its config."""
    d = int(config.get("num_attention_heads", 40)) * int(config.get("attention_head_dim", 128))
    ffn, freq, text = (int(config.get(k, v)) for k, v in (("ffn_dim", 13824), ("freq_dim", 256), ("text_dim", 4096)))
    patch = math.prod(config.get("patch_size", (1, 2, 2)))
    channels = int(config.get("in_channels", 16))
    out = int(config.get("out_channels") or channels)
    attention = 4 * (d * d + d) + 2 * d  # projections, and the norms of q and k
    norm = 2 * d if config.get("cross_attn_norm", True) else 0
    block = 2 * attention + norm + 2 * d * ffn + ffn + d + 6 * d
    time = freq * d + d + d * d + d + 6 * (d * d + d)
    words = text * d + d + d * d + d
    ends = channels * patch * d + d + d * out * patch + out * patch + 2 * d
    return int(config.get("num_layers", 40)) * block + time + words + ends
