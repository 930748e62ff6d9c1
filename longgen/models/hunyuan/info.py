"""What a HunyuanVideo checkpoint is, from its JSON files. Knows config keys; loads nothing.

Defaults are HunyuanVideoPipeline's own (diffusers 0.42.1): 129 frames of 720×1280, 50 steps, guidance 6; 24 frames per
second is the rate of the model's training videos (2412.03603).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from longgen.errors import BadInput
from longgen.models.describe import Files
from longgen.types import Decode, Footprint, ModelInfo, Moment, Rope

PIPELINES = ("HunyuanVideoPipeline",)
DEFAULTS: dict[str, Any] = {"native_frames": 129, "native_size": (720, 1280), "fps": 24, "steps": 50, "guidance": 6.0}
TEXT_TOKENS = 256  # HunyuanVideoPipeline's max_sequence_length, behind its template
CAPABILITIES = frozenset({"joint_text", "rope", "self_attention", "stream_decode", "windows"})
REFUSALS = {
    "per_latent_level": "HunyuanVideo's norms, token refiner and pooled text embedding take one timestep per call",
    "prefix_condition": "HunyuanVideo takes one timestep per call, so a clean prefix cannot have its own",
    "cross_text": "HunyuanVideo carries one text stream beside the video, in the same attention",
    "image": "only its text-to-video checkpoints are driven: those for images read the picture into the prompt with a "
    "language model that sees, and some give the first latent a timestep of its own",
    "control": "HunyuanVideo takes no control video",
}


def describe(files: Files) -> ModelInfo:
    """ModelInfo of a HunyuanVideoPipeline folder; values of longgen.json win over the family's defaults."""
    pipeline = files.index.get("_class_name")
    if pipeline == "HunyuanVideoImageToVideoPipeline":
        raise BadInput(f"model {files.id} makes videos from an image, which is not supported: {REFUSALS['image']}")
    if pipeline not in PIPELINES:
        raise BadInput(f"model {files.id} is a {pipeline}, which is not supported; supported: {', '.join(PIPELINES)}")
    transformer, vae, values = files.config("transformer"), files.config("vae"), {**DEFAULTS, **files.overrides}
    channels = int(vae.get("latent_channels", 16))
    if transformer.get("image_condition_type") is not None or int(transformer.get("in_channels", 16)) != channels:
        raise BadInput(f"model {files.id} expects an image; only text-to-video checkpoints are supported")
    shift = values.get("flow_shift", files.config("scheduler").get("shift"))
    heads, head = int(transformer.get("num_attention_heads", 24)), int(transformer.get("attention_head_dim", 128))
    patch, (height, width) = int(transformer.get("patch_size", 2)), values["native_size"]
    return ModelInfo(
        id=files.id,
        family="hunyuan",
        variant=values.get("variant", "hunyuanvideo"),
        channels=channels,
        stride=int(vae.get("temporal_compression_ratio", 4)),
        spatial=int(vae.get("spatial_compression_ratio", 8)),
        patch=(int(transformer.get("patch_size_t", 1)), patch, patch),
        native_frames=values["native_frames"],
        native_size=(height, width),
        fps=float(values["fps"]),
        steps=values["steps"],
        guidance=float(values["guidance"]),
        flow_shift=None if shift is None else float(shift),
        layers=int(transformer.get("num_layers", 20)) + int(transformer.get("num_single_layers", 40)),
        heads=heads,
        head_dim=head,
        ffn_dim=int(transformer.get("mlp_ratio", 4.0) * heads * head),
        text_tokens=min(TEXT_TOKENS, files.text_tokens),
        rope=Rope(
            "table",
            int(transformer.get("rope_axes_dim", (16, 56, 56))[0]),
            float(transformer.get("rope_theta", 256.0)),
        ),
        capabilities=CAPABILITIES,
        negative_prompt=values.get("negative_prompt", ""),
        parameters=parameters(transformer),
        refusals=REFUSALS,
        embedded_guidance=bool(transformer.get("guidance_embeds", True)),
        footprint=footprint(transformer, vae),
    )


