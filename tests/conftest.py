"""Every test runs on one thread and never reaches for a network."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import pytest
import torch
from hypothesis import settings

# The same examples on every run: a failure that CI finds can be found again. Random search is for development
# (`HYPOTHESIS_PROFILE=search`).
settings.register_profile("house", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "house"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny tensors gain nothing from threads, and bitwise comparisons must not depend on the machine's cores."""
    torch.set_num_threads(1)
