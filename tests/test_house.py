"""House rules that can be checked: modules, imports, generated pages, README, Makefile."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from appliance import config
from appliance.cli.root import run
from appliance.config import yamlfile
from docs import generate
from tests.support.examples import EVERY_SITE, SITES

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / "appliance").rglob("*.py")
    if "versions" not in path.parts
)
MAX_LINES = 600
MAX_README_LINES = 120
MAX_CONTRIBUTING_LINES = 100
FORBIDDEN_NAMES = re.compile(r"(^|_)(util|utils|helper|helpers|manager|common|data|info)(_|$)")


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_module_keeps_to_the_house_rules(path: Path) -> None:
    text = (ROOT / path).read_text()
    assert text.count("\n") <= MAX_LINES
    assert ast.get_docstring(ast.parse(text)), "a module says what it is for"
    assert not FORBIDDEN_NAMES.search(path.stem)


def imports_at_start(tree: ast.Module, names: set[str]) -> set[str]:
    """Return which of our modules a module imports before its first function is called."""
    found: set[str] = set()
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{each.name}" for each in node.names}
            found |= inner & names or {node.module}
            found |= {node.module} if inner - names else set()
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.stmt)]
    return found & names


def test_every_module_imports_alone() -> None:
    """No two modules need each other at the start, so any of them may be the first one."""
    trees = {
        ".".join(path.with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            (ROOT / path).read_text()
        )
        for path in MODULES
    }
    needs = {name: imports_at_start(tree, set(trees)) for name, tree in trees.items()}
    tuple(TopologicalSorter(needs).static_order())  # raises CycleError, which names them


def test_every_module_imports() -> None:
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in MODULES]
    code = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("ngh2", "uvloop", "psycopg"):
            raise
"""
    subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, check=True)


def test_import_contracts_hold() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    if not lint_imports.exists():
        pytest.skip("lint-imports is not installed beside this Python")
    done = subprocess.run(
        [lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", generate.PAGES)
def test_generated_page_is_current(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == generate.PAGES[name](), "run: make docs"


def test_pages_are_short_enough() -> None:
    assert (ROOT / "README.md").read_text().count("\n") <= MAX_README_LINES
    assert (ROOT / "CONTRIBUTING.md").read_text().count("\n") <= MAX_CONTRIBUTING_LINES


def test_readme_names_both_commands() -> None:
    text = (ROOT / "README.md").read_text()
    for command in ("make run", "make test"):
        assert f"\n{command}" in text
        target = command.removeprefix("make ")
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def blocks(language: str, *pages: str) -> list[tuple[str, str]]:
    """Give the fenced blocks of a language in these pages."""
    return [
        (page, block)
        for page in pages
        for block in re.findall(
            rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL
        )
    ]


PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{each.name}" for each in (ROOT / "docs").glob("*.md")),
)


def test_site_files_in_the_pages_are_good() -> None:
    found = blocks("yaml", *PAGES)
    assert found
    for page, block in found:
        if "server_url" in block:
            config.build(yamlfile.parse(block), source=page)


def test_examples_are_good_site_files() -> None:
    assert len(EVERY_SITE) > len(SITES) > 3
    for path in EVERY_SITE:
        config.load(path)


def test_commands_in_the_pages_exist(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        line.strip().removeprefix("sudo ")
        for _, block in blocks("(?:sh|console)", *PAGES)
        for line in block.splitlines()
    ]
    ours = [line.split() for line in lines if line.startswith("headwater ")]
    assert ours
    for words in ours:
        path = [word for word in words[1:4] if re.fullmatch(r"[a-z-]+", word)]
        code = 1
        while path and code:
            code = run([*path, "--help"])
            path.pop()
        assert code == 0, words
        options = [word.split("=")[0] for word in words if word.startswith("--")]
        said = capsys.readouterr().out
        everywhere = ("--socket", "--config", "--output", "--force", "--tailnet")
        assert all(option in said or option in everywhere for option in options), words


def test_local_links_in_the_pages_lead_somewhere() -> None:
    broken = [
        f"{page}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", (ROOT / page).read_text())
        if not ((ROOT / page).parent / target).exists()
    ]
    assert not broken


@pytest.mark.parametrize("page", ["compatibility.md", "decisions/0016-firm-ground.md"])
def test_rows_name_tests_that_exist(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    rows = re.findall(r"`(tests/[\w/]+\.py)?(?:::([\w:]+))?[`…]", text)
    path = ""
    for named, names in rows:
        path = named or path
        if not named and not names:
            continue
        assert (ROOT / path).is_file(), path
        found = (ROOT / path).read_text()
        for name in filter(None, names.split("::")):
            assert re.search(rf"(def|class) {name}", found), f"{path}::{name}"
    assert path


def test_makefile_knows_its_targets() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    for target in ("run", "test", "check", "bench", "lock", "clean", "docs", "help"):
        subprocess.run([make, "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_no_page_or_file_names_a_registry_host() -> None:
    """Requirements come from wherever the machine's pip is told to look."""
    locks = [str(path.relative_to(ROOT)) for path in (ROOT / "requirements").glob("*.txt")]
    assert len(locks) >= 4
    for name in ("Makefile", "pyproject.toml", *locks):
        assert not re.search(r"index-url|pypi\.org|pythonhosted", (ROOT / name).read_text())


def test_contracts_leave_no_module_out() -> None:
    """D5: a new module stands in a layer, and nobody but the store may import SQL."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    by_name = {each["name"].partition(":")[0]: each for each in contracts}
    assert by_name["layers"]["containers"] == ["appliance"]
    assert by_name["layers"]["exhaustive"]
    rooms = {
        f"appliance.{each.stem}"
        for each in (ROOT / "appliance").iterdir()
        if each.suffix == ".py" or (each / "__init__.py").exists()
    } - {"appliance.__init__", "appliance.store"}
    bound = {
        source
        for each in contracts
        if each["type"] == "forbidden" and "sqlalchemy" in each["forbidden_modules"]
        for source in each["source_modules"]
    }
    assert rooms <= bound
