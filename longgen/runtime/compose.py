"""From names to a composition: which method owns which slot, what conflicts, what the model must be able to do.

Knows the registry and the declarations of methods. Loads no weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from torch import Tensor

from longgen import registry
from longgen.core.windows import WINDOW_FORMS, sizes
from longgen.errors import BadInput, unknown
from longgen.protocols import CAPABILITIES, Method, Setting
from longgen.types import Attend, CrossHook, ModelInfo, Patch, Site, Slot, View

EXCLUSIVE: tuple[Slot, ...] = ("noise", "loop", "wrapper", "route", "logits")
PATCHES: tuple[Slot, ...] = ("rope", "route", "logits", "kv", "cross")


@dataclass(frozen=True)
class Part:
    """A method and the slots that it fills in this composition."""

    method: Method
    slots: tuple[Slot, ...]

    @property
    def name(self) -> str:
        return self.method.info.name

    def __str__(self) -> str:
        whole = set(self.slots) == set(self.method.info.slots)
        return self.name if whole else ",".join(f"{self.name}.{s}" for s in self.slots)


@dataclass(frozen=True)
class Composition:
    """Methods by slot. `loop` is always there; the rest may be empty."""

    parts: tuple[Part, ...]
    loop: Method
    noise: Method | None = None
    wrapper: Method | None = None
    stabilisers: tuple[Method, ...] = field(default=())
    given: Mapping[str, Any] = field(default_factory=dict)  # the settings that it was made with, as `--set` takes them

    @property
    def methods(self) -> tuple[Method, ...]:
        return tuple(part.method for part in self.parts)

    @property
    def chain(self) -> bool:
        """True when windows must run one after another."""
        return any(m.info.window_order == "chain" for m in self.methods)

    def __str__(self) -> str:
        return ",".join(map(str, self.parts))

    def fit(self, info: ModelInfo) -> Composition:
        """The same composition with every method fitted to the model."""
        fitted = {id(m): m.fit(info) for m in self.methods}
        return Composition(
            tuple(replace(part, method=fitted[id(part.method)]) for part in self.parts),
            fitted.get(id(self.loop), self.loop),
            fitted.get(id(self.noise)),
            fitted.get(id(self.wrapper)),
            tuple(fitted[id(m)] for m in self.stabilisers),
            self.given,
        )

    def patch(self, view: View) -> Patch:
        """All changes inside the model, combined into one."""
        return combine([restrict(part.method.patch(view), part.slots) for part in self.parts])


def spelled_out(text: str, settings: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    """Names of `registry.COMPOSITIONS` in `--method` as the methods that they stand for; settings given win.

    >>> spelled_out("riflex,wide", {"windows.window_scale": 2})
    ('riflex,ultravico,freenoise.noise,windows', {'windows.window_scale': 2})
    """
    methods, own = [], dict[str, Any]()
    for item in text.split(","):
        names, theirs = registry.COMPOSITIONS.get(item.strip(), (item, {}))
        methods.append(names)
        own |= theirs
    given, forms = dict(settings or {}), {f"windows.{form}" for form in WINDOW_FORMS}
    if forms & given.keys():  # another way to say how long a window is
        own = {key: value for key, value in own.items() if key not in forms}
    return ",".join(methods), own | given


def parse(text: str) -> list[tuple[str, Slot | None]]:
    """`riflex,freenoise.noise` → [("riflex", None), ("freenoise", "noise")]."""
    names: list[tuple[str, Slot | None]] = []
    for item in text.split(","):
        name, _, slot = item.strip().partition(".")
        if not name:
            raise BadInput(f"--method takes names separated by commas, for example riflex,freenoise (got {text!r})")
        info = registry.method(name).info
        if slot and slot not in info.slots:
            raise unknown(f"part of {name}", slot, info.slots)
        names.append((name, slot or None))  # type: ignore[arg-type]
    return names


def compose(text: str, settings: dict[str, Any] | None = None) -> Composition:
    """The composition for `--method` and `--set`; BadInput names both methods of a conflict."""
    text, settings = spelled_out(text, settings)
    wanted: dict[str, list[Slot]] = {}
    for name, slot in parse(text):
        slots = wanted.setdefault(name, [])
        slots.extend([slot] if slot else [s for s in registry.method(name).info.slots if s not in slots])
    _check_names(settings, wanted)
    parts = [Part(_build(name, settings), tuple(slots)) for name, slots in wanted.items()]
    _check_conflicts(parts)
    if not any("loop" in part.slots for part in parts):
        parts.append(Part(registry.method("direct")(), ("loop",)))
    owner = {slot: part.method for part in parts for slot in part.slots if slot in EXCLUSIVE}
    return Composition(
        tuple(parts),
        owner["loop"],
        owner.get("noise"),
        owner.get("wrapper"),
        tuple(part.method for part in parts if "stabilise" in part.slots),
        settings,
    )


def _check_names(settings: dict[str, Any], wanted: dict[str, list[Slot]]) -> None:
    for key in settings:
        name = key.partition(".")[0]
        if name not in wanted:
            raise BadInput(f"--set {key}: method {name!r} is not among --method {','.join(wanted)}")


def _build(name: str, settings: dict[str, Any]) -> Method:
    kind = registry.method(name)
    own = {k.partition(".")[2]: v for k, v in settings.items() if k.partition(".")[0] == name}
    for key, value in own.items():
        if key not in kind.info.settings:
            raise unknown(f"setting of {name}", key, kind.info.settings)
        own[key] = _legal(f"{name}.{key}", value, kind.info.settings[key])
    method: Method = kind(**own)
    return method


def _legal(key: str, value: Any, setting: Setting) -> Any:
    """The value if it is legal for the setting, ints widened to floats; else BadInput with the legal range."""
    if setting.choices:
        if value not in setting.choices:
            raise unknown(f"value of {key}", str(value), setting.choices)
        return value
    if value is None and setting.default is not None:
        raise BadInput(f"--set {key} needs a value; leave it out for the default {setting.default!r}")
    if isinstance(setting.default, bool) and not isinstance(value, bool):
        raise BadInput(f"--set {key} must be true or false (got {value!r})")
    if value is None or isinstance(setting.default, str) or setting.low is setting.high is None:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"--set {key} must be a number (got {value!r})")
    if not math.isfinite(value):
        raise BadInput(f"--set {key} must be a finite number (got {value!r})")
    low = float("-inf") if setting.low is None else setting.low
    high = float("inf") if setting.high is None else setting.high
    if not low <= value <= high:  # also false for NaN
        raise BadInput(
            f"--set {key} must be from {low:g} to {high:g} {setting.unit} (got {value!r})".replace(" 1 (", " (")
        )
    whole = isinstance(setting.default, int) or setting.unit in ("latents", "frames", "levels")
    if whole and value != int(value):
        raise BadInput(f"--set {key} must be a whole number of {setting.unit} (got {value!r})")
    return float(value) if isinstance(setting.default, float) else value


def _check_conflicts(parts: Sequence[Part]) -> None:
    for slot in EXCLUSIVE:
        owners = [part.name for part in parts if slot in part.slots]
        if len(owners) > 1:
            raise BadInput(
                f"methods {owners[0]!r} and {owners[1]!r} both own the slot {slot!r}; keep one, "
                f"or take parts such as {owners[0]}.{_other_slot(parts, owners[0], slot)}"
            )
    names = {part.name for part in parts}
    for part in parts:
        for other, reason in part.method.info.conflicts.items():
            if other in names:
                raise BadInput(f"methods {part.name!r} and {other!r} cannot run together: {reason}")


def _other_slot(parts: Sequence[Part], name: str, slot: Slot) -> str:
    info = next(part.method.info for part in parts if part.name == name)
    return next((s for s in info.slots if s != slot), slot)


def check(composition: Composition, frames: int, info: ModelInfo) -> None:
    """Raise BadInput where the model lacks what a method needs, or settings do not fit length and model."""
    for part in composition.parts:
        for need in sorted(part.method.info.needs):
            if need not in info.capabilities:
                reason = info.refusals.get(need, f"{info.variant} lacks: {CAPABILITIES[need]}")
                raise BadInput(f"method {part.name!r} cannot run on {info.variant}: {reason}")
        part.method.check(frames, info)
        _check_window(part, frames, info)
    view = composition.loop.view(frames, info)
    limit = info.rope.limit
    if limit is not None and view > limit:
        raise BadInput(
            f"{view} latents in one call are beyond the model's table of {limit} positions; "
            "use a method with windows (windows, freenoise.noise,windows), fifo or extend"
        )


def _check_window(part: Part, frames: int, info: ModelInfo) -> None:
    """Refuse a window that was asked for and is longer than the video; the default one may be."""
    settings = part.method.settings
    for name in ("window", "window_latents"):
        asked = settings.get(name) if "loop" in part.slots else None
        if asked is not None and sizes({name: asked}, info).window > max(frames, info.latents_for(1)):
            raise BadInput(
                f"--set {part.name}.{name} {asked} is longer than the video of {frames} latents "
                f"({(frames - info.lead_pad - 1) * info.stride + 1} frames); make it shorter, or leave it out"
            )


# ------------------------------------------------------------------------------------------------- combining patches


def restrict(patch: Patch, slots: Sequence[Slot]) -> Patch:
    """The part of a patch that belongs to the given slots."""
    return Patch(
        freqs=patch.freqs if "rope" in slots else None,
        positions=patch.positions if "rope" in slots else None,
        attention=patch.attention if "route" in slots else None,
        logits=patch.logits if "logits" in slots else None,
        kv=patch.kv if "kv" in slots else None,
        cross=patch.cross if "cross" in slots else None,
    )


def combine(patches: Sequence[Patch]) -> Patch:
    """One patch that does all: RoPE edits and key/value sharing chain in the order given."""
    return Patch(
        freqs=_chain([p.freqs for p in patches if p.freqs]),
        positions=_chain([p.positions for p in patches if p.positions]),
        attention=_only([p.attention for p in patches if p.attention]),
        logits=_only([p.logits for p in patches if p.logits]),
        kv=_chain_kv([p.kv for p in patches if p.kv]),
        cross=_nest([p.cross for p in patches if p.cross]),
    )


def _chain(edits: list[Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor] | None:
    return (lambda value: reduce(lambda v, edit: edit(v), edits, value)) if edits else None


def _chain_kv(edits: list[Any]) -> Any:
    if not edits:
        return None

    def shared(site: Site, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        for edit in edits:
            k, v = edit(site, k, v)
        return k, v

    return shared


def _only(hooks: list[Any]) -> Any:
    return hooks[0] if hooks else None


def _nest(hooks: list[CrossHook]) -> CrossHook | None:
    """Cross-attention hooks, each calling the one before as its `attend`."""
    if not hooks:
        return None

    def outer(inner: CrossHook, hook: CrossHook) -> CrossHook:
        def nested(site: Site, q: Tensor, k: Tensor, v: Tensor, attend: Attend) -> tuple[Tensor, Tensor]:
            return hook(site, q, k, v, lambda q, k, v, *plan, **scale: inner(site, q, k, v, attend))

        return nested

    return reduce(outer, hooks[1:], hooks[0])
