"""Stage `export`: a trained state becomes a diffusers pipeline folder with its recipe and loss curves."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline

from longgen.shapes.train_common import load_state, write_json
from longgen.shapes.train_dit import BATCH, SHIFT, TextToVelocity, tokenizer

POINTS = 120
"""Points of each loss curve in the recipe."""

# What the folder's other files cannot say (docs/models/wan.md); the shapes world fixes the first four.
FACTS = {
    "variant": "shapes",
    "native_frames": 33,
    "native_size": [64, 64],
    "fps": 8,
    "steps": 25,
    "guidance": 4.0,
    "negative_prompt": "",
}


def scheduler() -> UniPCMultistepScheduler:
    """Wan2.1's scheduler, with the shift of this model's training."""
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        num_train_timesteps=1000,
        flow_shift=SHIFT,
    )


def export(state: Path, vae: AutoencoderKLWan, out: Path, seed: int) -> None:
    """Write the pipeline with averaged weights, and `recipe.json`, to `out`.

    Matrices of the transformer and kernels of the VAE are stored in bfloat16: half the size, no measurable loss.
    """
    stored = load_state(state, "dit")
    if stored is None:
        raise FileNotFoundError(f"{state} holds no trained transformer: run the stage dit first")
    tensors, _ = stored
    model = TextToVelocity(seed)
    model.load_state_dict(tensors["ema"])
    pipeline = WanPipeline(
        tokenizer=tokenizer(),
        text_encoder=model.text.eval(),
        vae=halve(vae),
        scheduler=scheduler(),
        transformer=halve(model.transformer).eval(),
    )
    pipeline.save_pretrained(out, safe_serialization=True)
    for path in out.rglob("*.safetensors"):
        path.chmod(0o644)
    write_json(out / "longgen.json", FACTS)
    write_json(out / "recipe.json", recipe(state, seed))


def halve(model: Any) -> Any:
    """The model with its matrices and kernels in bfloat16; norms, biases and modulation stay in float32."""
    for name, parameter in model.named_parameters():
        small = parameter.ndim < 2 or "gamma" in name or "scale_shift_table" in name or "time_embedder" in name
        parameter.data = parameter.data.contiguous().to(torch.float32 if small else torch.bfloat16)
    return model


def recipe(state: Path, seed: int) -> dict[str, Any]:
    """Seed, versions, steps, wall time and loss curve of every trained stage."""
    stages = {}
    for stage in ("vae", "dit"):
        stored = load_state(state, stage)
        if stored is not None:
            log = asdict(stored[1])
            every = max(1, len(log["curve"]) // POINTS)
            stages[stage] = log | {"curve": [[p["step"], p["loss"]] for p in log["curve"][::every]]}
    return {
        "command": "python -m longgen.shapes.train",
        "seed": seed,
        "batch": BATCH,
        "machine": {"threads": torch.get_num_threads(), "processor": platform.machine()},
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
        "stages": stages,
    }
