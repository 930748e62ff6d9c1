"""`longgen eval` end to end: collecting, caching, skipping, processes, comparison, files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clips import panning, save, texture

from longgen.__main__ import main
from longgen.metrics import METRICS, metric
from longgen.metrics import evaluate as ev
from longgen.metrics.records import Journal, from_line, read, to_line
from longgen.metrics.vbench_files import read_results
from longgen.metrics.videos import boundaries_of, collect, shots_of

FREE = "temporal_flickering,motion_smoothness_classical,dynamic_degree_classical"


def eval_json(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, dict]:
    """Run the command line; exit code and parsed output."""
    with pytest.raises(SystemExit) as caught:
        main(["eval", *map(str, args), "--json"])
    return int(caught.value.code or 0), json.loads(capsys.readouterr().out)


def error_of(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        main(["eval", *map(str, args)])
    return int(caught.value.code or 0), capsys.readouterr().err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good videos, one with junk inside, one too short, one sidecar."""
    place = tmp_path / "videos"
    place.mkdir()
    for i in range(3):
        save(place / f"v{i}.mp4", panning(9 + i, 32, 48, i + 1, seed=i))
    (place / "junk.mp4").write_bytes(b"junk" * 100)
    save(place / "one.mp4", texture(32, 48)[None])
    side = {"prompt": "a cat", "windows": {"frames": [[0, 6], [4, 10]]}}
    (place / "v1.json").write_text(json.dumps(side | {"timeline": {"shots": [{"start": 0, "prompt": "a cat"}]}}))
    return place


