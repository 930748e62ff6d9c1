"""Python in README and docs runs as it stands; links lead somewhere; every method and metric has its page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from longgen import registry

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"```python\n(.*?)```", re.S)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", [p for p in PAGES if BLOCK.search(p.read_text(encoding="utf-8"))], ids=ids)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    for code in BLOCK.findall(page.read_text(encoding="utf-8")):
        exec(compile(code, str(page), "exec"), space)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{ids(page)} links to {target}"


@pytest.mark.parametrize("name", registry.METHODS)
def test_every_method_has_a_page_and_a_recipe(name: str) -> None:
    assert (ROOT / "docs" / "methods" / f"{name}.md").exists()
    recipes = [p.read_text(encoding="utf-8") for p in (ROOT / "configs").glob("*.yaml")]
    assert any(re.search(rf"^method: .*\b{name}\b", text, re.M) for text in recipes), f"no recipe uses {name}"