def parameters(config: Mapping[str, Any]) -> int:
    """Weights of the transformer, counted from its config."""
    head = int(config.get("attention_head_dim", 128))
    d = int(config.get("num_attention_heads", 24)) * head
    mlp = int(config.get("mlp_ratio", 4.0) * d)
    text, pooled = int(config.get("text_embed_dim", 4096)), int(config.get("pooled_projection_dim", 768))
    channels = int(config.get("in_channels", 16))
    out = int(config.get("out_channels") or channels)
    patch = int(config.get("patch_size_t", 1)) * int(config.get("patch_size", 2)) ** 2

    def linear(a: int, b: int) -> int:
        return a * b + b

    def feed(width: int) -> int:
        return linear(d, width) + linear(width, d)

    def embedder(width: int) -> int:
        return linear(width, d) + linear(d, d)

    norms = 2 * head if config.get("qk_norm", "rms_norm") else 0
    dual = 2 * (4 * linear(d, d) + norms + linear(d, 6 * d) + feed(mlp))
    single = 3 * linear(d, d) + norms + linear(d, 3 * d) + linear(d, mlp) + linear(d + mlp, d)
    refiner = 4 * linear(d, d) + 4 * d + feed(4 * d) + linear(d, 2 * d)
    words = embedder(256) + embedder(text) + linear(text, d) + int(config.get("num_refiner_layers", 2)) * refiner
    times = embedder(256) * (2 if config.get("guidance_embeds", True) else 1) + embedder(pooled)
    ends = linear(channels * patch, d) + linear(d, 2 * d) + linear(d, patch * out)
    blocks = int(config.get("num_layers", 20)) * dual + int(config.get("num_single_layers", 40)) * single
    return blocks + words + times + ends


def footprint(config: Mapping[str, Any], vae: Mapping[str, Any]) -> Footprint:
    """Multiply-adds of HunyuanVideoTransformer3DModel. Words pass the refiner, then blocks beside the video; both kinds
    of tokens cost alike in a block. Timestep, guidance, pooled text and all modulations come once per forward.

    Words are counted as if the text had its full length; the network runs on those that there are.
    """
    d = int(config.get("num_attention_heads", 24)) * int(config.get("attention_head_dim", 128))
    mlp, refiners = int(config.get("mlp_ratio", 4.0) * d), int(config.get("num_refiner_layers", 2))
    text, pooled = int(config.get("text_embed_dim", 4096)), int(config.get("pooled_projection_dim", 768))
    channels = int(config.get("in_channels", 16))
    out = int(config.get("out_channels") or channels)
    patch = int(config.get("patch_size_t", 1)) * int(config.get("patch_size", 2)) ** 2
    dual, single = int(config.get("num_layers", 20)), int(config.get("num_single_layers", 40))
    blocks = (dual + single) * (4 * d * d + 2 * d * mlp)
    times = (256 * d + d * d) * (2 + bool(config.get("guidance_embeds", True))) + pooled * d + d * d
    return Footprint(
        token=blocks + (channels + out) * patch * d,
        word=blocks + text * d + refiners * 12 * d * d,
        level=times + text * d + d * d + (refiners * 2 + dual * 12 + single * 3 + 2) * d * d,
        level_per_token=False,
        word_layers=refiners,
        decode=decode(vae),
        moments=moments(d, d // int(config.get("num_attention_heads", 24)), mlp, channels * patch, text),
    )


def moments(d: int, head: int, mlp: int, x: int, text: int) -> tuple[Moment, ...]:
    """HunyuanVideoSingleTransformerBlock where it is fullest: its feed-forward's inner layer waits while keys turn.
    Video and text are one sequence there: input, norm, q, k, v and the projections before their norms, and five copies
    of the video's part, three of them fp32 in half precision."""
    words = 6 * d + mlp + 2 * text
    return (
        Moment("keys turn", 11 * d + mlp + x, 2 * head, words, half=False),
        Moment("keys turn", 8 * d + mlp + x, 3 * d + 2 * head, words, half=True),
    )


def decode(config: Mapping[str, Any]) -> Decode:
    """HunyuanVideoDecoder3D on a tile of five latents, 17 frames: in the last stage five tensors and two frames of
    padding; from the second whole tile on, beside the last one's frames: 17 decoded, 13 clamped, 4 to fade. In the
    middle a mask over all pairs of positions."""
    last, area, latents = next(iter(config.get("block_out_channels", (128, 256, 512, 512)))), 64, 5
    return Decode(
        fixed=area * (2 * last - 3 * 5 * last),
        per_latent=area * 4 * 5 * last,
        least=latents,
        most=latents,
        pairs=1.0,
        later=(8, area * 3 * (17 + 13 + 4)),
    )
