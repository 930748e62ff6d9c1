"""`python -m longgen.shapes.train`: makes the embedded model, from nothing to a diffusers pipeline folder.

Stages, in order: `vae`, `latents`, `dit`, `export`. Each one can be stopped at any time and goes on from its last
state when the same command runs again; a finished stage is not run twice. Both trainings run in bfloat16 autocast,
on CPUs with AMX as well as on GPUs; a stage ends at its number of steps or after its minutes, whichever comes first.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan

from longgen.shapes import train_dit, train_vae
from longgen.shapes.train_common import Budget, load_state
from longgen.shapes.train_export import export

STAGES = ("vae", "latents", "dit", "export")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m longgen.shapes.train", description=__doc__)
    parser.add_argument("--state", type=Path, default=Path("out/shapes-train"), help="folder of resumable state")
    parser.add_argument("--out", type=Path, default=Path("assets/shapes"), help="pipeline folder that `export` writes")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--vae-steps", type=int, default=2000)
    parser.add_argument("--vae-minutes", type=float, default=1e9, help="wall-time cap of the VAE stage")
    parser.add_argument("--dit-steps", type=int, default=10000)
    parser.add_argument("--dit-minutes", type=float, default=1e9, help="wall-time cap of the transformer stage")
    parser.add_argument("--chunks", type=int, default=6, help="chunks of 512 videos to start with")
    parser.add_argument("--chunk-every", type=int, default=300, help="steps after which the pool gains a chunk")
    parser.add_argument("--most-chunks", type=int, default=40)
    return parser.parse_args(argv)


def trained_vae(state: Path, seed: int, device: torch.device) -> AutoencoderKLWan:
    """The averaged VAE of the state folder, frozen."""
    stored = load_state(state, "vae")
    if stored is None:
        raise FileNotFoundError(f"{state} holds no trained VAE: run the stage vae first")
    vae = train_vae.build(seed)
    vae.load_state_dict(stored[0]["ema"])
    return train_vae.channels_last(vae.to(device)).eval().requires_grad_(False)


def main(argv: list[str] | None = None) -> int:
    """Run the chosen stages."""
    args = arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    device = torch.device(args.device)
    if "vae" in args.stages:
        train_vae.train(args.state, Budget(args.vae_steps, args.vae_minutes), args.seed, device, args.compile)
    if not {"latents", "dit", "export"} & set(args.stages):
        return 0
    vae = trained_vae(args.state, args.seed, device)
    encoder = train_dit.Encoder(vae, args.seed, device, args.compile)
    encoder.measure(args.state)
    if "latents" in args.stages:
        for index in range(args.chunks):
            encoder.chunk(args.state, index)
    if "dit" in args.stages:
        growth = train_dit.Growth(args.chunks, args.chunk_every, args.most_chunks)
        train_dit.train(args.state, encoder, Budget(args.dit_steps, args.dit_minutes), growth, args.seed, args.compile)
    if "export" in args.stages:
        export(args.state, vae, args.out, args.seed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
