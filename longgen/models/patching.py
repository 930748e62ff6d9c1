"""What attention processors of all families share: the stage that tells them where they are, and how hooks are applied.

Blocks hand their processors no call geometry, so it travels beside the forward in a `Stage`. Hooks see single videos,
[1, S, N, D], whatever the batch. Knows tensors and patches; does not know diffusers' classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from longgen.attention import merge
from longgen.models import opaque
from longgen.models.parallel import Share
from longgen.models.texts import TextPlan
from longgen.types import Attend, Dense, Patch, Rotate, Site

Part = tuple[Tensor, Tensor]


@dataclass
class Stage:
    """The forward in progress: one site (of layer 0) and one text plan per batch row. Filled by the denoiser."""

    attend: Attend
    share: Share | None = None  # of a pass that several processes run together
    sites: tuple[Site, ...] = ()
    texts: tuple[TextPlan, ...] = ()
    plain: bool = True  # every row has one text for all its latents
    words: int = 0  # text tokens of the longest row

    def enter(self, sites: tuple[Site, ...], texts: tuple[TextPlan, ...]) -> None:
        self.sites, self.texts = sites, texts
        self.plain = all(text.plain for text in texts)
        self.words = max((text.tokens.shape[1] for text in texts), default=0)

    def inside(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Tensors [B, S/n, N, D] of this process's tokens → [B, S, N/n, D], all tokens of its heads."""
        return tensors if self.share is None else tuple(self.share.inside(x) for x in tensors)

    def outside(self, out: Tensor) -> Tensor:
        """The way back of `inside`."""
        return out if self.share is None else self.share.outside(out)

    def heads(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Of tensors [B, L, N, D] that every process has whole, its heads."""
        return tensors if self.share is None else tuple(self.share.heads(x) for x in tensors)


@dataclass
class Processor:
    """What stands in for a family's attention processor in one block.

    diffusers looks for the two class attributes when it sets backends and context parallelism.
    """

    stage: Stage
    patch: Patch
    layer: int
    number: Tensor = field(init=False)
    _attention_backend: Any = None
    _parallel_config: Any = None

    def __post_init__(self) -> None:
        self.number = opaque.register(self)

    def compute(self, *tensors: Any, **_: Any) -> Sequence[Tensor]:
        """Attention of all rows of the forward, with hooks. Runs eagerly, also between compiled operations."""
        raise NotImplementedError

    def whole(self, hidden: Tensor) -> Tensor:
        """[B, S, C] of hidden states whose latents may each be an entry of the batch, [B·T, P, C]."""
        return hidden.reshape(len(self.stage.sites), -1, hidden.shape[-1])

    def rows(self, *tensors: Tensor) -> Tensor:
        """`compute` where it makes one tensor, shaped like the first given."""
        return opaque.run(self, list(tensors), [0])[0]


def project_out(attn: Any, out: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, S, N, D] → [B, S, C] through the output projection and its dropout."""
    hidden = out.flatten(2, 3).to(dtype)
    for module in attn.to_out:
        hidden = module(hidden)
    return hidden


def video_attention(
    patch: Patch,
    site: Site,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rotate: Rotate,
    attend: Attend,
    joint: Callable[[Attend], Attend] | None = None,
) -> Tensor:
    """Attention among video tokens under a patch: kv → logits → route, or dense. q, k, v [1, S, N, D] before rotation.

    In a joint model `joint` adds the text keys to an attend. It comes after the logits hook, which thus weighs pairs of
    video tokens alone, and before the route, whose every query sees the text.
    """
    if patch.kv is not None:
        k, v = patch.kv(site, k, v)
    if patch.logits is not None:
        attend = patch.logits(site, attend)
    if joint is not None:
        attend = joint(attend)
    if patch.attention is not None:
        return patch.attention(site, q, k, v, rotate, attend)
    return attend(rotate(q), rotate(k), v, Dense())[0]


def text_attention(
    patch: Patch,
    site: Site,
    text: TextPlan,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attend: Attend,
    words: Tensor | None = None,
) -> Tensor:
    """Video queries [1, S, N, D] on the text keys [1, m·L, N, D] of m texts, each latent on those it may see.

    Args:
        words: [m·L] bool, false for padding that no query sees; None where padding counts as text.
    """
    seen_words = [None] * text.count if words is None else list(words.chunk(text.count))

    def part(at: Site, queries: Tensor, keys: Tensor, values: Tensor) -> Part:
        if patch.cross is not None:
            return patch.cross(at, queries, keys, values, attend)
        return attend(queries, keys, values, Dense())

    segments = [
        (keys, values) if mine is None else (keys[:, mine], values[:, mine])
        for keys, values, mine in zip(k.chunk(text.count, dim=1), v.chunk(text.count, dim=1), seen_words, strict=True)
    ]
    if text.plain:
        return part(site, q, *segments[0])[0]
    if text.penalties is not None:
        # A penalty is constant over a text's tokens, so it acts on that part's log-sum-exp.
        cost = text.penalties.to(q.device).repeat_interleave(site.tokens, dim=0)  # [S, m]
        parts = [part(site, q, keys, values) for keys, values in segments]
        return merge([(out, lse - cost[:, j]) for j, (out, lse) in enumerate(parts)])[0].type_as(q)
    out = torch.empty_like(q)
    index = torch.tensor(text.at(site.layer, site.layers), device=q.device)  # [T]
    by_latent, mixed = q.unflatten(1, (-1, site.tokens)), out.unflatten(1, (-1, site.tokens))  # [1, T, P, N, D]
    for j, (keys, values) in enumerate(segments):
        mine = (index == j).nonzero().flatten()
        if len(mine):
            seen = part(subset(site, mine), by_latent[:, mine].flatten(1, 2), keys, values)[0]
            mixed[:, mine] = seen.unflatten(1, (-1, site.tokens))
    return out


def subset(site: Site, index: Tensor) -> Site:
    """The site of some of its latents [n]."""
    level = site.level if site.level.uniform else site.level[index.cpu()]
    frames = tuple(site.frames[i] for i in index.tolist())
    return replace(site, level=level, frames=frames, grid=(len(frames), *site.grid[1:]))
