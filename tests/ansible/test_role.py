"""What the roles, the program and the pages say of each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import headwater_health
import headwater_host
import pytest
import yaml

from appliance.deploy import facts

ROOT = Path(__file__).parents[2]
ANSIBLE = ROOT / "ansible"
ROLES = sorted(path.name for path in (ANSIBLE / "roles").iterdir())


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def specs(role: str) -> dict[str, Any]:
    """Give every option of a role, over all its entry points."""
    found: dict[str, Any] = {}
    entries = read(ANSIBLE / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]
    for entry in entries.values():
        found |= entry["options"]
    return found


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_has_its_meaning_and_its_default(role: str) -> None:
    defaults = read(ANSIBLE / "roles" / role / "defaults" / "main.yml")
    options = specs(role)
    assert set(defaults) == set(options)
    for name, option in options.items():
        assert option["description"], name
        if "default" in option:
            assert defaults[name] == option["default"], name


@pytest.mark.parametrize("role", ROLES)
def test_variables_that_hold_secrets_are_kept_out_of_logs(role: str) -> None:
    for name, option in specs(role).items():
        if re.search(r"secrets|auth_key$", name):
            assert option["no_log"] is True, name


def test_places_are_those_of_the_units() -> None:
    places = read(ANSIBLE / "roles" / "headwater" / "vars" / "main.yml")
    base = places["__headwater_base"]
    assert f"{base}/current/bin/headwater" == facts.PROGRAM
    assert places["__headwater_config_dir"] == facts.CONFIG_DIR
    assert Path(base) == headwater_host.BASE
    assert f"{facts.SERVER_UNIT}.service" == headwater_health.MAIN_SERVICE


def pages() -> str:
    return "".join(
        (ROOT / page).read_text() for page in ("README.md", "docs/ansible.md", "docs/upgrade.md")
    )


def test_pages_name_only_variables_tags_and_playbooks_that_are_there() -> None:
    text = pages()
    tasks = (ANSIBLE / "roles" / "headwater" / "tasks" / "main.yml").read_text()
    known = {name for role in ROLES for name in specs(role)} | set(ROLES) | {"headwater_nodes"}
    known |= set(re.findall(r"headwater_[a-z]+", re.sub(r"__headwater\w+", "", tasks)))
    assert set(re.findall(r"\bheadwater_\w+", text)) <= known
    for playbook in re.findall(r"playbooks/(\w+)\.yml", text):
        assert (ANSIBLE / "playbooks" / f"{playbook}.yml").is_file()


def test_the_example_inventory_names_only_variables_that_are_there() -> None:
    text = (ANSIBLE / "inventory.example.yml").read_text()
    known = {name for role in ROLES for name in specs(role)} | {"headwater", "headwater_nodes"}
    assert set(re.findall(r"\bheadwater_\w+", text)) <= known
    children = read(ANSIBLE / "inventory.example.yml")["all"]["children"]
    assert list(children) == ["headwater", "headwater_nodes"]


def test_conditions_are_written_bare() -> None:
    """Delimiters around a condition are deprecated since ansible-core 2.19."""
    wrapped = re.compile(
        r"^\s*(-\s+)?(that|when|until|failed_when|changed_when):\s*\"\{\{", re.MULTILINE
    )
    for path in (ANSIBLE / "roles").rglob("*.yml"):
        assert not wrapped.search(path.read_text()), path
