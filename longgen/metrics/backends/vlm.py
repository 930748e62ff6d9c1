"""Vision-language models as judges: the probability of the first token of the answer, by one forward pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from longgen.metrics.backends import hub


class Judge:
    """(frames, question) → P(yes) / (P(yes) + P(no)) of the answer's first token (UVE).

    Args:
        model: a transformers image-text-to-text model.
        processor: its processor, with a chat template.
        name: weights id.
    """

    comparable = False

    def __init__(self, model: Any, processor: Any, name: str, device: str = "cpu") -> None:
        self.model, self.processor, self.id, self.device = model.eval().to(device), processor, name, device
        words = processor.tokenizer
        self.answers = [self._first(words, spellings) for spellings in (("Yes", "yes"), ("No", "no"))]

    @staticmethod
    def _first(words: Any, spellings: Sequence[str]) -> list[int]:
        return sorted({words.encode(s, add_special_tokens=False)[0] for s in spellings})

    @torch.inference_mode()
    def __call__(self, frames: Sequence[NDArray[np.uint8]], question: str) -> float:
        content: list[dict[str, Any]] = [{"type": "image"} for _ in frames]
        turns = [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]
        text = self.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        inputs = self.processor(text=[text], images=[[*frames]], return_tensors="pt").to(self.device)
        logits = self.model(**inputs).logits[0, -1].float()
        yes, no = (float(torch.logsumexp(logits[ids], 0)) for ids in self.answers)
        return 1 / (1 + math.exp(no - yes)) if no - yes < 700 else 0.0


def load_vlm(spec: str, device: str = "cpu") -> Judge:
    """Role `vlm`: any image-text-to-text checkpoint with a chat template, by hub id or folder; no remote code."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder, name = hub.folder_of("vlm", spec)
    return _from_folder(folder, name, device, AutoModelForImageTextToText, AutoProcessor)


def _from_folder(folder: Path, name: str, device: str, models: Any, processors: Any) -> Judge:
    model = models.from_pretrained(folder, local_files_only=True)
    return Judge(model, processors.from_pretrained(folder, local_files_only=True), name, device)
