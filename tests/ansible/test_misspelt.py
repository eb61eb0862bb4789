from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from misspelt import misspelt

ROLES = Path(__file__).parents[2] / "ansible" / "roles"
SPECS = [yaml.safe_load(path.read_text()) for path in ROLES.glob("*/meta/argument_specs.yml")]


def test_every_variable_of_every_role_and_entry_is_known() -> None:
    names = ("headwater_site_file", "headwater_node_options", "headwater_purge")
    assert misspelt(names, SPECS) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("headwater_open_tcp_port", "headwater_open_tcp_ports"),
        ("headwater_firewall", "headwater_open_firewall"),
        ("headwater_node_authkey", "headwater_node_auth_key"),
        ("headwater_setings", "headwater_settings"),
    ],
)
def test_the_name_that_was_meant_is_said(name: str, meant: str) -> None:
    assert misspelt([name], SPECS) == [
        f"{name} is not a variable of these roles; did you mean {meant}?"
    ]


def test_a_name_like_no_other_is_refused_without_a_guess() -> None:
    assert misspelt(["headwater_xyzzy", "headwater_xyzzy"], SPECS) == [
        "headwater_xyzzy is not a variable of these roles"
    ]
