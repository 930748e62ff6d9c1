"""A loaded SkyReels-V2 checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import SkyReelsV2DiffusionForcingPipeline, SkyReelsV2Pipeline
from torch import Tensor

from longgen.models.files import read_json
from longgen.models.skyreels.denoiser import SkyReelsDenoiser
from longgen.models.skyreels.info import describe
from longgen.models.solvers import Fresh, SchedulerSolver
from longgen.models.wan.model import WanModel
from longgen.protocols import Conditions
from longgen.types import LatentGrid, ModelInfo

CLASSES = {kind.__name__: kind for kind in (SkyReelsV2DiffusionForcingPipeline, SkyReelsV2Pipeline)}


class Overwriting(SchedulerSolver):
    """The step rule as the diffusion-forcing pipeline, and the authors' code before it, really take it.

    They write each step's result over the sample that it came from, which UniPC still holds after its first step, and
    so the first correction starts from the new sample. `unipc` by name is the rule of the paper.
    """

    def __init__(self, rule: SchedulerSolver) -> None:
        self._rule = rule
        self.name, self.order, self.stochastic, self.schedule = rule.name, rule.order, rule.stochastic, rule.schedule

    def init(self, start: int = 0) -> Mapping[str, Any]:
        return self._rule.init(start)

    def seeded(self, fresh: Fresh) -> Overwriting:
        return Overwriting(self._rule.seeded(fresh))

    def step(
        self, memory: Mapping[str, Any], x: Tensor, clean: Tensor, row: int, start: int = 0
    ) -> tuple[Tensor, Mapping[str, Any]]:
        then, kept = self._rule.step(memory, x, clean, row, start)
        first = "last_sample" in memory and memory["last_sample"] is None
        return then, {**kept, "last_sample": then.clone()} if first else kept


class SkyReelsModel(WanModel):
    """SkyReels-V2, text-to-video or diffusion forcing: Wan's VAE and text encoder, a transformer of its own."""

    describe = staticmethod(describe)

    @staticmethod
    def kind(info: ModelInfo, path: Path) -> Any:
        return CLASSES[read_json(path / "model_index.json")["_class_name"]]

    def solver(self, name: str | None, steps: int, flow_shift: float | None) -> SchedulerSolver:
        rule = super().solver(name, steps, flow_shift)
        as_published = name in (None, "default") and isinstance(self.pipe, SkyReelsV2DiffusionForcingPipeline)
        return Overwriting(rule) if as_published else rule

    def denoiser(self, conditions: Conditions, grid: LatentGrid, steps: int) -> SkyReelsDenoiser:
        return SkyReelsDenoiser(self, conditions, steps)
