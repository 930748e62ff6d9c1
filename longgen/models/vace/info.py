"""What a Wan-VACE checkpoint is, from its JSON files: a Wan, and what the control branch adds and takes away."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from longgen.errors import BadInput
from longgen.models.describe import Files
from longgen.models.wan import describe as describe_wan
from longgen.models.wan.info import footprint, parameters
from longgen.types import Footprint, ModelInfo

PIPELINE = "WanVACEPipeline"
LAYERS = (0, 5, 10, 15, 20, 25, 30, 35)  # the class's default
REFUSALS = {
    "per_latent_level": "its transformer takes one timestep per call",
    "cache": "control hints enter between the blocks, and a step cache adds them twice",
}


def describe(files: Files) -> ModelInfo:
    """ModelInfo of a Wan-VACE pipeline folder."""
    pipeline, config = files.index.get("_class_name"), files.config("transformer")
    if pipeline != PIPELINE:
        raise BadInput(f"model {files.id} is a {pipeline}, which is not supported; supported: {PIPELINE}")
    info = describe_wan(replace(files, index={**files.index, "_class_name": "WanPipeline"}))
    wanted = 2 * info.channels + info.spatial**2  # known and reactive latents, the mask's pixels of one latent
    given = int(config.get("vace_in_channels", 96))
    if given != wanted:
        raise BadInput(f"model {files.id}: the control branch takes {given} channels; its VAE and mask make {wanted}")
    reasons = {name: why for name, why in info.refusals.items() if name not in {"control", "image", "prefix_condition"}}
    layers = config.get("vace_layers", LAYERS)
    return replace(
        info,
        variant=files.overrides.get("variant", f"{info.variant.split('-')[0]}-vace"),
        capabilities=info.capabilities - {"per_latent_level", "split_pass"} | {"control", "image", "prefix_condition"},
        refusals=reasons | REFUSALS,
        control_layers=len(layers),
        parameters=(info.parameters or 0) + branch_parameters(config, len(layers), wanted),
        footprint=None if info.footprint is None else branched(info.footprint, config, len(layers), wanted),
    )


def branch_parameters(config: Mapping[str, Any], layers: int, channels: int) -> int:
    """Weights of the control branch: blocks with an output projection, one input projection, a patch embedding."""
    d, patch = _width(config), math.prod(config.get("patch_size", (1, 2, 2)))
    one, none = (parameters({**config, "num_layers": n}) for n in (1, 0))
    return layers * (one - none + d * d + d) + d * d + d + channels * patch * d + d


def branched(plain: Footprint, config: Mapping[str, Any], layers: int, channels: int) -> Footprint:
    """A Wan's footprint with the branch's projections added, and what it holds: all hints, its state, its input."""
    d, patch = _width(config), math.prod(config.get("patch_size", (1, 2, 2)))
    one, none = (footprint({**config, "num_layers": n}, {}, None) for n in (1, 0))
    more = (layers + 1) * d + channels * patch
    return replace(
        plain,
        token=plain.token + layers * (one.token - none.token + d * d) + d * d + channels * patch * d,
        word=plain.word + layers * (one.word - none.word),
        moments=tuple(replace(moment, token=moment.token + more) for moment in plain.moments),
    )


def _width(config: Mapping[str, Any]) -> int:
    return int(config.get("num_attention_heads", 40)) * int(config.get("attention_head_dim", 128))
