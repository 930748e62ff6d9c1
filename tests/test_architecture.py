"""The house stands as designed: imports point one way, budgets hold, nothing heavy loads early."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "longgen"
FILES = sorted(PACKAGE.rglob("*.py"))

LEAVES = {"errors", "config", "registry", "laws"}
# package → what of the house it may import, besides itself and the leaves
MAY = {
    "types": set(),
    "protocols": {"types"},
    "core": {"types"},
    "attention": {"types", "protocols", "core"},
    "methods": {"types", "protocols", "core"},
    "models": {"types", "protocols", "core", "attention"},
    "story": {"types", "protocols", "core"},
    "media": {"types"},
    "metrics": {"types", "protocols", "core", "media"},
    "runtime": {"types", "protocols", "core", "attention", "methods", "models", "story", "media"},
    "shapes": {"types", "core", "media"},
    "report": {"types", "media", "metrics"},
}
HEAVY = {"diffusers": {"models", "shapes"}, "transformers": {"models", "metrics", "shapes"}}
# Budgets in lines of code: blank lines, comments and docstrings are free, so that nobody saves on explaining.
LINES = {"methods": 150, "cli": 120, "metrics": 120}
# A good reason beats a budget.
EXCUSED = {
    "cli/work.py": "what generate, batch and story share: checks, runs and by-products of a video",
    "methods/fifo.py": "fifo and its zigzag form miga are one walk",
    "metrics/base.py": "the interface of all metrics and the one pass over a file",
    "metrics/evaluate.py": "the evaluation run: cache, resume, skips",
    "metrics/records.py": "reads and writes VBench's own files",
    "metrics/videos.py": "finds the videos and prompts of a command line",
}


def room(path: Path) -> str:
    """The part of the house that a file belongs to."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0] if parts != ("__init__",) else ""


def imports(path: Path, inside_functions: bool = True) -> Iterator[str]:
    """Full names of imported modules."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        id(n)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for n in ast.walk(branch)
    }
    nodes = ast.walk(tree) if inside_functions else iter(tree.body)
    for node in nodes:
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:  # `from package import module` imports the module
                inner = f"{node.module}.{alias.name}"
                yield inner if (ROOT / (inner.replace(".", "/") + ".py")).exists() else node.module


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    here = room(path)
    for name in imports(path):
        if name.startswith("longgen.") and here in MAY:
            there = name.split(".")[1]
            assert there in MAY[here] | LEAVES | {here, "__version__"}, f"{path.name} of {here} imports {name}"
        top = name.split(".")[0]
        if top in HEAVY:
            assert here in HEAVY[top], f"{here} imports {top}"


def test_methods_do_not_import_each_other() -> None:
    for path in (PACKAGE / "methods").glob("*.py"):
        others = [n for n in imports(path) if n.startswith("longgen.methods")]
        assert not others, f"{path.name} imports {others}"


def test_no_cycles() -> None:
    graph = {p: {n for n in imports(p, inside_functions=False) if n.startswith("longgen")} for p in FILES}
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in FILES}
    done: set[Path] = set()

    def visit(path: Path, trail: tuple[Path, ...]) -> None:
        assert path not in trail, " → ".join(str(p.relative_to(ROOT)) for p in (*trail, path))
        if path in done:
            return
        for name in graph[path]:
            if name in names and names[name] != path:
                visit(names[name], (*trail, path))
        done.add(path)

    for path in FILES:
        visit(path, ())


def code_lines(text: str) -> int:
    """Lines that hold code."""
    skipped = {i for i, line in enumerate(text.splitlines(), 1) if not line.strip() or line.lstrip().startswith("#")}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            skipped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return text.count("\n") - len(skipped)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_budgets(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines, limit = code_lines(text), LINES.get(room(path))
    name = str(path.relative_to(PACKAGE))
    if limit and name not in EXCUSED:
        assert lines <= limit, f"{name} has {lines} lines; the budget of {room(path)} is {limit}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 80, f"{name}:{node.name} has {length} lines"


def test_no_print_in_library_code() -> None:
    for path in FILES:
        if room(path) in {"cli", "__main__"}:
            continue
        calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
        assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], path.name


def test_help_and_import_do_not_load_torch() -> None:
    code = (
        "import sys, longgen\nassert 'torch' not in sys.modules, 'import longgen'\n"
        "from longgen.__main__ import main\n"
        "for words in (['--help'], ['generate', '--help'], ['eval', '--help'], ['story', '--help']):\n"
        "    try:\n        main(words)\n    except SystemExit as left:\n        assert left.code in (0, None), words\n"
        "    assert 'torch' not in sys.modules, words\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_every_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    declared = {re.split(r"[\s<>=;\[~!]", d)[0].lower().replace("-", "_") for d in wanted}
    modules = {"opencv_python_headless": "cv2", "pillow": "PIL", "pyyaml": "yaml", "scikit_image": "skimage"}
    modules |= {"flash_attn": "flash_attn", "sageattention": "sageattention"}
    known = {modules.get(d, d) for d in declared} | set(sys.stdlib_module_names) | {"longgen", "tests"}
    known |= {"flash_attn_interface", "flash_attn", "sageattention"}  # optional engines, probed by name
    known |= {p.stem for p in (ROOT / "tests").rglob("*") if p.suffix == ".py" or p.is_dir()}  # helpers of the tests
    for path in [*FILES, *sorted((ROOT / "tests").rglob("*.py"))]:
        for name in imports(path):
            assert name.split(".")[0] in known, (
                f"{path.relative_to(ROOT)} imports {name}, which pyproject does not name"
            )


def test_constraints_pin_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    pins = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    for dependency in wanted:
        name = re.split(r"[\s<>=;\[~!]", dependency)[0].lower().replace("_", "-")
        assert re.search(rf"^{re.escape(name)}==", pins, re.M), f"{name} is not pinned"


def test_the_repository_speaks_of_the_project_alone() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    words = re.compile("|".join(["/" + "work/", "/" + "tmp/", "/" + "root/", "fa" + "rm-", r"\b" + "CE" + r"O\b"]))
    for name in listed:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".yaml", ".json", ".jsonl", ".txt"} and path.stat().st_size < 2e6:
            found = words.search(path.read_text(encoding="utf-8", errors="ignore"))
            assert not found, f"{name}: {found.group() if found else ''}"
