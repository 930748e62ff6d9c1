"""Judges: the first-token probability on a tiny random vision-language model, the scorers on given answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clips import texture

from longgen.metrics import metric
from longgen.metrics.backends import resolve
from longgen.metrics.base import Score
from longgen.metrics.judge import ASPECTS, narrlv_score, tc_score

Run = Callable[..., Score]
WORDS = ["<pad>", "<unk>", "<s>", "</s>", "<image>", "Yes", "yes", "No", "no", "is", "the", "video", "good", "?"]


@pytest.fixture(scope="module")
def tiny_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Llava with random weights, its processor and a chat template."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    folder = tmp_path_factory.mktemp("vlm")
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", pad_token="<pad>", additional_special_tokens=["<image>"]
    )
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**small, image_size=32, patch_size=16, projection_dim=32),
        text_config=LlamaConfig(**small, vocab_size=len(WORDS), num_key_value_heads=2, max_position_embeddings=512),
        image_token_index=4,
        image_seq_length=4,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlavaForConditionalGeneration(config).save_pretrained(folder)
    template = (
        "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %} <image> "
        "{% else %} {{ c['text'] }} {% endif %}{% endfor %}{% endfor %}"
    )
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer=words,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    ).save_pretrained(folder)
    return folder


def test_first_token_probability(tiny_vlm: Path) -> None:
    """Equal to the ratio from the model's own softmax, spelt out; depends on pixels and on the question."""
    import torch

    judge = resolve("vlm", str(tiny_vlm))
    frames = [texture(40, 48, i) for i in range(3)]
    answer = judge(frames, "is the video good ?")
    inputs = judge.processor(text=["<image> <image> <image> is the video good ?"], images=[frames], return_tensors="pt")
    with torch.no_grad():
        p = judge.model(**inputs).logits[0, -1].double().softmax(-1)
    assert answer == pytest.approx(float(p[[5, 6]].sum() / p[[5, 6, 7, 8]].sum()), abs=1e-6)
    assert 0 < answer < 1
    assert judge(frames, "is the video good ?") == answer
    assert judge(frames[::-1], "is the video good ?") != answer
    assert judge(frames, "good good ?") != answer


def test_uve_asks_every_aspect(run: Run, tiny_vlm: Path) -> None:
    clip = np.stack([texture(32, 32, i) for i in range(20)])
    backends = {"vlm": resolve("vlm", str(tiny_vlm))}
    plain = run("uve", clip, backends=backends)
    assert set(plain.extras["aspects"]) == set(ASPECTS) - {"alignment"}
    prompted = run("uve", clip, backends=backends, prompt="a cat")
    assert set(prompted.extras["aspects"]) == set(ASPECTS)
    assert prompted.value == pytest.approx(np.mean(list(prompted.extras["aspects"].values())))


def test_tc_bench_shows_the_frames_an_assertion_names(run: Run) -> None:
    clip = np.stack([np.full((16, 16, 3), t, np.uint8) for t in range(32)])
    asked: list[tuple[list[int], str]] = []

    def judge(frames: list[np.ndarray], question: str) -> float:
        asked.append(([int(f[0, 0, 0]) for f in frames], question))
        return 0.9 if "cup" in question else 0.1

    assertions = [
        {"question": "Is the cup blue?", "frames": [0]},
        {"question": "Is the cup red?", "frames": [15]},
        {"question": "Is there a dog?", "frames": [0, 7, 15], "about": "other objects"},
    ]
    result = run("tc_bench", clip, backends={"vlm": judge}, given={"assertions": assertions})
    assert result.value == pytest.approx(2 / 3)
    assert result.extras["tcr"] == 1, "an assertion about other objects does not count for TCR"
    assert [frames for frames, _ in asked] == [[0], [30], [0, 14, 30]]
    out = run("tc_bench", clip, backends={"vlm": judge}, given={"assertions": [{"question": "?", "frames": [16]}]})
    assert "0 to 15" in str(out.reason)


def test_tc_score() -> None:
    assert tc_score([True, False], [False, False]).extras["tcr"] == 0
    assert tc_score([], []).value is None


def test_narrlv_rules() -> None:
    answers = {"fidelity": [[1, 0]], "coverage": [[1, 1], [0.2, 0.2], [1, 1]], "coherence": [[1, 1], [1, 1]]}
    scores = narrlv_score(answers)
    coverage = (1 + 0.2 + 1) / 3
    assert scores == pytest.approx({"fidelity": 0.5, "coverage": coverage, "coherence": (0 + coverage) / 2})
    mixed = narrlv_score(answers, first_frame=1.0)
    assert mixed["fidelity"] == pytest.approx(0.8 * 0.5 + 0.2)
    whole = narrlv_score(answers | {"coverage": [[1], [0.3], [1]]})
    assert whole["coherence"] == pytest.approx((1 + (1 + 0.3 + 1) / 3) / 2)


def test_judges_are_never_comparable() -> None:
    assert not any(metric(n).info.comparable for n in ("uve", "tc_bench"))
