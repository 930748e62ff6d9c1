"""How many latents a decoder call takes."""

from __future__ import annotations

import pytest

from longgen.runtime.latents import decode_chunk
from longgen.types import LatentGrid


@pytest.mark.parametrize(
    ("asked", "size", "chunk"),
    [(None, (16, 16), 16), (None, (60, 104), 1), (None, (32, 32), 4), (None, (2, 2), 16), (7, (60, 104), 7)],
)
def test_small_pictures_are_decoded_many_at_a_time(asked: int | None, size: tuple[int, int], chunk: int) -> None:
    assert decode_chunk(asked, LatentGrid(33, 16, *size, stride=4)) == chunk
