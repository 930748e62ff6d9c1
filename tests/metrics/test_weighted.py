"""Metrics that need weights: loading code on tiny random networks, formulas on injected callables and given files."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import panning, save, texture

from longgen.errors import BadInput
from longgen.metrics import metric
from longgen.metrics.backends import ROLES, read_specs, resolve
from longgen.metrics.base import Score, Unavailable

Run = Callable[..., Score]
TINY = [
    ("subject_consistency", {}),
    ("background_consistency", {}),
    ("aesthetic_quality", {}),
    ("appearance_style", {"entry": {"appearance_style": {"appearance_style": "oil painting"}}}),
    ("overall_consistency", {"prompt": "a red cat"}),
    ("temporal_style", {"prompt": "a red cat, zoom in"}),
    ("human_action", {"prompt": "a person is running"}),
    ("object_class", {"entry": {"object_class": {"object": "cat"}}}),
    ("scene", {"entry": {"scene": {"scene": {"scene": "w1 alley"}}}}),
    ("clip_sim", {}),
    ("clip_text", {"prompt": "a red cat"}),
    ("subject_consistency_long", {}),
    ("background_consistency_long", {}),
    ("aesthetic_quality_long", {}),
]


def tiny(name: str, seed: int = 1) -> dict[str, Any]:
    return {role: resolve(role, f"random:{seed}") for role in metric(name).backends}


@pytest.mark.parametrize(("name", "known"), TINY, ids=[n for n, _ in TINY])
def test_tiny_networks_score_in_range_and_repeat(run: Run, name: str, known: dict[str, Any]) -> None:
    clip = panning(20, 40, 56, 2)
    first = run(name, clip, fps=4, backends=tiny(name), **known)
    again = run(name, clip, fps=4, backends=tiny(name), **known)
    assert first == again
    assert first.value is not None, first.reason
    info = metric(name).info
    assert info.low <= first.value <= info.high


@pytest.mark.parametrize("name", ["subject_consistency", "background_consistency", "clip_sim"])
def test_identical_frames_are_perfectly_consistent(run: Run, name: str) -> None:
    still = np.repeat(texture(40, 56)[None], 6, 0)
    assert run(name, still, backends=tiny(name)).value == pytest.approx(1, abs=1e-6)


def mean_colour(frame: np.ndarray) -> np.ndarray:
    """An embedder whose answer is known: the mean colour, as it is."""
    return frame.mean((0, 1)).astype(np.float32)


@pytest.mark.parametrize("name", ["subject_consistency", "background_consistency"])
def test_consistency_equals_float64(run: Run, name: str) -> None:
    clip = np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3)).astype(np.uint8)
    clip[3:] = clip[3:] // [4, 2, 1]
    role = next(iter(metric(name).backends))
    result = run(name, clip, backends={role: mean_colour})
    e = clip.astype(np.float64).mean((1, 2))
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    expected = np.mean([(e[t] @ e[t - 1] + e[t] @ e[0]) / 2 for t in range(1, 7)])
    assert result.value == pytest.approx(expected, abs=1e-6)
    given = run(name, clip, given={f"embeddings.{role}": clip.mean((1, 2))})
    assert given.value == pytest.approx(expected, abs=1e-6)


def test_corpus_of_consistency_is_weighted_by_frames(run: Run) -> None:
    long, short = (
        np.repeat(texture(16, 16)[None], 11, 0),
        np.stack([texture(16, 16, 1), (texture(16, 16, 2) // [9, 1, 3]).astype(np.uint8)]),
    )
    scores = [run("subject_consistency", c, backends={"dino": mean_colour}) for c in (long, short)]
    pooled = (10 * scores[0].value + 1 * scores[1].value) / 11
    for order in (scores, scores[::-1]):
        assert metric("subject_consistency").summarise(order).value == pytest.approx(pooled, abs=1e-12)


def test_dynamic_degree_with_a_given_flow(run: Run) -> None:
    """RAFT's place takes any flow: 6 px at side 256 is not fast, 6.1 px is."""
    clip = np.repeat(texture(256, 256)[None], 4, 0)
    for speed, value in ((6.0, 0.0), (6.1, 1.0)):
        flow = np.full((256, 256, 2), (speed, 0), np.float32)
        assert run("dynamic_degree", clip, backends={"raft": lambda a, b, f=flow: f}).value == value


