"""How well the embedded model keeps its prompts at native length, seen and held-out combinations apart, by the judge;
and how well its VAE reconstructs, also far beyond the native length."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longgen.api import Session
from longgen.bench.rows import Rows
from longgen.cli.progress import say
from longgen.config import Request
from longgen.core.noise import generator
from longgen.runtime.run import Job
from longgen.shapes import judge, render
from longgen.shapes.grammar import seen_specs
from longgen.types import LoadOptions


def run(rows: Rows, count: int = 200, steps: int = 25, dtype: str = "fp32") -> None:
    """`count` prompts each of seen and held-out combinations, then the VAE at 33 and 513 frames."""
    session = Session("shapes", LoadOptions(dtype=dtype))

    def sample(prompts: Sequence[str]) -> list[NDArray[np.uint8]]:
        videos = []
        for seed, prompt in enumerate(prompts):
            asked = Request(prompt=prompt, num_inference_steps=steps, seed=seed, method="direct")
            frames = session.run(session.plan(asked), Job(keep=True)).frames
            assert frames is not None
            videos.append(frames)
        return videos

    for part, figures in judge.score(sample, count).items():
        key = {"part": part, "steps": steps, "count": count, "model_hash": session.model_hash}
        say(f"{part}: {rows.add(key, figures)}")
    for frames in (33, 513):
        values = reconstruction(session, frames, videos=8 if frames == 33 else 2)
        say(f"VAE at {frames} frames: {values}")
        rows.add({"part": "vae", "frames": frames, "model_hash": session.model_hash}, values)


def reconstruction(session: Session, frames: int, videos: int) -> dict[str, float]:
    """PSNR in dB of encode → streaming decode on rendered truth: all frames, the first 33 and the last 33."""
    pipe = session.model.pipe  # type: ignore[attr-defined]
    vae, mean = pipe.vae, torch.tensor(pipe.vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    every = seen_specs()
    errors = []
    for i in range(videos):
        draw = generator(i, "vae-truth")
        spec = every[int(torch.randint(len(every), (1,), generator=draw))]
        truth = render.render(render.draw([spec], draw), frames)[0]  # [3, F, H, W]
        with torch.no_grad():
            latents = vae.encode(truth[None] * 2 - 1).latent_dist.mode()
        decoded = torch.cat(list(session.model.decode(iter([(latents - mean) / std]))))
        errors.append((decoded.clamp(0, 1) - truth.transpose(0, 1)).square().mean(dim=(1, 2, 3)))
    error = torch.stack(errors).mean(0)
    return {"psnr": _db(error), "psnr_first_33": _db(error[:33]), "psnr_last_33": _db(error[-33:])}


def _db(error: Tensor) -> float:
    return -10 * math.log10(float(error.mean()))
