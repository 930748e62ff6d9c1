"""Prompts and specs are the same thing said twice; the held-out fifth is balanced."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from longgen.errors import BadInput
from longgen.shapes import grammar
from longgen.shapes.grammar import Spec


def test_every_spec_survives_its_prompt() -> None:
    specs = list(grammar.all_specs())
    assert len(specs) == len(set(specs)) == 7 * 6 * 5 * 5
    assert all(grammar.parse(spec.prompt) == spec for spec in specs)


@pytest.mark.parametrize(
    "prompt", ["A Red star  rising on a navy background.", "a red star rising on a navy background"]
)
def test_case_and_spacing_are_forgiven(prompt: str) -> None:
    assert grammar.find(prompt) == Spec("red", "star", "rising", "navy")


@pytest.mark.parametrize("prompt", ["", "a dog", "a red star rising", "a pink star rising on a navy background"])
def test_other_prompts_list_the_vocabulary(prompt: str) -> None:
    assert grammar.find(prompt) is None
    with pytest.raises(BadInput, match=r"outside the shapes grammar.*orange.*triangle.*circling.*teal"):
        grammar.parse(prompt)


def test_one_fifth_is_held_out_and_every_pair_of_words_is_trained() -> None:
    held, seen = grammar.held_out_specs(), grammar.seen_specs()
    assert len(held) == 210
    assert len(seen) == 840
    assert not set(held) & set(seen)
    for left, right in combinations(range(4), 2):
        every = Counter((s.indices[left], s.indices[right]) for s in grammar.all_specs())
        trained = Counter((s.indices[left], s.indices[right]) for s in seen)
        assert all(trained[pair] >= 0.7 * count for pair, count in every.items())