def test_semantic_scores_from_files(run: Run) -> None:
    """Two of four frames are right in each file; the numbers follow from the rules alone."""
    clip = np.repeat(texture(16, 16)[None], 4, 0)

    def box(label: str, x: float, score: float = 0.9) -> dict[str, Any]:
        return {"label": label, "score": score, "box": [x, 0.0, x + 10, 10.0]}

    detections = [
        [box("cat", 0), box("dog", 30)],
        [box("cat", 0), box("dog", 5, 0.4)],
        [box("dog", 0)],
        [box("cat", 0), box("dog", 5)],
    ]
    entry = {"object_class": {"object": "cat"}, "multiple_objects": {"object": "cat and dog"}}
    relation = {"object_a": "cat", "object_b": "dog", "relationship": "on the left of"}
    entry |= {"spatial_relationship": {"spatial_relationship": relation}, "color": {"color": "red"}}
    entry |= {"scene": {"scene": {"scene": "ski slope"}}}
    given = {
        "detections": detections,
        "captions": ["a ski slope", "a hill", "ski slope with snow", "slope"],
        "dense_captions": [[["a red car", "car"]], [["a blue car", "car"]], [["a car", "car"]], [["red sky", "sky"]]],
        "labels": {"running": 0.9, "walking": 0.86, "sitting": 0.2},
    }
    known = {"entry": entry, "given": given, "prompt": "a red car"}
    assert run("object_class", clip, **known).value == 0.75
    assert run("multiple_objects", clip, **known).value == 0.5
    assert run("spatial_relationship", clip, **known).value == pytest.approx((1 + 0 + 0 + 0.3) / 4)
    assert run("scene", clip, **known).value == 0.5
    assert run("color", clip, **known).value == 0.5
    for prompt, value in (("a person is walking", 1), ("a person is sitting", 0)):
        assert run("human_action", clip, prompt=prompt, given=given).value == value
    absent = run("color", clip, **known | {"prompt": "a red bus"})
    assert absent.value is None
    assert "dropped" in str(absent.reason)