def test_json_shape_and_skips(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = eval_json(capsys, folder, "--metrics", FREE)
    assert code == 0
    videos = {Path(v["path"]).name: v for v in out["videos"]}
    assert list(videos) == ["junk.mp4", "one.mp4", "v0.mp4", "v1.mp4", "v2.mp4"]
    assert "not a readable video" in videos["junk.mp4"]["skipped"]
    assert videos["junk.mp4"]["scores"] == {}
    assert videos["one.mp4"]["scores"] == {}
    assert set(videos["one.mp4"]["reasons"]) == set(FREE.split(","))
    good = [videos[f"v{i}.mp4"] for i in range(3)]
    for name in FREE.split(","):
        values = [v["scores"][name] for v in good]
        assert out["summary"][name]["value"] == pytest.approx(np.mean(values), abs=1e-12)
        assert out["summary"][name]["n"] == 3
    assert all(v["skipped"] is None for v in good)


def test_results_are_cached_by_content(folder: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    out = tmp_path / "out"
    first = eval_json(capsys, folder, "--metrics", FREE, "-o", out)
    assert {p.name for p in out.iterdir()} == {
        "results.jsonl", "summary.json", "report.html", "longgen_eval_results.json",
    }  # fmt: skip
    scored: list[str] = []
    real = ev.score
    monkeypatch.setattr(ev, "score", lambda video, metrics: scored.append(video.path.name) or real(video, metrics))
    assert eval_json(capsys, folder, "--metrics", FREE, "-o", out) == first
    assert scored == [], "nothing is computed twice"
    (folder / "v1.mp4").rename(folder / "renamed.mp4")
    save(folder / "v2.mp4", panning(9, 32, 48, 4))
    _, again = eval_json(capsys, folder, "--metrics", FREE, "-o", out)
    assert scored == ["v2.mp4"], "a renamed file is known by its content, a changed one is not"
    assert sum(Path(v["path"]).name == "renamed.mp4" for v in again["videos"]) == 1
    monkeypatch.setattr(metric("temporal_flickering"), "info", _newer("temporal_flickering"))
    eval_json(capsys, folder / "v0.mp4", "--metrics", "temporal_flickering", "-o", out)
    assert scored == ["v2.mp4", "v0.mp4"], "a new version of a metric is a new key"


def _newer(name: str):
    from dataclasses import replace

    info = metric(name).info
    return replace(info, version=info.version + 1)


def test_interrupted_runs_resume(folder: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    whole = eval_json(capsys, folder, "--metrics", FREE)
    out, real, calls = tmp_path / "out", ev.score, []

    def dies(video, metrics):
        calls.append(video.path.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(video, metrics)

    monkeypatch.setattr(ev, "score", dies)
    with pytest.raises(SystemExit) as caught:
        main(["eval", str(folder), "--metrics", FREE, "-o", str(out)])
    assert caught.value.code == 130
    capsys.readouterr()
    with (out / "results.jsonl").open("a") as journal:
        journal.write('{"video": "cut off')  # a crash in the middle of a line
    monkeypatch.setattr(ev, "score", lambda v, m: calls.append(v.path.name) or real(v, m))
    assert eval_json(capsys, folder, "--metrics", FREE, "-o", out) == whole
    assert len(calls) == 3 + 2, "two videos were done, the third and fourth remained"


def test_a_cut_line_never_spoils_later_ones(folder: Path, tmp_path: Path, capsys) -> None:
    """Crash in a line, resume, crash again: every whole line still counts."""
    out = tmp_path / "out"
    eval_json(capsys, folder / "v0.mp4", "--metrics", FREE, "-o", out)
    lines = (out / "results.jsonl").read_text()
    (out / "results.jsonl").write_text(lines + lines[:40])
    journal = Journal(out / "results.jsonl")
    (record,) = [r for r in journal.records.values() if r.metric == "temporal_flickering"]
    journal.append([record])
    assert len(Journal(out / "results.jsonl").records) == 3


def test_two_processes_equal_one(folder: Path, tmp_path: Path, capsys) -> None:
    code, one = eval_json(capsys, folder, "--metrics", FREE, "-o", tmp_path / "one")
    env = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29613", "OMP_NUM_THREADS": "1"}
    env |= {"LOCAL_WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    command = [
        sys.executable,
        "-m",
        "longgen",
        "eval",
        str(folder),
        "--metrics",
        FREE,
        "-o",
        str(tmp_path / "two"),
        "--json",
    ]
    procs = [
        subprocess.Popen(command, env=env | {"RANK": str(r), "LOCAL_RANK": str(r)}, stdout=subprocess.PIPE, text=True)
        for r in range(2)
    ]
    outs = [p.communicate(timeout=200)[0] for p in procs]
    assert [p.returncode for p in procs] == [code, 0]
    assert json.loads(outs[0]) == one
    assert outs[1] == ""
    lines = [(tmp_path / n / "results.jsonl").read_text() for n in ("one", "two")]
    assert lines[0] == lines[1], "the same bytes"
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == sorted(p.name for p in (tmp_path / "one").iterdir())


def test_order_and_threads_do_not_matter(folder: Path, capsys) -> None:
    import cv2

    files = [folder / f"v{i}.mp4" for i in range(3)]
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        one = eval_json(capsys, *files, "--metrics", FREE)
        cv2.setNumThreads(4)
        assert eval_json(capsys, *files[::-1], "--metrics", FREE) == one
    finally:
        cv2.setNumThreads(before)
    alone = [eval_json(capsys, f, "--metrics", FREE)[1]["videos"][0]["scores"] for f in files]
    assert alone == [v["scores"] for v in one[1]["videos"]], "batch-mates do not matter"


def test_compare_pairs_by_name(tmp_path: Path, capsys) -> None:
    """B is A with every second frame darkened: flicker must be worse, with the mean of the paired differences."""
    for side in "AB":
        (tmp_path / side).mkdir()
        for i in range(6):
            clip = panning(8, 32, 48, 1 + i % 2, seed=i)
            if side == "B":
                clip[::2] = clip[::2] // 10 * 9
            save(tmp_path / side / f"{i}.mkv", clip)
    save(tmp_path / "A" / "lonely.mkv", panning(8, 32, 48, 1))
    code, out = eval_json(capsys, "--compare", tmp_path / "A", tmp_path / "B", "--metrics", "temporal_flickering")
    row = out["metrics"]["temporal_flickering"]
    assert (code, row["pairs"], row["better"], out["only_a"]) == (0, 6, "A", ["lonely.mkv"])
    assert row["delta"] == pytest.approx(row["b"] - row["a"], abs=1e-12)
    assert row["ci"][0] < row["delta"] < row["ci"][1] < 0
    _, swapped = eval_json(capsys, "--compare", tmp_path / "B", tmp_path / "A", "--metrics", "temporal_flickering")
    assert swapped["metrics"]["temporal_flickering"]["delta"] == pytest.approx(-row["delta"])
    assert swapped["metrics"]["temporal_flickering"]["better"] == "B"
    _, same = eval_json(capsys, "--compare", tmp_path / "A", tmp_path / "A", "--metrics", "temporal_flickering")
    assert same["metrics"]["temporal_flickering"]["better"] == "tie"
    eval_json(capsys, tmp_path / "A", "--metrics", FREE, "-o", tmp_path / "ra")
    eval_json(capsys, tmp_path / "B", "--metrics", FREE, "-o", tmp_path / "rb")
    _, stored = eval_json(capsys, "--compare", tmp_path / "ra", tmp_path / "rb")
    assert stored["metrics"]["temporal_flickering"]["delta"] == row["delta"]


def test_vbench_preset_scores_what_it_can(folder: Path, tmp_path: Path, capsys) -> None:
    code, out = eval_json(capsys, folder / "v0.mp4", "--metrics", "vbench", "-o", tmp_path / "out")
    assert code == 1
    assert set(out["videos"][0]["scores"]) == {"temporal_flickering"}
    assert set(out["unavailable"]) == set(ev.preset("vbench")) - {"temporal_flickering"}
    for name, part in (("subject_consistency", "facebook/dino-vitb16"), ("dynamic_degree", "raft_large"),
                       ("aesthetic_quality", "clip-vit-large-patch14"), ("object_class", "grit_b"),
                       ("imaging_quality", "musiq_spaq"), ("temporal_style", "ViClip")):  # fmt: skip
        assert part in out["unavailable"][name]


def test_result_files_round_trip(folder: Path, tmp_path: Path, capsys) -> None:
    """VBench's own format: written, read back, and taken by --totals, which names what is missing."""
    _, out = eval_json(capsys, folder, "--metrics", "vbench-free", "-o", tmp_path / "out")
    file = tmp_path / "out" / "longgen_eval_results.json"
    read_back = read_results(file)
    assert list(read_back) == ["temporal_flickering"], "classical stand-ins never enter VBench's files"
    assert read_back["temporal_flickering"].aggregate == out["summary"]["temporal_flickering"]["value"]
    assert len(read_back["temporal_flickering"].videos) == 3
    code, totals = eval_json(capsys, "--totals", file)
    assert (code, totals["total"], len(totals["missing"])) == (0, None, 15)


def test_random_weights_are_marked(folder: Path, tmp_path: Path, capsys) -> None:
    args = ("--metrics", "subject_consistency", "--backend", "dino=random:1", "-o", tmp_path / "out")
    code, out = eval_json(capsys, folder / "v0.mp4", *args)
    assert code == 0
    assert 0 < out["videos"][0]["scores"]["subject_consistency"] < 1
    (record,) = read(tmp_path / "out" / "results.jsonl")
    assert (record.backend, record.comparable) == ("dino=random:1", False)
    assert not (tmp_path / "out" / "longgen_eval_results.json").exists(), "not comparable, not in VBench's file"
    eval_json(capsys, folder / "v0.mp4", *args[:3], "dino=random:2", *args[4:])
    assert len(read(tmp_path / "out" / "results.jsonl")) == 2, "other weights are another result"


def test_sets_are_compared_with_a_reference(tmp_path: Path, capsys) -> None:
    for side, darken in (("mine", 1), ("base", 1), ("dark", 4)):
        (tmp_path / side).mkdir()
        for i in range(4):
            save(tmp_path / side / f"{i}.mkv", panning(32, 32, 32, 1 + i, seed=i + 10 * (side == "mine")) // darken)
    args = (tmp_path / "mine", "--metrics", "kvd,fvd", "--backend", "i3d=random:1")
    code, near = eval_json(capsys, *args, "--reference", tmp_path / "base", "-o", tmp_path / "out")
    _, far = eval_json(capsys, *args, "--reference", tmp_path / "dark", "-o", tmp_path / "out")
    assert code == 0
    assert [len(v["scores"]) for v in near["videos"]] == [0, 0, 0, 0]
    for name in ("kvd", "fvd"):
        assert (near["summary"][name]["n"], near["summary"][name]["reference"]) == (8, 8)
        assert near["summary"][name]["value"] < far["summary"][name]["value"]
    assert len(read(tmp_path / "out" / "results.jsonl")) == 2 * 12, "features are kept once per file"
    _, alone = eval_json(capsys, *args)
    assert "--reference" in alone["summary"]["kvd"]["reason"]


def test_standard_mode_scores_a_prompts_own_dimensions(tmp_path: Path, capsys) -> None:
    prompt = "a still pond, static shot"
    for i in range(7):
        clip = np.repeat(texture(32, 48, i)[None], 9, 0) if i != 2 else panning(9, 32, 48, 4)
        save(tmp_path / f"{prompt}-{i}.mp4", clip)
    save(tmp_path / "a person is running-0.mp4", panning(9, 32, 48, 1))
    info = [{"prompt_en": prompt, "dimension": ["temporal_flickering"]},
            {"prompt_en": "a person is running", "dimension": ["human_action"]}]  # fmt: skip
    (tmp_path / "info.json").write_text(json.dumps(info))
    args = (str(tmp_path / "*.mp4"), "--metrics", "temporal_flickering", "--full-info", tmp_path / "info.json")
    _, out = eval_json(capsys, *args)
    assert out["summary"]["temporal_flickering"]["n"] == 7
    _, static = eval_json(capsys, *args, "--static-filter")
    assert static["summary"]["temporal_flickering"]["n"] == 5, "static ones alone, at most five of a prompt"
    assert static["summary"]["temporal_flickering"]["value"] > out["summary"]["temporal_flickering"]["value"]


def test_records_round_trip(folder: Path, tmp_path: Path, capsys) -> None:
    eval_json(capsys, folder, "--metrics", FREE, "-o", tmp_path / "out")
    records = read(tmp_path / "out" / "results.jsonl")
    assert [from_line(to_line(r)) for r in records] == records
    flicker = next(r for r in records if r.metric == "temporal_flickering" and r.video == "v0.mp4")
    assert (flicker.comparable, flicker.backend, flicker.frames) == (True, "none", 9)
    assert len(Journal(tmp_path / "out" / "results.jsonl").records) == len(records)


def test_sidecars_are_understood(folder: Path) -> None:
    from longgen.metrics.videos import Known, describe

    video = describe(folder / "v1.mp4", Known())
    assert (video.prompt, video.boundaries, video.shots) == ("a cat", (4, 6), ((0, "a cat"),))
    assert boundaries_of({"windows": {"frames": [[0, 33]]}}) == ()
    assert boundaries_of({}) is None
    assert shots_of({"timeline": {}}) is None
    assert collect([folder / "v1.json"]) == [folder / "v1.mp4"]
    assert collect([folder, folder / "v1.mp4", str(folder / "v*.mp4")]) == collect([folder])
    assert describe(save(folder / "a red cat-3.mp4", texture(8, 8)[None]), Known()).prompt == "a red cat"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "one of"),
        (["missing.mp4"], "no such file"),
        (["*.mp9"], "no such file"),
        (["{folder}", "--metrics", "temporal_flicker"], "did you mean 'temporal_flickering'"),
        (["{folder}", "--totals", "x.json"], "one of"),
        (["--totals", "x.json"], "not a readable UTF-8 file"),
        (["{folder}", "--backend", "dine=/x"], "did you mean 'dino'"),
        (["{folder}", "--given", "detections"], "KIND=FILE"),
        (["{folder}", "--prompts", "{folder}/bad.txt"], "has 1 prompts for 4 videos"),
        (["{folder}", "--prompts", "{folder}/bad.json"], "not JSON (line 2"),
        (["{folder}", "-o", "{folder}/bad.txt"], "takes a folder"),
        (["--compare", "{folder}", "{folder}/none"], "no such file"),
        (["{folder}/empty"], "no video there"),
    ],
)
def test_bad_input(folder: Path, args: list[str], says: str, capsys) -> None:
    (folder / "bad.txt").write_text("one prompt\n")
    (folder / "bad.json").write_text('{"a": "b",\n oops}')
    (folder / "empty").mkdir()
    (folder / "one.mp4").unlink()
    before = sorted(folder.rglob("*"))
    code, err = error_of(capsys, *[a.format(folder=folder) for a in args])
    assert code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(folder.rglob("*")) == before


def test_presets_and_names() -> None:
    assert ev.names("vbench-free,temporal-flickering") == ev.preset("vbench-free")
    assert len(ev.preset("vbench")) == 16
    assert set(ev.preset("all")) == set(METRICS)
    free = ev.preset("vbench-free") + ev.preset("long")
    assert all(not metric(n).info.needs & {"weights", "given", "reference"} for n in free)
    assert "temporal_flickering" in free
    assert not any(n.endswith("_long") for n in free)
    for name in METRICS:
        info = metric(name).info
        assert info.id == name
        assert info.title
        assert info.low < info.high
        assert not (name.endswith("_classical") and info.comparable)


def test_listing_needs_no_torch() -> None:
    code = (
        "import sys; from longgen.metrics import METRICS, metric; [metric(m) for m in METRICS]; "
        "import longgen.cli.eval, longgen.metrics.evaluate; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
