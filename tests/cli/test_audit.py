"""``headwater audit``: who changed what, as a table and for programs."""

from __future__ import annotations

from appliance.cli import audit
from appliance.identity.principals import PrincipalKind
from tests.cli.conftest import Terminal


def act(terminal: Terminal) -> None:
    terminal.inside(lambda house: house.node("alice", "laptop"))
    terminal.ok("nodes", "rename", "-i", "1", "desk")
    terminal.ok("users", "create", "bob")
    terminal.ok("nodes", "delete", "-i", "1", "--force")


def test_changes_are_listed_with_what_was_before(terminal: Terminal) -> None:
    act(terminal)
    lines = [
        [cell.strip() for cell in line.split("|")] for line in terminal.ok("audit").splitlines()
    ]
    assert lines[0] == ["Time", "By", "Act", "What", "Change", "Reason"]
    assert lines[1][1:] == [terminal.by, "node.delete", "node desk (1)", "removed", ""]
    assert lines[3][2:5] == ["node.rename", "node desk (1)", "name: laptop -> desk"]


def test_filters_name_records_also_when_they_are_gone(terminal: Terminal) -> None:
    act(terminal)
    acts = [each["act"] for each in terminal.json("audit", "--node", "1", "-n", "2")]
    assert acts == ["node.delete", "node.rename"]
    assert [each["name"] for each in terminal.json("audit", "--user", "bob")] == ["bob"]
    assert terminal.json("audit", "--since", "1h", "--act", "node.rename", "--by", terminal.by)
    assert terminal.json("audit", "--by", terminal.by, "-n", "1") == terminal.json(
        "audit", "--by", terminal.by.partition(":")[2], "-n", "1"
    )
    assert terminal.json("audit", "--by", "node:socket:x") == []
    assert terminal.json("audit", "--key", "99") == []
    assert "'desk'" in terminal.fails("audit", "--node", "desk")
    assert "one of" in terminal.fails("audit", "--node", "1", "--key", "1")
    assert "30d" in terminal.fails("audit", "--since", "soon")


def test_doors_are_those_of_principals() -> None:
    assert {f"{kind}:" for kind in PrincipalKind} == set(audit._DOORS)
