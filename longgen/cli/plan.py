"""`longgen plan`, and plans as people and programs read them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from longgen.cli.options import CONTINUE, MACHINE, SAMPLING, Json, request, shared

if TYPE_CHECKING:
    from longgen.runtime.plan import Plan


@shared(SAMPLING, CONTINUE, MACHINE)
def plan_command(*, json_output: Json = False, **options: Any) -> None:
    """What would run: windows, tokens, FLOPs, memory, time. Loads no weights."""
    from longgen.cli.work import Work

    asked = request(options)
    work = Work(output=None, json=json_output)
    work.check(asked, [asked.prompt or "(no prompt)"], many=False, dry_run=True)
    work.show()


def describe_plan(plan: Plan) -> dict[str, Any]:
    """A plan as plain values, for --json and for people."""
    cost = plan.cost
    return {
        "model": plan.info.variant,
        "method": str(plan.composition),
        "frames": plan.frames,
        "seconds": round(plan.frames / plan.fps, 3),
        "size": {"width": plan.size[1], "height": plan.size[0]},
        "fps": plan.fps,
        "latents": plan.grid.frames,
        "native_latents": plan.info.native_latents,
        "steps": plan.steps,
        "guidance": plan.guidance,
        "seed": plan.seed,
        "windows": [list(w) for w in plan.windows],
        "calls": cost.calls,
        "branches": cost.branches,
        "tokens_per_call": cost.tokens_per_call,
        "tflop": round(cost.flops / 1e12, 4),
        "bytes": asdict(cost.memory),
        "estimated_seconds": {k: float(f"{v:.3g}") for k, v in cost.seconds.items()},
        "timeline": [{"from": s.start, "to": s.stop, "prompt": s.prompt} for s in plan.told.shots],
        "notes": list(plan.notes),
    }
