"""Weights by role. Knows how a backend is named and where its loader lives; loads nothing until asked.

A backend is named by

* ``hf:owner/name``: a Hugging Face hub id; its weights must be in the local cache unless the network is there,
* a path: a folder saved by ``save_pretrained`` or a weights file, by the role,
* ``random:<seed>``: a tiny network with random weights, for tests of shape and invariance only,
* ``call:module:name``: a callable of the user's, imported and used as it is.

There is never a fallback from one to another: what cannot be loaded is Unavailable, with the exact id and the place
where it was expected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from longgen.errors import BadInput, unknown
from longgen.registry import load

ROLES: dict[str, str] = {
    "dino": "longgen.metrics.backends.vision:load_dino",
    "clip_b32": "longgen.metrics.backends.vision:load_clip_b32",
    "clip_l14": "longgen.metrics.backends.vision:load_clip_l14",
    "laion": "longgen.metrics.backends.laion:load_laion",
    "raft": "longgen.metrics.backends.raft:load_raft",
    "musiq": "longgen.metrics.backends.musiq:load_musiq",
    "video_text": "longgen.metrics.backends.video_text:load_video_text",
    "detector": "longgen.metrics.backends.detect:load_detector",
    "captioner": "longgen.metrics.backends.detect:load_captioner",
    "action": "longgen.metrics.backends.detect:load_action",
    "dinov2": "longgen.metrics.backends.vision:load_dinov2",
    "i3d": "longgen.metrics.backends.i3d:load_i3d",
    "vlm": "longgen.metrics.backends.vlm:load_vlm",
    "dense_captioner": "longgen.metrics.backends.outside:only_callable",
    "interpolator": "longgen.metrics.backends.outside:only_callable",
}
"""Role → loader(spec, device) → callable with attributes `id` and `comparable` (with VBench's published numbers)."""


def resolve(role: str, spec: str, device: str = "cpu") -> Any:
    """The backend of a role. The device is the caller's choice; nothing here looks for one.

    Raises:
        BadInput: unknown role, or a `call:` that names nothing.
        Unavailable: weights or libraries that are not here.
    """
    if role not in ROLES:
        raise unknown("backend role", role, ROLES)
    if spec.startswith("call:"):
        return _call(spec)
    loader: Callable[[str, str], Any] = load(ROLES[role])
    return loader(spec, device)


def _call(spec: str) -> Any:
    target = spec.removeprefix("call:")
    if ":" not in target:
        raise BadInput(f"backend {spec}: must be call:module:name")
    try:
        made = load(target)
    except (ImportError, AttributeError) as error:
        raise BadInput(f"backend {spec}: {error}") from error
    if not callable(made):
        raise BadInput(f"backend {spec}: {target} is not callable")
    return made


def read_specs(texts: list[str]) -> dict[str, str]:
    """`--backend ROLE=SPEC` options as a mapping."""
    specs = {}
    for text in texts:
        role, equals, spec = text.partition("=")
        if not equals or not spec:
            raise BadInput(f"--backend {text}: must be ROLE=SPEC, for example dino=hf:facebook/dino-vitb16")
        if role not in ROLES:
            raise unknown("backend role", role, ROLES)
        specs[role] = spec
    return specs
