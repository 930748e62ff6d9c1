"""What a CogVideoX checkpoint is, from its JSON files. Knows config keys; loads nothing.

Defaults are those of the model cards and of CogVideoXPipeline (diffusers 0.42.1): 50 steps, guidance 6; 49 frames of
480×720 at 8 per second, version 1.5: 81 frames of 768×1360 at 16 per second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from longgen.errors import BadInput
from longgen.models.describe import Files
from longgen.types import Decode, Footprint, ModelInfo, Moment, Rope

PIPELINES = ("CogVideoXPipeline", "CogVideoXImageToVideoPipeline")
DEFAULTS: dict[str, dict[str, Any]] = {
    "cogvideox": {"native_frames": 49, "native_size": (480, 720), "fps": 8.0, "steps": 50, "guidance": 6.0},
    "cogvideox-1.5": {"native_frames": 81, "native_size": (768, 1360), "fps": 16.0, "steps": 50, "guidance": 6.0},
}
SAMPLE = {"height": 60, "width": 90}  # latents of the pictures that positions were made for
REFUSALS = {
    "cross_text": "CogVideoX takes text in one sequence with the video",
    "prefix_condition": "CogVideoX was not trained with clean first latents",
    "image": "this checkpoint was trained on text alone",
    "control": "CogVideoX takes no control video",
}
NO_ROPE = "this checkpoint has absolute positions, which have no frequencies; windows of native length suit it"
JOINED_LEVELS = "two latents share one token, and with it one level"


def describe(files: Files) -> ModelInfo:
    """ModelInfo of a CogVideoX folder; values of longgen.json win over the family's defaults."""
    pipeline = files.index.get("_class_name")
    if pipeline not in PIPELINES:
        raise BadInput(f"model {files.id} is a {pipeline}, which is not supported; supported: {', '.join(PIPELINES)}")
    if (kind := files.config("scheduler").get("prediction_type")) != "v_prediction":
        raise BadInput(f"model {files.id} predicts {kind}; CogVideoX checkpoints predict v (v_prediction)")
    transformer, vae = files.config("transformer"), files.config("vae")
    unit = int(transformer.get("patch_size_t") or 1)
    variant = "cogvideox" if unit == 1 else "cogvideox-1.5"
    values = {**DEFAULTS[variant], **files.overrides}
    learned = bool(transformer.get("use_learned_positional_embeddings", False))
    if learned:
        values["native_size"] = [8 * int(transformer.get(f"sample_{side}", n)) for side, n in SAMPLE.items()]
    channels = int(vae.get("latent_channels", 16))
    needs_image = _needs_image(files, channels)
    variant += "-i2v" if needs_image else ""
    heads, head = int(transformer.get("num_attention_heads", 30)), int(transformer.get("attention_head_dim", 64))
    rotary = bool(transformer.get("use_rotary_positional_embeddings", False))
    capabilities, refusals = {"self_attention", "joint_text", "stream_decode", "windows"}, dict(REFUSALS)
    for name, given, reason in (("rope", rotary, NO_ROPE), ("per_latent_level", unit == 1, JOINED_LEVELS)):
        if given:
            capabilities.add(name)
        else:
            refusals[name] = reason
    if needs_image:
        capabilities.add("image")
        refusals["prefix_condition"] = "it was trained with one image, not with the end of a clip"
    height, width = values["native_size"]
    space = int(transformer.get("patch_size", 2))
    return ModelInfo(
        id=files.id,
        family="cogvideox",
        variant=values.get("variant", variant),
        channels=channels,
        stride=int(vae.get("temporal_compression_ratio", 4)),
        spatial=2 ** (len(vae.get("block_out_channels", (128, 256, 256, 512))) - 1),
        patch=(unit, space, space),
        native_frames=values["native_frames"],
        native_size=(height, width),
        fps=float(values["fps"]),
        steps=values["steps"],
        guidance=float(values["guidance"]),
        flow_shift=None,
        layers=int(transformer.get("num_layers", 30)),
        heads=heads,
        head_dim=head,
        ffn_dim=4 * heads * head,
        text_tokens=int(files.overrides.get("max_sequence_length", transformer.get("max_text_seq_length", 226))),
        rope=Rope("argument", head // 4, 10_000.0) if rotary else Rope("absolute"),
        capabilities=frozenset(capabilities),
        negative_prompt=values.get("negative_prompt", ""),
        # Clips of 16k + 1 frames have an odd number of latents; one more in front, never decoded, makes whole tokens.
        lead_pad=unit - 1,
        parameters=parameters(transformer),
        refusals=refusals,
        footprint=footprint(transformer, vae, course(files.config("scheduler"))),
        needs_image=needs_image,
        learned_positions=learned,
    )


def _needs_image(files: Files, channels: int) -> bool:
    """Whether the transformer takes an image's latents beside the noise."""
    given = int(files.config("transformer").get("in_channels", 16))
    if given not in (channels, 2 * channels):
        raise BadInput(
            f"model {files.id}: the transformer takes {given} channels, the VAE makes {channels}; supported are "
            f"text-to-video ({channels}) and image-to-video checkpoints ({2 * channels})"
        )
    return given != channels


def parameters(config: Mapping[str, Any]) -> int:
    """Weights of the transformer, counted from its config."""
    head = int(config.get("attention_head_dim", 64))
    d = int(config.get("num_attention_heads", 30)) * head
    time, text = int(config.get("time_embed_dim", 512)), int(config.get("text_embed_dim", 4096))
    unit = config.get("patch_size_t")
    patch = int(config.get("patch_size", 2)) ** 2 * int(unit or 1)
    channels = int(config.get("in_channels", 16))
    out = int(config.get("out_channels") or channels)
    affine = 2 if config.get("norm_elementwise_affine", True) else 0
    # The linear patch embedding of version 1.5 always has a bias.
    patch_bias = d if unit or config.get("patch_bias", True) else 0
    norm = time * 6 * d + 6 * d + affine * d
    attention = 4 * d * d + d + (3 * d if config.get("attention_bias", True) else 0) + 4 * head
    block = 2 * norm + attention + 8 * d * d + 5 * d
    ends = channels * patch * d + patch_bias + text * d + d + d * out * patch + out * patch
    levels = d * time + time + time * time + time
    if offset := config.get("ofs_embed_dim"):
        levels += 2 * (offset * offset + offset)
    last = affine * d + time * 2 * d + 2 * d + affine * d
    return int(config.get("num_layers", 30)) * block + ends + levels + last


def footprint(config: Mapping[str, Any], vae: Mapping[str, Any], course: tuple[float, ...]) -> Footprint:
    """Multiply-adds of CogVideoXTransformer3DModel: tokens and words pass the same projections and feed-forward; each
    norm reads the level anew."""
    head, rotary = int(config.get("attention_head_dim", 64)), bool(config.get("use_rotary_positional_embeddings"))
    d = int(config.get("num_attention_heads", 30)) * head
    time, text = int(config.get("time_embed_dim", 512)), int(config.get("text_embed_dim", 4096))
    patch = int(config.get("patch_size", 2)) ** 2 * int(config.get("patch_size_t") or 1)
    channels, layers = int(config.get("in_channels", 16)), int(config.get("num_layers", 30))
    out = int(config.get("out_channels") or channels)
    return Footprint(
        token=layers * 12 * d * d + (channels + out) * patch * d,
        word=layers * 12 * d * d + text * d,
        level=layers * 12 * time * d + d * time + time * time + 2 * time * d,
        level_per_token=False,
        course=course,
        moments=moments(d, 2 * head if rotary else 0, channels * patch, text),
        levels=Moment("levels", d),
        decode=decode(vae),
        memory=1,
    )


def moments(d: int, tables: int, x: int, text: int) -> tuple[Moment, ...]:
    """CogVideoXBlock where it is fullest. The feed-forward takes video and text as one sequence: input, norm, the
    attention's output, and the inner layer before and after GELU. In half precision keys turn in fp32, three copies,
    over that sequence, its norm, and q, k, v. `tables` are the rotary ones', fp32."""
    full = Moment("feed-forward", 12 * d + x, tables, 13 * d + 2 * text)
    turning = Moment("keys turn", 7 * d + x, 3 * d + tables, 7 * d + 2 * text, half=True)
    return (full, turning) if tables else (full,)


def course(config: Mapping[str, Any], samples: int = 50) -> tuple[float, ...]:
    """σ = √(1 − ᾱ) along CogVideoX's trailing timesteps: scaled-linear β, shifted, zero at the end."""
    count, low, high = (
        1000,
        float(config.get("beta_start", 0.00085)) ** 0.5,
        float(config.get("beta_end", 0.012)) ** 0.5,
    )
    signals, product, shift = [], 1.0, float(config.get("snr_shift_scale", 3.0))
    for i in range(count):
        product *= 1 - (low + (high - low) * i / (count - 1)) ** 2
        signals.append((product / (shift + (1 - shift) * product)) ** 0.5)
    if config.get("rescale_betas_zero_snr", False):
        first, last = signals[0], signals[-1]
        signals = [(signal - last) * first / (first - last) for signal in signals]
    steps = (round(count * (1 - i / samples)) - 1 for i in range(samples))
    return (*((1 - signals[t] ** 2) ** 0.5 for t in steps), 0.0)


def decode(config: Mapping[str, Any]) -> Decode:
    """CogVideoXDecoder3D in the last stage of a batch of two latents.

    Every convolution keeps two frames of its input, the old ones while the new ones come; the two in each norm, though
    they look at one frame, keep all of theirs, the latents enlarged. At full size six tensors are alive and the
    enlarged latents, besides the last call's frames, as pixels and clamped.
    """
    dims = list(config.get("block_out_channels", (128, 256, 256, 512)))[::-1]
    z, blocks = int(config.get("latent_channels", 16)), int(config.get("layers_per_block", 3)) + 1
    doublings = int(config.get("temporal_compression_ratio", 4)).bit_length() - 1
    held = 2 * (2 * 2 * 2 * dims[0] + 2 * 2 * 2 * z)  # the middle: two resnets of two convolutions and norms
    frames, before = 2, dims[0]
    for i, out in enumerate(dims):
        norms = 2 * blocks + (i == len(dims) - 1)
        held += 4**i * (2 * norms * z * frames + 2 * 2 * (before + (2 * blocks - 1) * out))
        before = out
        frames *= 2 if i < doublings else 1
    area = 4 ** (len(dims) - 1)
    return Decode(held + area * frames * (6 * dims[-1] + z) + area * 6 * frames, 0.0, 2, 2)