def test_sampled_metrics_look_at_the_middle_frames(run: Run) -> None:
    """A detector that reads the frame number shows which 16 frames were looked at."""
    clip = np.stack([np.full((16, 16, 3), t, np.uint8) for t in range(49)])
    seen: list[int] = []

    def detector(frame: np.ndarray, labels: list[str]) -> list[dict[str, Any]]:
        seen.append(int(frame[0, 0, 0]))
        return [{"label": labels[0], "score": 1.0, "box": [0, 0, 1, 1]}]

    entry = {"object_class": {"object": "cat"}}
    assert run("object_class", clip, backends={"detector": detector}, entry=entry).value == 1
    parts = np.linspace(0, 49, 17).astype(int)
    assert seen == [(int(a) + int(b) - 1) // 2 for a, b in pairwise(parts)]


def test_missing_knowledge_is_a_reason(run: Run) -> None:
    clip = np.repeat(texture(16, 16)[None], 4, 0)
    for name, known, says in (
        ("overall_consistency", {"backends": {"video_text": lambda f, t: 0.2}}, "prompt"),
        ("object_class", {"given": {"detections": [[]]}}, "--full-info"),
        ("human_action", {"given": {"labels": {}}, "prompt": "a cat"}, "person is"),
        ("scene", {"entry": {"scene": {"scene": {"scene": "alley"}}}}, "--given captions"),
        ("subject_consistency", {"given": {"embeddings.dino": np.ones((3, 2))}}, r"must be \[4, D\]"),
    ):
        result = run(name, clip, **known)
        assert result.value is None, name
        assert says.replace("\\", "") in str(result.reason), (name, result.reason)


def test_corrupt_features_are_refused(run: Run) -> None:
    clip = np.repeat(texture(16, 16)[None], 4, 0)
    for bad in (np.zeros(4), np.full(4, np.nan)):
        result = run("subject_consistency", clip, backends={"dino": lambda f, b=bad: b})
        assert result.value is None
        assert "corrupt" in str(result.reason)


@pytest.mark.parametrize("role", sorted(ROLES))
def test_no_backend_falls_back_silently(role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every role refuses its missing weights with a name and a way out."""
    monkeypatch.setenv("LONGGEN_CACHE", str(tmp_path))
    for spec in ("hf:nobody/nothing", "no_such_file.pth"):
        with pytest.raises(Unavailable) as caught:
            resolve(role, spec)
        assert (
            "nothing" in str(caught.value) or "no_such_file" in str(caught.value) or "pip install" in str(caught.value)
        )


def test_offline_error_names_id_place_and_command() -> None:
    with pytest.raises(Unavailable) as caught:
        resolve("dino", "hf:facebook/dino-vitb16")
    text = str(caught.value)
    for part in ("hf:facebook/dino-vitb16", "models--facebook--dino-vitb16", "hf download facebook/dino-vitb16"):
        assert part in text


def test_saved_networks_load_from_folders(tmp_path: Path) -> None:
    """The true loading path: a folder in transformers' own form gives the features of the network that was saved."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    frame = texture(40, 56)
    dino, clip = resolve("dino", "random:3"), resolve("clip_b32", "random:3")
    dino.model.save_pretrained(tmp_path / "dino")
    clip.model.save_pretrained(tmp_path / "clip")
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "a": 5, "red": 6, "cat": 7, "[UNK]": 98}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(
        tmp_path / "clip"
    )
    loaded = resolve("dino", str(tmp_path / "dino"))
    dino.side = 224  # the toy looks at less, to be quick
    assert np.array_equal(loaded(frame), dino(frame))
    assert not loaded.comparable
    other = resolve("clip_b32", str(tmp_path / "clip"))
    assert np.array_equal(other(frame), clip(frame))
    assert other.text("a red cat").shape == (16,)
    assert not np.allclose(other.text("a red cat"), other.text("red a cat"))


def test_laion_head_from_a_file(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    weight, bias = torch.arange(768.0)[None] / 768, torch.tensor([0.5])
    torch.save({"weight": weight, "bias": bias}, tmp_path / "sa_0_4_vit_l_14_linear.pth")
    save_file({"weight": weight, "bias": bias}, tmp_path / "head.safetensors")
    e = np.full(768, 768**-0.5, np.float32)
    expected = float(weight.double().sum() * 768**-0.5 + 0.5)
    for name, comparable in (("sa_0_4_vit_l_14_linear.pth", True), ("head.safetensors", False)):
        head = resolve("laion", str(tmp_path / name))
        assert head(e) == pytest.approx(expected, rel=1e-6)
        assert head.comparable == comparable
    with pytest.raises(BadInput, match="768"):
        head(e[:16])


def test_preprocessing_follows_torchvision() -> None:
    """Against torch's own interpolation spelt out, at VBench's sizes: short side 224, no antialias, rounded levels."""
    import torch
    from torch.nn import functional as F

    from longgen.metrics.backends.pixels import CLIP, short_side, short_side_crop

    assert short_side(480, 832, 224) == (224, 388)
    assert short_side(832, 480, 224) == (388, 224)
    frame = texture(300, 400)
    x = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float()
    big = F.interpolate(x, size=(224, 298), mode="bicubic", align_corners=False).clamp(0, 255).round()
    crop = big[0, :, :, 37 : 37 + 224] / 255
    mean, std = (torch.tensor(s).view(3, 1, 1) for s in CLIP)
    assert torch.allclose(short_side_crop(frame, 224, CLIP), (crop - mean) / std, atol=1e-6)


def test_specs_of_backends() -> None:
    assert read_specs(["dino=/x", "i3d=random:1"]) == {"dino": "/x", "i3d": "random:1"}
    for text, says in (("dino", "ROLE=SPEC"), ("dine=/x", "did you mean 'dino'")):
        with pytest.raises(BadInput, match=says):
            read_specs([text])
    assert resolve("interpolator", "call:clips:texture") is texture
    with pytest.raises(BadInput, match="nothing"):
        resolve("interpolator", "call:clips:nothing")


def test_long_form_is_the_mean_over_clips(run: Run, tmp_path: Path) -> None:
    """Every clip scored alone as a file gives the values inside the long form; the last clip ends with the video."""
    clip = np.random.default_rng(0).integers(0, 256, (21, 16, 16, 3)).astype(np.uint8)
    long = run("temporal_flickering_long", clip, fps=4)
    spans = [(0, 8), (8, 16), (13, 21)]
    assert long.extras["clips"] == [list(s) for s in spans]
    alone = [run("temporal_flickering", clip[a:b], fps=4).value for a, b in spans]
    assert long.items == pytest.approx(alone, abs=1e-12)
    assert long.value == pytest.approx(np.mean(alone), abs=1e-12)
    save(tmp_path / "x.mkv", clip)


def test_slow_fast_fusion(run: Run) -> None:
    """Slow inside clips, fast over first frames, ½ + ½ of the published table."""
    from longgen.metrics.vbench_long import mapped

    for kind, values in (
        ("subject", {0.3: 0.886, 0.5: 0.933, 0.7: 0.967, 0.9: 0.989}),
        ("background", {0.05: 0.900, 0.3: 0.934, 0.5: 0.946, 0.7: 0.958, 0.9: 0.972}),
    ):
        for c, value in values.items():
            assert mapped(kind, c) == pytest.approx(value, abs=6e-4)
        assert mapped(kind, 0.305) == pytest.approx((mapped(kind, 0.30) + mapped(kind, 0.31)) / 2)
    colours = [(200, 0, 0)] * 8 + [(0, 200, 0)] * 8 + [(200, 0, 0)] * 8
    clip = np.stack([np.full((16, 16, 3), c, np.uint8) for c in colours])
    backends = {"dino": mean_colour, "dinov2": mean_colour}
    result = run("subject_consistency_long", clip, fps=4, backends=backends)
    fast = np.mean([(0 + 0) / 2, (0 + 1) / 2])
    assert result.extras["slow"] == pytest.approx(1)
    assert result.extras["fast"] == pytest.approx(fast)
    assert result.value == pytest.approx((1 + mapped("subject", fast)) / 2)
    single = run("subject_consistency_long", clip[:8], fps=4, backends=backends)
    assert single.value == pytest.approx(1)
