"""Streaming decode: the VAE's own decode, in constant memory."""

import pytest
import torch
from models import tiny
from models.memory import PeakMemory

from longgen.models.wan.vae import denormalise, rechunk, stream_decode

VAES = {version: tiny.vae(version) for version in ("2.1", "2.2")}


def latents(frames):
    return torch.randn(1, 4, frames, 2, 3, generator=torch.Generator().manual_seed(frames))


def pieces(z, sizes):
    """z cut into pieces of the given sizes, over and over."""
    start = 0
    while start < z.shape[2]:
        for size in sizes:
            if start < z.shape[2]:
                yield z[:, :, start : start + size]
            start += size


@torch.no_grad()
def whole(vae, z):
    video = vae.decode(denormalise(vae, z), return_dict=False)[0]
    return (video[0] / 2 + 0.5).clamp(0, 1).transpose(0, 1)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("frames", [1, 2, 6, 11])
@pytest.mark.parametrize("version", VAES)
def test_equals_the_vaes_own_decode(version, frames, chunk):
    vae, z = VAES[version], latents(frames)
    want = whole(vae, z)
    for sizes in ([frames], [1], [3, 1, 4]):
        got = torch.cat(list(stream_decode(vae, pieces(z, sizes), chunk)))
        assert got.shape == want.shape == (4 * frames - 3, 3, *want.shape[2:])
        assert (got - want).abs().max() < 1e-5


def test_frames_come_while_latents_come():
    """A stream: the first frames are there before the second latent is asked for."""
    asked = []

    def source():
        for i in range(4):
            asked.append(i)
            yield latents(4)[:, :, i : i + 1]

    stream = stream_decode(VAES["2.1"], source())
    assert len(next(stream)) == 1 and asked == [0]
    assert len(next(stream)) == 4 and asked == [0, 1]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_rechunk_keeps_order_and_gives_one_first(size):
    z = torch.arange(11).view(1, 1, 11, 1, 1)
    parts = list(rechunk(pieces(z, [2, 3]), size))
    assert parts[0].shape[2] == 1 and all(part.shape[2] == size for part in parts[1:-1])
    assert torch.equal(torch.cat(parts, 2), z)
    assert list(rechunk([], size)) == []


@pytest.mark.parametrize("version", VAES)
def test_spatial_tiles_with_time_outermost(version):
    """The VAE's own tiled decode keeps all frames of all tiles; the stream gives the same frames."""
    vae = tiny.vae(version)
    side = 4 * vae.spatial_compression_ratio  # tiles of 4×4 latents, 3 rows down and 2 columns across apart
    vae.enable_tiling(side, side, side * 3 // 4, side // 2)
    z = torch.randn(1, 4, 4, 6, 5, generator=torch.Generator().manual_seed(0))
    want = whole(vae, z)
    got = torch.cat(list(stream_decode(vae, [z], 2)))
    assert got.shape == want.shape and (got - want).abs().max() < 1e-5
    vae.use_tiling = False
    assert (whole(vae, z) - want).abs().max() > 1e-4  # tiling did take place


def peak(vae, frames, chunk):
    with PeakMemory() as memory:
        for _ in stream_decode(vae, (latents(1) for _ in range((frames - 1) // 4 + 1)), chunk):
            pass
    return memory.peak


def test_the_counter_sees_growth():
    """Guards the test below: decoding at once needs memory that grows with the length."""
    with PeakMemory() as short:
        whole(VAES["2.1"], latents(3))
    with PeakMemory() as long:
        whole(VAES["2.1"], latents(30))
    assert long.peak > 3 * short.peak


@pytest.mark.parametrize("version", VAES)
def test_memory_does_not_grow_with_length(version):
    assert peak(VAES[version], 1025, 4) <= 1.1 * peak(VAES[version], 129, 4)
