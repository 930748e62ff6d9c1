"""What a HunyuanVideo-1.5 checkpoint is, from its JSON files. Knows config keys; loads nothing.

Defaults are HunyuanVideo15Pipeline's own (diffusers 0.42.1): 121 frames, 50 steps; the size is that of the training
bucket in the transformer's config, the guidance scale that of the pipeline's guider.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from longgen.errors import BadInput
from longgen.models.describe import Files
from longgen.types import Footprint, ModelInfo, Moment, Rope

PIPELINES = ("HunyuanVideo15Pipeline",)
GUIDER = "ClassifierFreeGuidance"
DEFAULTS: dict[str, Any] = {"native_frames": 121, "fps": 24, "steps": 50}
SIZES = {640: (480, 848), 960: (720, 1280)}  # of 16:9 in the buckets around a target size
TEXT_TOKENS = 1000  # HunyuanVideo15Pipeline's tokenizer_max_length, behind its template
GLYPHS = 256  # its tokenizer_2_max_length
# What the transformer's class takes where its config is silent.
CONFIG: dict[str, Any] = {
    "in_channels": 65,
    "out_channels": 32,
    "num_attention_heads": 16,
    "attention_head_dim": 128,
    "num_layers": 54,
    "num_refiner_layers": 2,
    "mlp_ratio": 4.0,
    "patch_size": 1,
    "patch_size_t": 1,
    "qk_norm": "rms_norm",
    "text_embed_dim": 3584,
    "text_embed_2_dim": 1472,
    "image_embed_dim": 1152,
    "rope_theta": 256.0,
    "rope_axes_dim": (16, 56, 56),
    "target_size": 640,
    "use_meanflow": False,
}
CAPABILITIES = frozenset({"joint_text", "rope", "self_attention", "windows"})
REFUSALS = {
    "per_latent_level": "HunyuanVideo-1.5's norms and token refiner take one timestep per call",
    "prefix_condition": "HunyuanVideo-1.5 takes one timestep per call, so a clean prefix cannot have its own",
    "cross_text": "HunyuanVideo-1.5 carries one text stream beside the video, in the same attention",
    "stream_decode": "the decoder's attention looks back over the whole video: exact in pieces, in growing memory",
    "image": "only text-to-video checkpoints of HunyuanVideo-1.5 are supported",
    "control": "HunyuanVideo-1.5 takes no control video",
}


def describe(files: Files) -> ModelInfo:
    """ModelInfo of a HunyuanVideo15Pipeline folder; values of longgen.json win over the family's defaults."""
    pipeline = files.index.get("_class_name")
    if pipeline not in PIPELINES:
        raise BadInput(f"model {files.id} is a {pipeline}, which is not supported; supported: {', '.join(PIPELINES)}")
    transformer, vae = {**CONFIG, **files.config("transformer")}, files.config("vae")
    channels = int(vae.get("latent_channels", 32))
    if int(transformer["in_channels"]) != 2 * channels + 1:
        raise BadInput(
            f"model {files.id}: the transformer takes {transformer['in_channels']} channels; "
            f"supported are noise, image and mask ({2 * channels + 1})"
        )
    values: dict[str, Any] = {
        "native_size": SIZES.get(int(transformer["target_size"]), SIZES[640]),
        "guidance": _guidance(files),
    }
    values = {**DEFAULTS, **values, **files.overrides}
    shift = values.get("flow_shift", files.config("scheduler").get("shift"))
    heads, head = int(transformer["num_attention_heads"]), int(transformer["attention_head_dim"])
    patch, (height, width) = int(transformer["patch_size"]), values["native_size"]
    return ModelInfo(
        id=files.id,
        family="hunyuan15",
        variant=values.get("variant", "hunyuanvideo-1.5"),
        channels=channels,
        stride=int(vae.get("temporal_compression_ratio", 4)),
        spatial=int(vae.get("spatial_compression_ratio", 16)),
        patch=(int(transformer["patch_size_t"]), patch, patch),
        native_frames=values["native_frames"],
        native_size=(height, width),
        fps=float(values["fps"]),
        steps=values["steps"],
        guidance=float(values["guidance"]),
        flow_shift=None if shift is None else float(shift),
        layers=int(transformer["num_layers"]),
        heads=heads,
        head_dim=head,
        ffn_dim=int(transformer["mlp_ratio"] * heads * head),
        text_tokens=int(files.overrides.get("max_sequence_length", TEXT_TOKENS)),
        rope=Rope("table", int(transformer["rope_axes_dim"][0]), float(transformer["rope_theta"])),
        capabilities=CAPABILITIES,
        negative_prompt=values.get("negative_prompt", ""),
        parameters=parameters(transformer),
        refusals=REFUSALS,
        footprint=footprint(transformer),
    )


