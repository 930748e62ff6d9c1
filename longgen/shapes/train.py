"""`python -m longgen.shapes.train`: makes the embedded model, from nothing to a diffusers pipeline folder.

Stages, in order: `vae`, `latents`, `dit`, `export`. Each one can be stopped at any time and goes on from its last
state when the same command runs again; a finished stage is not run twice.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch

from longgen.shapes import train_vae
from longgen.shapes.train_common import Budget

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
    parser.add_argument("--vae-steps", type=int, default=3000)
    parser.add_argument("--vae-minutes", type=float, default=1e9, help="wall-time cap of the VAE stage")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the chosen stages."""
    args = arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    device = torch.device(args.device)
    if "vae" in args.stages:
        train_vae.train(args.state, Budget(args.vae_steps, args.vae_minutes), args.seed, device, args.compile)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
