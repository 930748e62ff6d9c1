"""FreeInit, safe for flow models: generate, re-noise, keep the low frequencies, generate again.

Knows finished latents and the schedule. Does not know how the loop walks; the loop must start from one common level.
"""

from __future__ import annotations

import torch
from torch import Tensor

from longgen.errors import BadInput
from longgen.protocols import Context, Method, MethodInfo, Setting
from longgen.types import ModelInfo, Schedule, add_noise

NO_LEVEL = "freeinit restarts the whole video at one noise level, and this loop has no such point"


def low_pass(shape: tuple[int, int, int], spatial: float, temporal: float, kind: str = "butterworth") -> Tensor:
    """H over the bins of a T × H × W FFT, in [0, 1], with H = 1 at frequency 0.

    d² = (d_s/d_t·f_t)² + f_h² + f_w² in Nyquist units; Butterworth of order 4 1/(1 + (d²/d_s²)⁴), or Gaussian
    e^(−d²/2d_s²). Bins sit where the FFT has them, so the result of a mix is real at odd lengths too (the public code's
    grid is off centre there).

    Args:
        spatial, temporal: cut-offs d_s and d_t in Nyquist units; 0 keeps only frequency 0.
    """
    if spatial <= 0 or temporal <= 0:
        flat = torch.zeros(shape)
        flat[0, 0, 0] = 1.0
        return flat
    t, h, w = (2 * torch.fft.fftfreq(n).double() for n in shape)
    squared = (spatial / temporal * t[:, None, None]) ** 2 + h[None, :, None] ** 2 + w[None, None, :] ** 2
    ratio = squared / spatial**2
    return (1 / (1 + ratio**4) if kind == "butterworth" else torch.exp(-ratio / 2)).float()


def mix(low: Tensor, high: Tensor, passed: Tensor) -> Tensor:
    """√H of the spectrum of `low` plus √(1 − H) of that of `high`: unit variance in, unit variance out.

    The original's weights H and 1 − H leave half the variance where H = ½.
    """
    axes = (2, 3, 4)
    passed = passed.to(low.device)
    kept = torch.fft.fftn(low.float(), dim=axes) * passed.sqrt()
    drawn = torch.fft.fftn(high.float(), dim=axes) * (1 - passed).sqrt()
    return torch.fft.ifftn(kept + drawn, dim=axes).real


class FreeInit(Method):
    """Later rounds start from √H∘F(z) + √(1 − H)∘F(σ·η), z = α·x0 + σ·ε at the first row with σ ≤ σ* (2312.07537).

    ε is the noise of round 0, η fresh. The original re-noises to σ = 1, where flow models keep nothing of x0; σ* < 1
    keeps a share of it.
    """

    info = MethodInfo(
        name="freeinit",
        title="Rounds of re-noising that keep the low frequencies of the result",
        slots=("wrapper",),
        paper="2312.07537",
        settings={
            "rounds": Setting(3, "1", "how often the loop runs in all", low=1, high=20),
            "sigma_restart": Setting(0.95, "1", "σ*, level at which later rounds start", low=0.05, high=0.999),
            "filter": Setting("butterworth", "1", "shape of the low-pass", choices=("butterworth", "gaussian")),
            "d_s": Setting(0.25, "Nyquist", "spatial cut-off", low=0.0, high=2.0),
            "d_t": Setting(0.25, "Nyquist", "temporal cut-off", low=0.0, high=2.0),
        },
        cost="rounds × loop",
        laws={"conflicts": {}},
        conflicts={"fifo": NO_LEVEL, "miga": NO_LEVEL, "extend": NO_LEVEL},
    )

    def rounds(self) -> int:
        return int(self.settings["rounds"])

    def restart(self, schedule: Schedule) -> int:
        return schedule.row_at(self.sigma_restart)

    def refine(self, ctx: Context, x0: Tensor, round: int) -> tuple[Tensor, int]:
        row = self.restart(ctx.schedule)
        if row == 0 or row >= ctx.schedule.steps:
            raise BadInput(
                f"freeinit.sigma_restart {self.sigma_restart} meets row {row} of a schedule of {ctx.schedule.steps} "
                "steps; take more steps, or a level between the first and the last σ of the schedule"
            )
        level = ctx.schedule[row]
        frames = ctx.grid.frames
        noisy = add_noise(x0, ctx.noise(0, frames).to(x0), level)
        fresh = level.sigma.to(x0) * ctx.fresh(f"freeinit{round}", 0, frames).to(x0)
        shape = (x0.shape[2], x0.shape[3], x0.shape[4])
        return mix(noisy, fresh, low_pass(shape, self.d_s, self.d_t, self.filter)), row

    def notes(self, frames: int, info: ModelInfo) -> list[str]:
        return [f"freeinit: the loop runs {self.rounds()} times, later rounds from σ ≤ {self.sigma_restart}"]
