"""Files that a run is conditioned on: whether they suffice, which frames of them it takes, and what identifies them.

Knows requests, models' facts and files. Loads no weights; reads no frame before a run needs it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longgen.config import Request
from longgen.errors import BadInput
from longgen.media.condition import Fitted, image_size, read_image, whole_range
from longgen.media.read import VideoInfo, open_video
from longgen.protocols import Method
from longgen.types import ModelInfo, Timeline

FIELDS = ("image", "control", "continue_video")


@dataclass(frozen=True)
class Source:
    """A video that the run continues. It begins the output; its end is what the first chunk continues.

    Args:
        frames: S, all of its pixel frames.
        tail: pixel frames at its end that are encoded.
        known: latents that these become.
    """

    path: Path
    frames: int
    tail: int
    known: int

    @property
    def start(self) -> int:
        """Frame of the output that the run's own first frame is: the first of the tail."""
        return self.frames - self.tail

    def pictures(self, size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
        """All frames at the size of the run, uint8 [1, H, W, 3] each."""
        return (frame.numpy()[None] for frame in Fitted(self.path, size, 0, self.frames))

    def end(self, size: tuple[int, int]) -> Tensor:
        """The tail at the size of the run, uint8 [tail, H, W, 3]."""
        return torch.stack(list(Fitted(self.path, size, self.start, self.tail)))


def look(request: Request) -> VideoInfo | None:
    """Size, rate and length of the video to continue; None without one."""
    if request.continue_video is None:
        return None
    if request.image is not None:
        raise BadInput("give --image or --continue, not both: each says how the video begins")
    return open_video(request.continue_video).info


def continued(request: Request, video: VideoInfo, loop: Method, info: ModelInfo, frames: int) -> Source:
    """The source of a run whose output has `frames` frames.

    Raises:
        BadInput: a loop that cannot continue, a video too short to continue, or nothing left to make.
    """
    path, known = Path(str(request.continue_video)), loop.prefix(info)
    if not known:
        raise BadInput(f"--continue needs the method extend, whose chunks continue what is there; not {loop.info.name}")
    if frames <= video.frames:
        raise BadInput(
            f"--continue: {path} has {video.frames} frames and the whole video would have {frames}; "
            f"ask for more, as in --num-frames {2 * video.frames}"
        )
    tail = (known - info.lead_pad - 1) * info.stride + 1
    if not 0 < tail <= video.frames:
        raise BadInput(
            f"--continue: {path} has {video.frames} frames; {tail} of them ({known} latents) would be carried over: "
            "give a longer video or a smaller extend.overlap_latents"
        )
    return Source(path, video.frames, tail, known)


def check_image(request: Request, info: ModelInfo, size: tuple[int, int]) -> list[str]:
    """How the first frame is fitted to (height, width), as a note.

    Raises:
        BadInput: an image that the model cannot take or that cannot be read, or none for a model that needs one.
    """
    if request.image is None:
        if info.needs_image and request.continue_video is None:
            raise BadInput(f"{info.variant} makes videos from an image; give one: --image FILE")
        return []
    if "image" not in info.capabilities:
        raise BadInput(f"--image: {info.variant} takes none: {info.refusals.get('image', 'the checkpoint lacks it')}")
    if request.cache != "none" and not info.needs_image:
        raise BadInput(
            f"--cache {request.cache} needs one level per call; {info.variant} has the image at one of its own"
        )
    height, width = image_size(Path(request.image))
    kept = min(width / size[1], height / size[0]) ** 2 * size[0] * size[1] / (width * height)
    if kept > 0.98:
        return []
    return [
        f"{request.image} is {width}x{height}: {kept:.0%} of it has the proportions of {size[1]}x{size[0]} and is used"
    ]


def check_control(request: Request, info: ModelInfo, frames: int) -> None:
    """BadInput for a control video that the model cannot take, that cannot be read, or that is too short."""
    if request.control is None:
        if request.control_levels is not None:
            raise BadInput("--control-levels belongs to --control")
        return
    if "control" not in info.capabilities:
        raise BadInput(
            f"--control: {info.variant} takes none: {info.refusals.get('control', 'the checkpoint lacks it')}"
        )
    there = len(open_video(request.control))
    if there < frames:
        raise BadInput(f"--control: {request.control} has {there} frames; this run needs {frames}")


def levels(request: Request, info: ModelInfo, frames: int) -> str | None:
    """How a control video's grey levels are taken: "whole" over a video longer than the native length, else "file"."""
    if request.control is None:
        return None
    return request.control_levels or ("whole" if frames > info.native_frames else "file")


def media(plan: Any) -> dict[str, Any]:
    """`image` and `control` of a plan's conditions, at the size of its video."""
    request: Request = plan.request
    start = plan.source.start if plan.source else 0
    image = None if request.image is None else read_image(Path(request.image), plan.size)
    if plan.source and plan.info.needs_image:  # the run's own first frame is one that is there already
        (image,) = Fitted(plan.source.path, plan.size, start, 1)
    if request.control is None:
        return {"image": image, "control": None}
    path, grid = Path(request.control), plan.grid
    span = whole_range(path) if plan.control_levels == "whole" else None
    return {"image": image, "control": Fitted(path, plan.size, start, grid.pixel_frames, span)}


def digests(request: Request) -> dict[str, str]:
    """`sha256:…` of every file that conditions the run; missing ones are reported by whoever reads them."""
    found = {}
    for name in FIELDS:
        given = getattr(request, name)
        if given is not None and Path(given).exists():
            found[name] = f"sha256:{_digest(Path(given))}"
    return found


def _digest(path: Path) -> str:
    """Of a file, or over those of all images of a folder in the order of their names."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    whole = hashlib.sha256()
    for part in sorted(path.iterdir()):
        if part.is_file():
            with part.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def moved(timeline: Timeline, by: int) -> Timeline:
    """The timeline `by` frames later; the first shot begins at 0 all the same, and shots that end before are gone."""
    shots = [replace(s, start=max(0, s.start + by), stop=s.stop + by) for s in timeline.shots if s.stop + by > 0]
    return replace(timeline, shots=(replace(shots[0], start=0), *shots[1:]))


def notes(source: Source | None, video: VideoInfo | None, size: tuple[int, int], frames: int) -> list[str]:
    """What is carried over, and whether the picture is stretched."""
    if source is None or video is None:
        return []
    told = (
        f"continues {source.path}: {source.frames} frames are kept, the last {source.tail} of them "
        f"({source.known} latents) carried over, {frames - source.frames} made"
    )
    wide = abs(video.width * size[0] - video.height * size[1]) > size[0] * size[1] // 50
    bent = f"warning: {source.path} is {video.width}x{video.height} and is stretched to {size[1]}x{size[0]}"
    return [told, bent] if wide else [told]
