"""`LoadOptions` carried out on a diffusers pipeline: offload, casting, tiling, compilation, caches, LoRA, quantisation.

All of it is diffusers' own machinery, chosen by name. Knows pipelines; does not know families.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from diffusers import FirstBlockCacheConfig, PipelineQuantizationConfig, TaylorSeerCacheConfig

from longgen.errors import BadInput, unknown
from longgen.types import LoadOptions

# Caches that keep their state per context, so that branches, windows and experts never mix. The number after a colon
# is `threshold` for first_block and the interval of full computation for taylorseer.
CACHES = {
    "first_block": lambda value: FirstBlockCacheConfig(threshold=0.05 if value is None else value),
    "taylorseer": lambda value: TaylorSeerCacheConfig(cache_interval=5 if value is None else int(value)),
}
REFUSED_CACHES = {
    "pab": "pyramid attention broadcast keeps one state for both sides of guidance, so guidance would vanish",
    "faster": "FasterCache expects both sides of guidance in one call",
    "mag": "its ratios must be calibrated per model, schedule and length, and exist for none of these models",
}
QUANTISED = {
    "nf4": ("bitsandbytes_4bit", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
    "int8": ("bitsandbytes_8bit", {"load_in_8bit": True}),
}
TRANSFORMERS = ("transformer", "transformer_2")


def check(options: LoadOptions, device: torch.device) -> None:
    """BadInput for options that cannot be carried out here. Runs before anything loads."""
    cache_config(options.cache)
    quantisation(options.quantize, device)
    if options.offload in {"model", "sequential"} and device.type == "cpu":
        raise BadInput(
            f"--offload {options.offload} moves weights between an accelerator and the CPU; use none or group"
        )
    if options.offload == "sequential" and options.layerwise_fp8:
        raise BadInput("--offload sequential and fp8 casting both move weights per layer; use --offload group")
    if options.parallel == "ring":
        raise BadInput(
            "--parallel ring never brings all tokens of a head together, which windows and blends need; use ulysses"
        )
    if options.parallel == "ulysses" and options.cache != "none":
        raise BadInput(
            "--parallel ulysses and a step cache: processes could decide differently whether to skip; use --cache none"
        )
    if options.loras and find_spec("peft") is None:
        raise BadInput("--lora needs the package peft: pip install peft")
    for path, _ in map(split_scale, options.loras):
        if path.endswith(".safetensors") and not Path(path).is_file():
            raise BadInput(f"LoRA {path} cannot be loaded: there is no such file")


def cache_config(name: str) -> Any:
    """The config of a cache named "kind" or "kind:value"; None for "none"."""
    if name == "none":
        return None
    kind, _, text = name.partition(":")
    if kind in REFUSED_CACHES:
        raise BadInput(f"cache {kind!r} is refused: {REFUSED_CACHES[kind]}; use {' or '.join(CACHES)}")
    if kind not in CACHES:
        raise unknown("cache", kind, [*CACHES, "none"])
    try:
        value = float(text) if text else None
    except ValueError:
        raise BadInput(f"cache {name!r}: {text!r} is not a number") from None
    return CACHES[kind](value)


def quantisation(name: str | None, device: torch.device) -> Any:
    """diffusers' config for quantised loading of the transformers; None for none."""
    if name is None:
        return None
    if name not in QUANTISED:
        raise unknown("quantisation", name, QUANTISED)
    if find_spec("bitsandbytes") is None or device.type != "cuda":
        raise BadInput(f"--quantize {name} needs a CUDA device and the package bitsandbytes")
    backend, settings = QUANTISED[name]
    return PipelineQuantizationConfig(
        quant_backend=backend, quant_kwargs=settings, components_to_quantize=list(TRANSFORMERS)
    )


def apply(pipe: Any, options: LoadOptions, device: torch.device) -> None:
    """Everything that is done once after loading, in the order that diffusers needs."""
    add_loras(pipe, options.loras)
    for transformer in transformers(pipe):
        if options.layerwise_fp8:
            transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=transformer.dtype)
        if (config := cache_config(options.cache)) is not None:
            transformer.enable_cache(config)
        if options.compile:
            compile_blocks(transformer)
    if options.vae_tiling:
        pipe.vae.enable_tiling()
    place(pipe, options, device)


def place(pipe: Any, options: LoadOptions, device: torch.device) -> None:
    """Weights to the device, or the offloading that brings them there when needed."""
    if options.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif options.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    elif options.offload == "group":
        stream = device.type == "cuda"
        pipe.enable_group_offload(device, offload_type="leaf_level", use_stream=stream)
    else:
        pipe.to(device)


def compile_blocks(transformer: Any, **settings: Any) -> None:
    """Compiles every block whole: a break inside one is an error, never a slow run. `settings` go to torch.compile."""
    if transformer._repeated_blocks:
        transformer.compile_repeated_blocks(fullgraph=True, **settings)
        return
    for block in transformer.transformer_blocks:  # CogVideoX does not name its blocks
        block.compile(fullgraph=True, **settings)


def transformers(pipe: Any) -> list[Any]:
    """The denoising networks of a pipeline, high noise first."""
    found = (getattr(pipe, name, None) for name in TRANSFORMERS)
    return [transformer for transformer in found if transformer is not None]


def add_loras(pipe: Any, loras: tuple[str, ...]) -> None:
    """Loads "PATH" or "PATH:scale" adapters, active together."""
    scales = {}
    for i, entry in enumerate(loras):
        path, scale = split_scale(entry)
        name = f"lora{i}"
        try:
            pipe.load_lora_weights(path, adapter_name=name)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise BadInput(f"LoRA {path} cannot be loaded: {str(error).splitlines()[0]}") from None
        scales[name] = scale
    if scales:
        pipe.set_adapters(list(scales), list(scales.values()))


def split_scale(entry: str) -> tuple[str, float]:
    """("PATH", scale) of "PATH:scale"; 1 without one.

    >>> split_scale("style.safetensors:0.8"), split_scale("style.safetensors")
    (('style.safetensors', 0.8), ('style.safetensors', 1.0))
    """
    path, colon, text = entry.rpartition(":")
    try:
        return (path, float(text)) if colon else (entry, 1.0)
    except ValueError:
        return entry, 1.0
