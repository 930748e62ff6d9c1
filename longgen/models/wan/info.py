"""What a Wan checkpoint is, from its JSON files. Knows config keys; loads nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from longgen.errors import BadInput
from longgen.models.describe import Files
from longgen.types import Decode, Footprint, ModelInfo, Moment, Rope

IMAGE = "WanImageToVideoPipeline"
PIPELINES = ("WanPipeline", IMAGE)
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
    channels, stride = int(vae.get("z_dim", 16)), int(vae.get("scale_factor_temporal", 4))
    needs_image = _needs_image(files, channels, stride)
    own = _variant(files.index, needs_image)
    variant, values = files.overrides.get("variant", own), {**table["variants"][own], **files.overrides}
    scheduler = files.config("scheduler")
    shift = values.get("flow_shift", scheduler.get("flow_shift", scheduler.get("shift")))
    head = int(transformer.get("attention_head_dim", 128))
    refusals = dict(REFUSALS)
    capabilities = {"per_latent_level", "rope", "self_attention", "cross_text", "split_pass"}
    capabilities |= {"stream_decode", "windows"}
    if needs_image:  # known latents enter beside the noise, all of which has one level
        capabilities = capabilities - {"per_latent_level"} | {"image", "prefix_condition"}
        refusals["per_latent_level"] = "an image-to-video checkpoint tells known latents from others by their level"
    elif files.index.get("expand_timesteps"):
        capabilities |= {"image", "prefix_condition"}
    else:
        refusals["prefix_condition"] = "only Wan2.2-TI2V was trained with clean first latents"
    height, width = values["native_size"]
    expanded = bool(files.index.get("expand_timesteps"))  # else levels of their own are embedded latent by latent
    taken = footprint(transformer, vae, files.class_of("scheduler"), expanded=expanded)
    return ModelInfo(
        id=files.id,
        family="wan",
        variant=variant,
        channels=channels,
        stride=stride,
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
        # Attention of checkpoints with an image encoder takes all but the last 512 tokens for the image's.
        text_tokens=512 if transformer.get("image_dim") else files.text_tokens,
        # The temporal axis takes what height and width leave: D − 2·2·⌊D/6⌋ channels.
        rope=Rope("table", head - 4 * (head // 6), 10_000.0, int(transformer.get("rope_max_seq_len", 1024))),
        capabilities=frozenset(capabilities),
        negative_prompt=values.get("negative_prompt", table["negative_prompt"]),
        boundary=files.index.get("boundary_ratio"),
        parameters=parameters(transformer),
        refusals=refusals,
        needs_image=needs_image,
        footprint=taken if expanded else replace(taken, level_per_token=False, levels=Moment("levels", 0.0)),
    )


def _needs_image(files: Files, channels: int, stride: int) -> bool:
    """Whether the transformer takes a mask of `stride` channels and an image's latents beside the noise."""
    transformer = files.config("transformer")
    given = int(transformer.get("in_channels", 16))
    if given == channels:
        if files.index.get("_class_name") == IMAGE and not files.index.get("expand_timesteps"):
            raise BadInput(f"model {files.id} is a {IMAGE} whose transformer takes no image, which is not supported")
        return False
    if given != 2 * channels + stride:
        raise BadInput(
            f"model {files.id}: the transformer takes {given} channels, the VAE makes {channels}; supported are "
            f"text-to-video ({channels}) and image-to-video checkpoints ({2 * channels + stride})"
        )
    if transformer.get("pos_embed_seq_len") is not None:
        raise BadInput(f"model {files.id} needs a first and a last image, which is not supported")
    return True


def _variant(index: Mapping[str, Any], needs_image: bool) -> str:
    if index.get("expand_timesteps"):
        return "wan2.2-ti2v"
    return ("wan2.2-a14b" if index.get("boundary_ratio") is not None else "wan2.1") + ("-i2v" if needs_image else "")


def parameters(config: Mapping[str, Any]) -> int:
    """Weights of one transformer, counted from its config."""
    d = int(config.get("num_attention_heads", 40)) * int(config.get("attention_head_dim", 128))
    ffn, freq, text = (int(config.get(k, v)) for k, v in (("ffn_dim", 13824), ("freq_dim", 256), ("text_dim", 4096)))
    patch = math.prod(config.get("patch_size", (1, 2, 2)))
    channels = int(config.get("in_channels", 16))
    out = int(config.get("out_channels") or channels)
    attention = 4 * (d * d + d) + 2 * d  # projections, and the norms of q and k
    norm = 2 * d if config.get("cross_attn_norm", True) else 0
    image = int(config.get("image_dim") or 0)
    seen = 2 * (d * d + d) + d if config.get("added_kv_proj_dim") else 0  # keys, values and norm of an image's tokens
    block = 2 * attention + norm + 2 * d * ffn + ffn + d + 6 * d + seen
    time = freq * d + d + d * d + d + 6 * (d * d + d)
    words = text * d + d + d * d + d
    if image:
        words += 2 * image + image * image + image + image * d + d + 2 * d
    ends = channels * patch * d + d + d * out * patch + out * patch + 2 * d
    return int(config.get("num_layers", 40)) * block + time + words + ends


