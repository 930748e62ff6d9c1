"""Two processes give the bytes of one, whether they share one video's windows or a list of videos."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from models.tiny import save, wan

from longgen.__main__ import main

PROMPT = "a red circle moving left"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(wan("2.1"), tmp_path_factory.mktemp("model") / "tiny")


def two(*words: str) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launch, "--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", "-m", "longgen", *words],
        capture_output=True, text=True, env=environment, timeout=500,
    )  # fmt: skip


def one(*words: str) -> None:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    assert left.value.code in (0, None)


def test_windows_of_one_video(model: Path, tmp_path: Path) -> None:
    run = ["generate", "-p", PROMPT, "-m", str(model), "--num-frames", "41", "--method", "windows", "-o"]
    done = two(*run, str(tmp_path / "two.mkv"))
    assert done.returncode == 0, done.stderr[-3000:]
    one(*run, str(tmp_path / "one.mkv"))
    assert (tmp_path / "two.mkv").read_bytes() == (tmp_path / "one.mkv").read_bytes()
    told = (tmp_path / "two.json").read_text(), (tmp_path / "one.json").read_text()
    assert '"calls": 12' in told[0] and '"calls": 12' in told[1], "the calls of the run, not of one process"


@pytest.mark.slow
def test_a_list_of_videos(model: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "p.txt"
    prompts.write_text(f"{PROMPT}\na blue star\na green square\n")
    run = ["generate", "--prompt-file", str(prompts), "-m", str(model), "--num-frames", "9", "--codec", "ffv1", "-o"]
    done = two(*run, f"{tmp_path}/two/")
    assert done.returncode == 0, done.stderr[-3000:]
    one(*run, f"{tmp_path}/one/")
    names = sorted(p.name for p in (tmp_path / "one").glob("*.mkv"))
    assert names == sorted(p.name for p in (tmp_path / "two").glob("*.mkv")) == ["0000.mkv", "0001.mkv", "0002.mkv"]
    for name in names:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


@pytest.mark.slow
def test_a_process_that_dies_ends_the_job(model: Path, tmp_path: Path) -> None:
    program = tmp_path / "dies.py"
    program.write_text(
        "import os, sys\nfrom longgen.runtime import sample\nfrom longgen.__main__ import main\n"
        "real = sample.Sampler._denoise\n"
        "def denoise(self, calls):\n"
        "    if os.environ['RANK'] == '1' and calls[0].level.step > 0:\n        os._exit(9)\n"
        "    return real(self, calls)\n"
        "sample.Sampler._denoise = denoise\nmain()\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    words = ["generate", "-p", PROMPT, "-m", str(model), "--num-frames", "41", "--method", "windows"]
    done = subprocess.run(
        [*launch, "--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", str(program), *words, "-o",
         str(tmp_path / "x.mkv")],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=500,
    )  # fmt: skip
    assert done.returncode != 0 and "exitcode" in done.stderr
    assert not (tmp_path / "x.mkv").exists()
