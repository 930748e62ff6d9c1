"""Thin adapters over diffusers, one folder per family."""

import logging

# diffusers imports xformers, which warns on import where its kernels do not fit this torch; `longgen doctor` says so.
logging.getLogger("xformers").setLevel(logging.ERROR)