def footprint(
    config: Mapping[str, Any], vae: Mapping[str, Any], solver: str | None, *, expanded: bool = False
) -> Footprint:
    """Multiply-adds of WanTransformer3DModel: four projections of self-attention, queries and output of text attention
    and the feed-forward per token; its keys and values per word; the time embedding and six modulations per level.

    Args:
        expanded: the pipeline gives every token its timestep (`expand_timesteps`).
    """
    d = int(config.get("num_attention_heads", 40)) * int(config.get("attention_head_dim", 128))
    ffn, freq, text = (int(config.get(k, v)) for k, v in (("ffn_dim", 13824), ("freq_dim", 256), ("text_dim", 4096)))
    patch, layers = math.prod(config.get("patch_size", (1, 2, 2))), int(config.get("num_layers", 40))
    channels = int(config.get("in_channels", 16))
    ends = (channels + int(config.get("out_channels") or channels)) * patch * d
    return Footprint(
        token=layers * (6 * d * d + 2 * d * ffn) + ends,
        word=layers * 2 * d * d + text * d + d * d,
        level=freq * d + 7 * d * d,
        level_always=expanded,
        moments=moments(d, ffn, channels * patch, d // int(config.get("num_attention_heads", 40)), text),
        levels=Moment("levels", 7 * d, 6 * d),
        decode=decode(vae),
        memory=3 if solver == "UniPCMultistepScheduler" else 1,
    )


def moments(d: int, ffn: int, x: int, head: int, text: int) -> tuple[Moment, ...]:
    """WanTransformerBlock where it is fullest. x, the input, and two rotary tables of fp32 are always there; a block
    keeps its input, its hidden state, its last norm and the last attention's output.

    Keys turn while the input, the norm, q, k, v and the new k are alive, and three halves of it (WanAttnProcessor); in
    half precision the norm of q or k has three copies in fp32 (RMSNorm) over the input, the norm, q, k and v. The
    feed-forward holds its inner layer before and after GELU; its output is scaled and added in fp32.
    """
    words = d + 2 * text
    return (
        Moment("keys turn", 7.5 * d + x, 2 * head, words, half=False),
        Moment("keys are normed", 5 * d + x, 3 * d + 2 * head, words, half=True),
        Moment("feed-forward", 4 * d + 2 * ffn + x, 2 * head, words),
        Moment("feed-forward is added", 7 * d + x, 2 * head, words, half=False),
        Moment("feed-forward is added", 5 * d + x, 3 * d + 2 * head, words, half=True),
    )


def decode(config: Mapping[str, Any]) -> Decode:
    """WanDecoder3d in the last stage of Wan2.1's and 2.2's VAE, chunk by chunk.

    Every convolution keeps two frames of its input. At full size a call holds the residual, its activation, the
    convolution's output, and its input joined with those two frames, once as it is and once padded; besides, the last
    call's frames, which the caller has, as pixels and clamped.
    """
    base = int(config.get("decoder_base_dim") or config.get("base_dim", 96))
    mult, blocks = list(config.get("dim_mult", (1, 2, 4, 4))), int(config.get("num_res_blocks", 2)) + 1
    time = [bool(t) for t in config.get("temperal_downsample", (False, True, True))][::-1]
    residual, side = bool(config.get("is_residual")), int(config.get("patch_size") or 1)
    dims = [base * m for m in (mult[-1], *mult[::-1])]
    held, before = 2 * dims[0] * 5.0, 0  # conv_in and the middle
    for i, out in enumerate(dims[1:]):
        before = dims[i] // 2 if i and not residual else dims[i]
        stretch = out if i < len(time) and time[i] else 0  # the convolution that doubles the frames
        held += 2 * 4**i * (before + (2 * blocks - 1) * out + stretch)
    area, frames, last = 4 ** (len(mult) - 1), 2 ** sum(time), dims[-1]
    deep = 6 * last if residual else 4 * last + before
    return Decode(held + area * 8 * last, area * frames * (deep + 6 * side**2))
