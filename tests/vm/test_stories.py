"""The rules of stories: what a folder has, and what a body may know."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent.parent.parent / "vm-tests"
STORIES = sorted(path.parent.name for path in HERE.glob("*/story.py"))

PORTABLE = {"driver.face", "driver.client", "driver.tailnet", "driver.routers", "driver"}
"""What a NixOS VM test has too: all of these speak to the machine's shell only."""

ABOUT_DEBIAN = {
    **{name: "Ansible is for Debian" for name in STORIES if name.startswith("ansible_")},
    "cloud_init": "it runs the install script, which refuses other systems",
    "install_script": "it refuses other systems",
    "nixos_unit": "NixOS' unit on another system",
    "two_nodes_debian12": "Debian 12",
}


LEAVES_EARLY = re.compile(
    r"\|\s*(head\b|sed [^|]*q\b|grep (-\w+ )*(-\w*[qm]|--quiet|--silent|--max-count))"
)
"""A reader that ends before its writer does: with `pipefail` the writer's broken pipe fails the
command, now and then, by how the two happened to be scheduled."""


def imported(file: Path) -> set[str]:
    """The modules that a file imports, `from driver import routers` as `driver.routers`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            if node.module == "driver":
                found |= {f"driver.{each.name}" for each in node.names}
            else:
                found.add(node.module)
    return found


@pytest.mark.parametrize("name", STORIES)
def test_story_is_whole(name: str) -> None:
    folder = HERE / name
    tree = ast.parse((folder / "story.py").read_text())
    assert ast.get_docstring(tree), "a body begins by saying what it shows"
    assert any(isinstance(each, ast.FunctionDef) and each.name == "story" for each in tree.body)
    assert (folder / "debian.py").exists()
    assert (folder / "default.nix").exists() is (name not in ABOUT_DEBIAN)


@pytest.mark.parametrize(
    "command",
    ["curl x | grep -q y", "a | grep -F -q y", "a |grep -iqE y", "a | head -n 1", "a | sed 1q"],
)
def test_reader_that_leaves_early_is_seen(command: str) -> None:
    assert LEAVES_EARLY.search(command)


@pytest.mark.parametrize(
    "file", sorted(HERE.rglob("*.py")), ids=lambda file: str(file.relative_to(HERE))
)
def test_no_pipe_is_left_before_its_end(file: Path) -> None:
    for number, line in enumerate(file.read_text().splitlines(), 1):
        assert not LEAVES_EARLY.search(line), (
            f"{file}:{number}: read it all, and look at it in Python"
        )


@pytest.mark.parametrize("name", sorted(set(STORIES) - set(ABOUT_DEBIAN)))
def test_body_knows_only_what_both_drivers_have(name: str) -> None:
    story = HERE / name / "story.py"
    ours = {each for each in imported(story) if each.split(".")[0] in ("driver", "appliance")}
    assert ours <= PORTABLE
    text = story.read_text()
    for place in ("/usr/", "/bin/", "/opt/", "apt-get"):
        assert place not in text, f"{place} is not on NixOS"


@pytest.mark.parametrize("module", sorted(PORTABLE - {"driver"}))
def test_portable_modules_need_nothing_of_our_driver(module: str) -> None:
    file = HERE / f"{module.replace('.', '/')}.py"
    ours = {each for each in imported(file) if each.startswith(("driver", "appliance"))}
    assert ours <= PORTABLE


@pytest.mark.parametrize("name", sorted(set(STORIES) - set(ABOUT_DEBIAN)))
def test_both_platforms_say_the_same_machines(name: str) -> None:
    """The names in `nodes` of default.nix are those of MACHINES in debian.py."""
    nix = (HERE / name / "default.nix").read_text()
    body = nix[nix.index("  nodes = {") :]
    on_nixos = {
        line.split("=")[0].strip()
        for line in body.splitlines()
        if line.startswith("    ") and not line.startswith("     ") and "=" in line
    }
    tree = ast.parse((HERE / name / "debian.py").read_text())
    (machines,) = (
        each.value
        for each in tree.body
        if isinstance(each, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "MACHINES" for target in each.targets)
    )
    assert isinstance(machines, ast.Dict)
    on_debian: set[str] = set()
    for key, value in zip(machines.keys, machines.values, strict=True):
        if isinstance(key, ast.Constant):
            on_debian.add(str(key.value))
        else:
            assert isinstance(value, ast.DictComp)
            names = value.generators[0].iter
            assert isinstance(names, ast.Tuple)
            on_debian |= {str(ast.literal_eval(each)) for each in names.elts}
    assert on_nixos == on_debian


def test_proxies_are_set_up_as_the_documentation_says() -> None:
    """Every configured line of docs/operations.md is in the files that the story uses."""
    page = (HERE.parent / "docs" / "operations.md").read_text()
    begin = page.index("## Behind a reverse proxy")
    section = page[begin : page.index("\n## ", begin)]
    used = {
        line.strip()
        for name in ("nginx.conf", "Caddyfile")
        for line in (HERE / "proxies" / name).read_text().splitlines()
    }
    blocks = section.split("```")[1::2]
    shown = {line.strip() for block in blocks for line in block.splitlines()[1:]}
    assert len(shown) > 12
    assert shown <= used | {""}