def _guidance(files: Files) -> float:
    """The guider's scale, 1 where it is off. BadInput for rules other than plain guidance at every step."""
    kind, told = files.class_of("guider"), files.configs.get("guider", {})
    plain = {"guidance_rescale": 0.0, "use_original_formulation": False, "start": 0.0, "stop": 1.0}
    other = [f"{name}={told[name]}" for name, value in plain.items() if told.get(name, value) != value]
    if kind not in (None, GUIDER) or other:
        raise BadInput(f"model {files.id} has the guider {kind} {' '.join(other)}; supported: {GUIDER} at every step")
    return float(told.get("guidance_scale", 7.5)) if told.get("enabled", True) else 1.0


def _linear(a: int, b: int) -> int:
    return a * b + b


def parameters(config: Mapping[str, Any]) -> int:
    """Weights of the transformer, counted from its config."""
    config = {**CONFIG, **config}
    head, d = int(config["attention_head_dim"]), int(config["num_attention_heads"] * config["attention_head_dim"])
    mlp, text, glyph = int(config["mlp_ratio"] * d), int(config["text_embed_dim"]), int(config["text_embed_2_dim"])
    image, patch = int(config["image_embed_dim"]), int(config["patch_size_t"]) * int(config["patch_size"]) ** 2

    def feed(width: int) -> int:
        return _linear(d, width) + _linear(width, d)

    def embedder(width: int) -> int:
        return _linear(width, d) + _linear(d, d)

    norms = 2 * head if config["qk_norm"] else 0
    block = 2 * (4 * _linear(d, d) + norms + _linear(d, 6 * d) + feed(mlp))
    refiner = 4 * _linear(d, d) + 4 * d + feed(4 * d) + _linear(d, 2 * d)
    words = embedder(256) + embedder(text) + _linear(text, d) + int(config["num_refiner_layers"]) * refiner
    words += 2 * glyph + _linear(glyph, 2048) + _linear(2048, 2048) + _linear(2048, d) + 3 * d
    seen = 2 * image + _linear(image, image) + _linear(image, d) + 2 * d
    times = embedder(256) * (2 if config["use_meanflow"] else 1)
    ends = _linear(int(config["in_channels"]) * patch, d) + _linear(d, 2 * d)
    ends += _linear(d, patch * int(config["out_channels"]))
    return int(config["num_layers"]) * block + words + seen + times + ends


def footprint(config: Mapping[str, Any]) -> Footprint:
    """Multiply-adds of HunyuanVideo15Transformer3DModel, without quoted words: both kinds of tokens cost alike in a
    block, words pass the refiner first; the timestep, the pooled text and all modulations come once per forward.

    Words are counted as if the text had its full length; the network runs on those that there are.

    Fullest moments: when the words' part of attention joins the video's, the block's input, the norm, q, k, v, the
    turned q and k and both parts are alive, and three copies in fp32; the feed-forward holds the block's input, the
    last attention's output, the norm and the inner layer before and after GELU. Nobody has counted the decoder, whose
    memory grows with the video.
    """
    config = {**CONFIG, **config}
    head, d = int(config["attention_head_dim"]), int(config["num_attention_heads"] * config["attention_head_dim"])
    mlp, x = int(config["mlp_ratio"] * d), int(config["in_channels"])
    layers, refiners, text = int(config["num_layers"]), int(config["num_refiner_layers"]), int(config["text_embed_dim"])
    patch = int(config["patch_size_t"]) * int(config["patch_size"]) ** 2
    blocks, words = layers * (4 * d * d + 2 * d * mlp), 6 * d + 2 * text
    return Footprint(
        token=blocks + (int(config["in_channels"]) + int(config["out_channels"])) * patch * d,
        word=blocks + text * d + refiners * 12 * d * d,
        level=2 * (256 * d + d * d) + text * d + d * d + (refiners * 2 + layers * 12 + 2) * d * d,
        level_per_token=False,
        word_layers=refiners,
        moments=(
            Moment("words join", 9 * d + x * patch, 3 * d + 2 * head, words),
            Moment("feed-forward", 3 * d + 2 * mlp + x * patch, 2 * head, words),
        ),
    )
