"""What an LTX-2 checkpoint is, from its JSON files. Knows config keys; loads nothing.

Defaults are LTX2Pipeline's own (diffusers 0.42.1): 121 frames of 512×768, 24 frames per second, 30 steps, guidance 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from longgen.errors import BadInput
from longgen.models.describe import Files
from longgen.models.ltx.info import course, decode, ratios
from longgen.types import Footprint, ModelInfo, Moment, Rope

PIPELINES = ("LTX2Pipeline",)
DEFAULTS: dict[str, Any] = {"native_frames": 121, "native_size": (512, 768), "fps": 24.0, "steps": 30, "guidance": 3.0}
TEXT_TOKENS = 1024  # LTX2Pipeline's max_sequence_length
CAPABILITIES = frozenset(
    {"per_latent_level", "prefix_condition", "rope", "self_attention", "cross_text", "stream_decode", "windows"}
)
REFUSALS = {
    "joint_text": "LTX-2 takes text through cross-attention",
    "image": "only text-to-video is supported for LTX-2",
    "control": "LTX-2 takes no control video",
}
# What the transformer's class takes where its config is silent.
CONFIG: dict[str, Any] = {
    "in_channels": 128,
    "out_channels": 128,
    "patch_size": 1,
    "patch_size_t": 1,
    "num_attention_heads": 32,
    "attention_head_dim": 128,
    "cross_attention_dim": 4096,
    "pos_embed_max_pos": 20,
    "audio_in_channels": 128,
    "audio_out_channels": 128,
    "audio_num_attention_heads": 32,
    "audio_attention_head_dim": 64,
    "audio_cross_attention_dim": 2048,
    "num_layers": 48,
    "caption_channels": 3840,
    "rope_theta": 10_000.0,
}


def describe(files: Files) -> ModelInfo:
    """ModelInfo of an LTX2Pipeline folder; values of longgen.json win over the family's defaults."""
    pipeline = files.index.get("_class_name")
    if pipeline not in PIPELINES:
        raise BadInput(f"model {files.id} is a {pipeline}, which is not supported; supported: {', '.join(PIPELINES)}")
    transformer, values = {**CONFIG, **files.config("transformer")}, {**DEFAULTS, **files.overrides}
    if int(transformer["pos_embed_max_pos"]) != 20 or float(transformer["rope_theta"]) != 10_000.0:
        raise BadInput(f"model {files.id} turns by other frequencies than LTX-2 (20 s, 10,000); not supported")
    time, space = ratios(files.config("vae"))
    heads, head = int(transformer["num_attention_heads"]), int(transformer["attention_head_dim"])
    patch, (height, width) = int(transformer["patch_size"]), values["native_size"]
    tokens = ((values["native_frames"] - 1) // time + 1) * (height // space) * (width // space)
    return ModelInfo(
        id=files.id,
        family="ltx2",
        variant=values.get("variant", "ltx-2"),
        channels=int(transformer["in_channels"]),
        stride=time,
        spatial=space,
        patch=(int(transformer["patch_size_t"]), patch, patch),
        native_frames=values["native_frames"],
        native_size=(height, width),
        fps=float(values["fps"]),
        steps=values["steps"],
        guidance=float(values["guidance"]),
        flow_shift=None,
        layers=int(transformer["num_layers"]),
        heads=heads,
        head_dim=head,
        ffn_dim=4 * heads * head,
        text_tokens=int(files.overrides.get("max_sequence_length", TEXT_TOKENS)),
        # A third of the inner width turns with time; angles are not per head.
        rope=Rope("coords", 2 * (heads * head // 6), 10_000.0),
        capabilities=CAPABILITIES,
        negative_prompt=values.get("negative_prompt", ""),
        parameters=parameters(transformer),
        refusals=REFUSALS,
        footprint=footprint(transformer, files.config("vae"), course(files.config("scheduler"), tokens)),
    )


def _linear(a: int, b: int, bias: bool = True) -> int:
    return a * b + (b if bias else 0)


def parameters(config: Mapping[str, Any]) -> int:
    """Weights of the transformer, its audio part included, counted from its config."""
    c = {**CONFIG, **config}
    d, a = (int(c[f"{x}num_attention_heads"] * c[f"{x}attention_head_dim"]) for x in ("", "audio_"))
    sound = int(c["audio_num_attention_heads"])
    told, heard = bool(c.get("cross_attn_mod", False)), bool(c.get("audio_cross_attn_mod", False))
    gated, audio_gated = bool(c.get("gated_attn", False)), bool(c.get("audio_gated_attn", False))

    def attention(query: int, keys: int, inner: int, gates: int) -> int:
        return 2 * _linear(query, inner) + 2 * _linear(keys, inner) + query - inner + 2 * inner + gates * (query + 1)

    def feed(width: int, bias: bool) -> int:
        return _linear(width, 4 * width, bias) + _linear(4 * width, width, bias)

    def norm(width: int, values: int) -> int:  # a timestep's embedding and the modulations made of it
        return _linear(256, width) + _linear(width, width) + _linear(width, values * width)

    video = int(c["num_attention_heads"]) if gated else 0
    across, audio = (sound if on else 0 for on in (gated, audio_gated))
    block = attention(d, d, d, video) + attention(d, int(c["cross_attention_dim"]), d, video)
    block += attention(a, a, a, audio) + attention(a, int(c["audio_cross_attention_dim"]), a, audio)
    block += attention(d, a, a, across) + attention(a, d, a, audio)
    block += feed(d, bool(c.get("ff_bias", True))) + feed(a, bool(c.get("audio_ff_bias", True)))
    block += (9 if told else 6) * d + (9 if heard else 6) * a + 5 * (d + a) + (2 * (d + a) if told or heard else 0)
    levels = norm(d, 9 if told else 6) + norm(a, 9 if heard else 6) + sum(norm(w, n) for w in (d, a) for n in (4, 1))
    if (told or heard) and c.get("use_prompt_adaln_single", True):
        levels += norm(d, 2) + norm(a, 2)
    words = 0
    if c.get("use_prompt_embeddings", True):
        words = sum(_linear(int(c["caption_channels"]), w) + _linear(w, w) for w in (d, a))
    ends = _linear(int(c["in_channels"]), d) + _linear(int(c["audio_in_channels"]), a) + 2 * (d + a)
    ends += _linear(d, int(c["out_channels"] or c["in_channels"]))
    ends += _linear(a, int(c["audio_out_channels"] or c["audio_in_channels"]))
    ends += d if c.get("use_keyframes_abs_pos_embedding", False) else 0
    return int(c["num_layers"]) * block + levels + words + ends


def footprint(config: Mapping[str, Any], vae: Mapping[str, Any], course: tuple[float, ...]) -> Footprint:
    """Multiply-adds of the video part, counted as for LTX-Video; one silent latent of sound is not worth counting.

    Two more embeddings of the timestep, with five modulations, are made for the attention between picture and sound,
    which does not run.
    """
    c = {**CONFIG, **config}
    heads = int(c["num_attention_heads"])
    d, layers, words = heads * int(c["attention_head_dim"]), int(c["num_layers"]), int(c["cross_attention_dim"])
    channels, out = int(c["in_channels"]), int(c["out_channels"] or c["in_channels"])
    caption = int(c["caption_channels"]) if c.get("use_prompt_embeddings", True) else 0
    gates = 2 * heads * d if c.get("gated_attn", False) else 0
    modulations, own = 9 if c.get("cross_attn_mod", False) else 6, decode(vae)
    return Footprint(
        token=layers * (14 * d * d + gates) + (channels + out) * d,
        word=layers * 2 * words * d + (caption * d + d * d if caption else 0),
        level=3 * 256 * d + (1 + modulations + 1 + 4 + 1 + 1) * d * d,
        course=course,
        moments=(
            Moment("feed-forward", 12 * d + channels, 2 * d, d + 2 * caption),
            Moment("keys turn", 6 * d + channels, 5 * d, d + 2 * caption, half=True),
        ),
        levels=Moment("levels", 18 * d),
        # One more copy of a convolution's input than LTX-Video's: padding by reflection is made, not implied.
        decode=replace(own, per_latent=own.per_latent * 5.1 / 4.1),
        memory=1,
    )
