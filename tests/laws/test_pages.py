"""Every method has a page that names its paper, settings and exemptions, and a recipe that runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from fakes import model_info

from longgen import registry
from longgen.runtime.compose import check, compose, parse, spelled_out

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "methods"
LINK = re.compile(r"\((\w+)\.md\)")
RECIPES = {path: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "configs").glob("*.yaml"))}


def reached(name: str) -> dict[str, str]:
    """The page and all that it links to; settings that pages share are explained on one."""
    pages, wanted = dict[str, str](), [name]
    while wanted:
        page = wanted.pop()
        if page not in pages:
            pages[page] = (PAGES / f"{page}.md").read_text(encoding="utf-8")
            wanted += LINK.findall(pages[page])
    return pages


@pytest.mark.parametrize("name", registry.METHODS)
def test_page(name: str) -> None:
    info = registry.method(name).info
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert info.paper in text, f"the page of {name} does not name its paper"
    known = "".join(reached(name).values())
    missing = [s for s in info.settings if s not in known]
    assert not missing, f"the page of {name} says nothing of {missing}"
    assert not [law for law in info.exempt if law not in known], f"the page of {name} hides an exemption"


@pytest.mark.parametrize("name", registry.METHODS)
def test_recipe(name: str) -> None:
    def uses(recipe: dict[str, str]) -> bool:
        methods, _ = spelled_out(recipe.get("method", "direct"))
        return name in [n for n, _ in parse(methods)]

    used = [path.name for path, recipe in RECIPES.items() if uses(recipe)]
    assert used, f"no recipe in configs/ uses {name}"


@pytest.mark.parametrize("path", [p for p, r in RECIPES.items() if "method" in r], ids=lambda p: p.name)
def test_recipe_composes(path: Path) -> None:
    recipe, info = RECIPES[path], model_info(9)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 30
    made = compose(recipe["method"], recipe.get("set", {})).fit(info)
    check(made, info.latents_for(recipe.get("num_frames", 129)), info)
