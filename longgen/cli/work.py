"""What `generate` does with its options: check everything, then make every video. Shared with `batch` and `story`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from longgen.api import Session, load_options
from longgen.cli.options import as_json
from longgen.cli.plan import describe_plan
from longgen.cli.progress import Bars, console, say
from longgen.config import Naming, Request
from longgen.errors import BadInput
from longgen.media.write import Target, check_target
from longgen.protocols import PromptSchedule
from longgen.runtime import distribute, outputs, sidecar
from longgen.runtime.plan import Plan
from longgen.runtime.run import Job, Outcome
from longgen.types import Preview, Timeline


@dataclass
class Work:
    """One command's videos. `check` refuses what cannot be done before anything is loaded; `run` does it."""

    output: str | None
    samples: int = 1
    naming: Naming = "index"
    codec: str | None = None
    crf: int | None = None
    save_latents: bool = False
    init_latents: Path | None = None
    preview_every: int = 0
    contact_sheet: bool = False
    resume: bool = False
    overwrite: bool = False
    json: bool = False
    timeline: Timeline | None = None
    prompts: PromptSchedule | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    session_in_hand: Session | None = None
    skip: bool = False

    def check(self, asked: Request, prompts: list[str], many: bool, dry_run: bool) -> None:
        """Paths, model, lengths, methods and devices, in this order of cost. Loads no weights."""
        items = outputs.expand(prompts, self.samples, self.output, self.naming, self.codec, many)
        if self.output is None and not dry_run:
            raise BadInput("no output: give -o OUT.mp4, or a folder ending in /")
        if self.preview_every < 0:
            raise BadInput(f"--preview-every must be 0 or more (got {self.preview_every})")
        if self.init_latents is not None and not self.init_latents.is_file():
            raise BadInput(f"latents file {self.init_latents} does not exist")
        reuse = self.overwrite or self.resume
        self.targets = [check_target(i.path, reuse, self.codec, self.crf) if i.path else None for i in items]
        self.session = self.session_in_hand or Session(asked.model, load_options(asked))
        self.plans = [self._plan(asked, item) for item in items]
        for plan, target in zip(self.plans, self.targets, strict=True):
            if plan.source and target and target.path.resolve() == plan.source.path.resolve():
                raise BadInput(f"--continue: {target.path} would replace the video that it continues; use another name")

    def _plan(self, asked: Request, item: outputs.Item) -> Plan:
        plan = self.session.plan(asked.model_copy(update={"prompt": item.prompt}), self.timeline)
        return replace(plan, seed=plan.seed + item.sample)

    def show(self) -> None:
        """The plans, as a table for people or as JSON."""
        told = [describe_plan(plan) for plan in self.plans]
        if self.json:
            typer.echo(as_json(told if len(told) > 1 else told[0]))
            return
        for facts in told:
            table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
            for key, value in facts.items():
                table.add_row(key, _short(value))
            typer.echo(_render(table))

    def run(self) -> list[Outcome]:
        """Every video in turn, or shared out when there are at least as many as processes; --json prints sidecars."""
        distribute.join()
        seeds = distribute.told([plan.seed for plan in self.plans])  # a drawn one is every process's own until here
        self.plans = [replace(plan, seed=seed) for plan, seed in zip(self.plans, seeds, strict=True)]
        for note in dict.fromkeys(note for plan in self.plans for note in plan.notes):
            say(note)
        videos = list(zip(self.plans, self.targets, strict=True))
        if 1 < distribute.world() <= len(videos):
            mine = videos[distribute.rank() :: distribute.world()]
            with distribute.alone():
                outcomes = self._all(mine)
        else:
            outcomes = self._all(videos)
        distribute.barrier()
        if self.json and outcomes:
            told = [o.sidecar for o in outcomes]
            typer.echo(as_json(told[0] if len(told) == 1 else told))
        return outcomes

    def _all(self, videos: list[tuple[Plan, Target | None]]) -> list[Outcome]:
        outcomes = []
        if len(videos) > 1:
            self.session.prepare([plan for plan, _ in videos], self.prompts)
        for plan, target in videos:
            assert target is not None
            if self.resume and self._finished(plan, target):
                say(f"{target.path} is finished already")
            else:
                outcomes.append(self._one(plan, target))
        return outcomes

    def _finished(self, plan: Plan, target: Target) -> bool:
        """The file is there, made by this very run; another file is only replaced with --overwrite."""
        if not target.path.exists():
            return False
        beside = sidecar.sidecar_path(target.path)
        if beside.exists() and f'"{plan.identity}"' in beside.read_text(encoding="utf-8"):
            return True
        if not self.overwrite:
            raise BadInput(f"{target.path} exists and is of another run; give another name or --overwrite")
        return False

    def _one(self, plan: Plan, target: Target) -> Outcome:
        path = target.path
        with Bars(plan.frames) as bars:
            job = Job(
                target=target,
                latents_out=path.with_suffix(".safetensors") if self.save_latents else None,
                init_latents=self.init_latents,
                checkpoint=path.parent / f".{path.stem}.checkpoint",
                resume=self.resume,
                on_progress=bars.on_step,
                on_frames=bars.on_frames,
                on_preview=self._preview(plan, path) if self.preview_every else None,
                extra=self.extra,
            )
            outcome = self.session.run(plan, job, self.prompts)
        say(f"{path}  {plan.frames} frames, {plan.frames / plan.fps:.1f} s  ({_spent(outcome.sidecar['timings'])})")
        if self.contact_sheet:
            say(str(self.sheet(plan, path)))
        return outcome

    def sheet(self, plan: Plan, path: Path) -> Path:
        """Stills with prompts and times, as OUT.png."""
        from longgen.media.sheet import contact_sheet

        prompts = [(s.start, s.prompt) for s in plan.told.shots]
        title = f"{plan.info.variant} · {plan.composition} · {plan.frames} frames · seed {plan.seed}"
        return contact_sheet(path, path.with_suffix(".png"), prompts=prompts, title=title)

    def _preview(self, plan: Plan, path: Path) -> Callable[[Preview], None]:
        from longgen.media.write import VideoWriter
        from longgen.runtime.latents import decode_chunk, to_uint8

        out = path.with_name(path.stem + ".preview.mp4")
        chunk = decode_chunk(plan.request.decode_chunk, plan.grid)

        def write(preview: Preview) -> None:
            if preview.step % self.preview_every == 0:
                with VideoWriter(out, plan.fps, overwrite=True) as writer:
                    for frames in self.session.model.decode(iter([preview.x]), chunk):
                        writer.write(to_uint8(frames))

        return write


def _spent(timings: dict[str, float]) -> str:
    return ", ".join(f"{stage} {timings[stage]:.1f} s" for stage in ("sample", "decode", "encode") if stage in timings)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 400 else text[:397] + "…"


def _render(table: Table) -> str:
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()
