"""What every engine shares: limits, the self-test against fp32, its cache.

Knows devices and plans. Does not know kernel libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import ClassVar

import torch
from torch import Tensor

from longgen.attention import plans
from longgen.errors import BadInput
from longgen.types import Dense, FrameGather, FrameWindow, Plan, TokenDecay, Union

EVERY_PLAN: frozenset[type] = frozenset({Dense, FrameWindow, FrameGather, Union})
# Largest deviation from an fp32 softmax that a correct kernel may show on unit Gaussian inputs.
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}


class Engine:
    """Base of the engines: one dense kernel, plans carried out by views and merges of it.

    A subclass gives `kernel`, or overrides `attend` where its library serves windows in one call.
    """

    name: ClassVar[str]
    package: ClassVar[str] = "torch"  # as pip calls it
    module: ClassVar[str] = "torch"  # as Python imports it
    hint: ClassVar[str] = ""  # how to get the package, said when it is missing
    sm: ClassVar[int] = 80  # oldest CUDA compute capability, major·10 + minor
    devices: ClassVar[frozenset[str]] = frozenset({"cuda"})
    dtypes: ClassVar[frozenset[torch.dtype]] = frozenset({torch.float16, torch.bfloat16})
    head_dims: ClassVar[str] = "multiples of 8 up to 256"
    supports: ClassVar[frozenset[type]] = EVERY_PLAN
    tolerance: ClassVar[float] = 1.0  # times TOLERANCE: above 1 for kernels that quantise, which `auto` never picks

    def kernel(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Dense attention: q [B, Sq, N, D], k, v [B, Sk, N, D] → out [B, Sq, N, D], lse [B, N, Sq]."""
        raise NotImplementedError

    def head_dim(self, d: int) -> bool:
        """Whether heads of d channels can be served."""
        return d % 8 == 0 and d <= 256

    def available(self, device: torch.device) -> str | None:
        """None, or why the library cannot run here (not installed, hardware too old)."""
        if find_spec(self.module) is None:
            return f"package {self.package} is not installed{self.hint and f' ({self.hint})'}"
        if device.type == "cuda":
            major, minor = torch.cuda.get_device_capability(device)
            if 10 * major + minor < self.sm:
                return f"needs sm{self.sm} or newer, this GPU is sm{major}{minor}"
        return None

    @property
    def version(self) -> str | None:
        """Of the package behind this engine; None when it is not installed."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """Attention under a plan; see `plans.run`."""
        for kind in kinds(plan) - self.supports:
            use = " (--attention flex, sdpa or sdpa-math do)" if kind is TokenDecay else ""
            raise BadInput(f"attention engine {self.name} does not serve {kind.__name__} plans{use}")
        return plans.run(self.kernel, q, k, v, plan, scale)

    def probe(self, device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
        """None when this engine runs and is right here, else the reason. The self-test's verdict is cached."""
        reason = self.available(device)
        if reason is not None:
            return reason
        if device.type not in self.devices:
            return f"runs on {' and '.join(sorted(self.devices))}, not {device.type}"
        if dtype not in self.dtypes:
            return f"takes {', '.join(sorted(str(d).removeprefix('torch.') for d in self.dtypes))}, not {dtype}"
        if not self.head_dim(head_dim):
            return f"takes head dims that are {self.head_dims}, not {head_dim}"
        make: Callable[[], Engine] = type(self)
        return _verdict(make, device, dtype, head_dim)


def kinds(plan: Plan) -> set[type]:
    """The plan classes that occur in a plan."""
    if isinstance(plan, Union):
        return {Union}.union(*(kinds(p) for p in plan.parts))
    return {type(plan)}


@lru_cache(maxsize=256)
def _verdict(make: Callable[[], Engine], device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    """One tile of every supported plan against an fp32 softmax."""
    engine = make()
    tile: dict[type, Plan] = {
        Dense: Dense(),
        FrameWindow: FrameWindow(16, ((0, 2), (0, 2), (1, 3), (2, 4), (3, 5), (3, 5))),
        FrameGather: FrameGather(16, ((0, 2), (0, 3), (1, 4), (0, 1), (2, 4), (0, 4))),
        Union: Union((FrameWindow(16, ((0, 1),) * 6), FrameWindow(16, ((1, 4),) * 6)), (1.0, 0.7)),
        TokenDecay: TokenDecay(16, 24, 0.7, 0.4, 0, 3, 4),
    }
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n * 16, 2, head_dim, generator=draw).to(device, dtype) for n in (6, 5, 5))
    for kind, plan in tile.items():
        if kind not in engine.supports:
            continue
        try:
            got = engine.attend(q, k, v, plan, 0.8)
        except Exception as error:  # a kernel may fail in any way; the reason is what the user needs
            return f"self-test failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        want = _wanted(q.float(), k.float(), v.float(), plan, 0.8)
        worst = max(float((g.float() - w).abs().max()) for g, w in zip(got, want))
        allowed = TOLERANCE[dtype] * engine.tolerance
        if not worst <= allowed:  # also refuses NaN
            return f"self-test failed: {kind.__name__} is off by {worst:.1e} from fp32 (allowed {allowed:.0e})"
    return None


def _wanted(q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float) -> tuple[Tensor, Tensor]:
    if isinstance(plan, TokenDecay):
        return _exact(q, k, v, scale, plan)
    return plans.run(_exact, q, k, v, plan, scale)


def _exact(q: Tensor, k: Tensor, v: Tensor, scale: float, plan: TokenDecay | None = None) -> tuple[Tensor, Tensor]:
    """The textbook softmax, for tiles."""
    logits = torch.einsum("bqnd,bknd->bnqk", q, k) * (scale * q.shape[-1] ** -0.5)
    logits = logits if plan is None else plans.decayed(logits, plan)
    return torch.einsum("bnqk,bknd->bqnd", logits.softmax(-1), v), logits.logsumexp(-1)
