"""Transformers with random weights and no pipeline, for timing: full size needs no download.

Random weights change no time of a matrix product or an attention; what depends on data (step caches, sparsity that is
chosen at run time) cannot be timed so. Knows the classes of Wan and LTX and how their patches are put on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from diffusers import LTXVideoTransformer3DModel, WanTransformer3DModel
from torch import Tensor

from longgen.errors import BadInput
from longgen.models.ltx import patching as ltx
from longgen.models.options import compile_blocks
from longgen.models.patching import Stage
from longgen.models.texts import TextPlan
from longgen.models.wan import patching as wan
from longgen.types import Attend, Level, ModelInfo, Patch, Site

TEXT_WIDTH = 4096


@dataclass
class Bare:
    """One transformer and a way to run it on `frames` latents under a patch."""

    info: ModelInfo
    transformer: Any
    stage: Stage
    size: tuple[int, int]  # latent height and width
    dtype: torch.dtype  # of its products; some modules stay in fp32

    @contextmanager
    def wearing(self, patch: Patch, frames: int) -> Iterator[Callable[[Level, int], Tensor]]:
        """Inside, `forward(level, step)` is one run of the network on the same random latents."""
        device, dtype = next(self.transformer.parameters()).device, self.dtype
        draw = torch.Generator().manual_seed(0)
        x = torch.randn(1, self.info.channels, frames, *self.size, generator=draw).to(device, dtype)
        text = torch.randn(1, self.info.text_tokens, TEXT_WIDTH, generator=draw).to(device, dtype)
        p_t, p_h, p_w = self.info.patch
        grid = (frames // p_t, self.size[0] // p_h, self.size[1] // p_w)
        worn = [] if patch.empty else [self._install(patch)]
        run = self._ltx if self.info.family == "ltx" else self._wan

        def forward(level: Level, step: int) -> Tensor:
            site = Site(0, self.info.layers, "cond", 0, level, tuple(range(frames)), grid, None, step, 50)
            self.stage.enter((site,), (TextPlan(text),))
            with torch.no_grad():
                return run(x, level.t[None].to(device), text, grid)

        with contextmanager(_nothing)() if not worn else worn[0] as positions:
            if positions is not None:
                positions.place(frames)
            yield forward

    def _install(self, patch: Patch) -> AbstractContextManager[Any]:
        if self.info.family == "ltx":
            step = self.info.stride / self.info.fps
            return ltx.installed(self.transformer, patch, self.stage, True, lambda latents: latents * step)
        return wan.installed(self.transformer, patch, self.stage, True)

    def _wan(self, x: Tensor, t: Tensor, text: Tensor, grid: tuple[int, int, int]) -> Tensor:
        out: Tensor = self.transformer(x, t, text, return_dict=False)[0]
        return out

    def _ltx(self, x: Tensor, t: Tensor, text: Tensor, grid: tuple[int, int, int]) -> Tensor:
        frames, height, width = grid
        scale = (self.info.stride / self.info.fps, self.info.spatial, self.info.spatial)
        out: Tensor = self.transformer(
            x.flatten(2).transpose(1, 2), text, t, ltx.text_mask(text), frames, height, width, scale, return_dict=False
        )[0]
        return out


def _nothing() -> Iterator[None]:
    yield None


def bare(
    info: ModelInfo, size: tuple[int, int], layers: int, attend: Attend, device: str, dtype: torch.dtype, compiled: bool
) -> Bare:
    """A transformer of the checkpoint's shape with `layers` layers.

    Args:
        size: latent height and width.
        compiled: compile every block.

    Raises:
        BadInput: a family without a form here.
    """
    width = {"num_attention_heads": info.heads, "attention_head_dim": info.head_dim, "num_layers": layers}
    classes: dict[str, Callable[[], Any]] = {
        "wan": partial(
            WanTransformer3DModel, **width, patch_size=info.patch, in_channels=info.channels,
            out_channels=info.channels, ffn_dim=info.ffn_dim, text_dim=TEXT_WIDTH,
        ),
        "ltx": partial(
            LTXVideoTransformer3DModel, **width, in_channels=info.channels, out_channels=info.channels,
            cross_attention_dim=info.heads * info.head_dim, caption_channels=TEXT_WIDTH,
        ),
    }  # fmt: skip
    if info.family not in classes:
        raise BadInput(f"bench forward builds {' and '.join(classes)} transformers, not {info.family}")
    with torch.device(device):
        transformer = classes[info.family]().eval()
    kept = tuple(getattr(transformer, "_keep_in_fp32_modules", None) or ())
    for name, parameter in transformer.named_parameters():
        if not any(part in name for part in kept):
            parameter.data = parameter.data.to(dtype)
    if compiled:
        compile_blocks(transformer)
    return Bare(replace(info, layers=layers), transformer, Stage(attend), size, dtype)
