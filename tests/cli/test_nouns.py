"""The verbs of the command line: Headscale's flags, aliases, columns and machine forms."""

from __future__ import annotations

import json
import os

import pytest
import yaml

from appliance.cli.users import ROLES
from appliance.identity.principals import LOCAL
from appliance.live.policy import PolicySource
from appliance.policy.engine.compile import compile  # noqa: A004 - its name
from appliance.records import Role
from appliance.tailnet.policies import DENYING
from tests.api.conftest import House
from tests.cli.conftest import Terminal
from tests.support.builder import define_tags


def header(text: str) -> list[str]:
    return [cell.strip() for cell in text.splitlines()[0].split("|")]


def test_users_are_made_listed_renamed_and_destroyed(terminal: Terminal) -> None:
    user = terminal.json(
        "users", "create", "alice", "-d", "Alice", "-e", "a@b.c", "-p", "https://x/y.png"
    )
    assert user["id"] == "1"
    assert user["profilePicUrl"] == "https://x/y.png"
    assert terminal.ok("user", "new", "bob") == "User created\n"
    text = terminal.ok("users", "ls")
    assert header(text) == ["ID", "Name", "Username", "Email", "Created", "Role"]
    assert [u["name"] for u in terminal.json("users", "list", "-n", "bob")] == ["bob"]
    assert [u["name"] for u in terminal.json("users", "list", "-i", "1")] == ["alice"]
    assert [u["name"] for u in terminal.json("users", "list", "-e", "a@b.c")] == ["alice"]
    assert terminal.json("users", "mv", "-n", "bob", "-r", "robert")["name"] == "robert"
    assert terminal.ok("users", "delete", "-i", "2", "--force") == "User destroyed\n"
    assert len(terminal.json("users", "list")) == 1


def test_roles_are_given_shown_and_handed_over(terminal: Terminal) -> None:
    assert terminal.json("users", "create", "alice", "--role", "owner")["role"] == "owner"
    # A member is shown as Headscale shows everyone: its clients know no roles.
    assert "role" not in terminal.json("users", "create", "bob")
    assert "has one only" in terminal.fails("users", "create", "carol", "--role", "owner")
    assert terminal.ok("users", "set-role", "bob", "network-admin") == "Role set\n"
    assert terminal.ok("users", "set-role", "bob", "owner") == "Role set; alice is an admin now\n"
    lines = terminal.ok("users", "list").splitlines()[1:]
    assert [line.split("|")[-1].strip() for line in lines] == ["admin", "owner"]
    assert "role" not in terminal.json("users", "role", "1", "member")
    assert "set-role" in terminal.fails("users", "destroy", "-n", "bob", "--force")
    assert terminal.json("users", "set-role", "bob", "owner")["role"] == "owner"
    terminal.ok("users", "set-role", "bob", "member")
    assert terminal.ok("users", "destroy", "-n", "bob", "--force") == "User destroyed\n"
    assert "boss" in terminal.fails("users", "set-role", "alice", "boss", code=1)
    assert "users list" in terminal.fails("users", "set-role", "nobody", "admin")
    assert set(ROLES) == set(Role)


def test_users_refusals_name_the_way_out(terminal: Terminal) -> None:
    terminal.ok("users", "create", "alice")
    assert "alice" in terminal.fails("users", "create", "alice")
    assert "users list" in terminal.fails("users", "destroy", "-n", "nobody", "--force")
    assert "--identifier" in terminal.fails("users", "destroy", "--force", code=1)
    assert "--new-name" in terminal.fails("users", "rename", "-i", "1", code=1)
    error = json.loads(terminal.fails("-o", "json", "users", "create", "alice"))
    assert "alice" in error["error"]


def test_keys_are_made_listed_expired_and_deleted(terminal: Terminal) -> None:
    terminal.ok("users", "create", "alice")
    text = terminal.ok("preauthkeys", "create", "-u", "1", "--reusable", "-e", "24h").strip()
    assert text.startswith("hskey-auth-")
    key = terminal.json("authkey", "new", "-u", "alice", "--ephemeral", "--tags", "tag:a,tag:b")
    assert (key["ephemeral"], key["aclTags"]) == (True, ["tag:a", "tag:b"])
    listed = terminal.ok("preauthkeys", "list")
    assert header(listed)[:3] == ["ID", "Key/Prefix", "Reusable"]
    assert header(listed)[-1] == "Owner"
    assert text not in listed
    assert text[:23] in listed
    terminal.ok("pre", "revoke", "-i", "1")
    assert terminal.ok("preauthkeys", "delete", "-i", "2") == "Key deleted\n"
    assert [each["id"] for each in terminal.json("preauthkeys", "ls")] == ["1"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("create",), 1, "--user"),
        (("create", "-u", "nobody"), 1, "nobody"),
        (("create", "-u", "7"), 1, "7"),
        (("create", "--tags", "web"), 1, "tag:"),
        (("create", "--tags", "tag:web", "-e", "soon"), 1, "30d"),
        (("expire",), 1, "--id"),
        (("expire", "-i", "9"), 1, "9"),
        (("expire", "-i", "x"), 1, "x"),
        (("delete", "-i", "9", "--force"), 1, "9"),
    ],
)
def test_key_refusals_name_the_way_out(
    terminal: Terminal, arguments: tuple[str, ...], code: int, says: str
) -> None:
    assert says in terminal.fails("preauthkeys", *arguments, code=code)


def test_nodes_are_listed_with_headscales_columns(terminal: Terminal) -> None:
    terminal.inside(lambda house: house.node("alice", "laptop"))
    terminal.inside(lambda house: house.node("bob", "server", ("tag:db",)))
    text = terminal.ok("nodes", "list")
    assert header(text) == [
        "ID",
        "Hostname",
        "Name",
        "MachineKey",
        "NodeKey",
        "User",
        "Tags",
        "IP addresses",
        "Ephemeral",
        "Last seen",
        "Expiration",
        "Connected",
        "Expired",
    ]
    first, second = ([cell.strip() for cell in line.split("|")] for line in text.splitlines()[1:])
    assert first[5:8] == ["alice", "", "100.64.0.1, fd7a:115c:a1e0::1"]
    assert first[-3:] == ["N/A", "offline", "no"]
    assert second[5:7] == ["tagged-devices", "tag:db"]
    assert len(terminal.json("node", "ls", "-u", "alice")) == 1


async def defined(house: House, *names: str) -> None:
    """Put a policy in force that defines some tags."""
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        define_tags(edit, *names)


def test_nodes_are_changed_by_id_and_by_name(terminal: Terminal) -> None:
    terminal.inside(lambda house: house.node("alice", "laptop"))
    assert terminal.ok("nodes", "rename", "-i", "1", "desk") == "Node renamed\n"
    node = terminal.json("nodes", "expire", "-i", "desk", "-e", "2031-01-01T00:00:00Z")
    assert node["expiry"] == "2031-01-01T00:00:00Z"
    assert terminal.json("nodes", "expire", "-i", "1", "--disable")["expiry"] is None
    assert terminal.json("nodes", "logout", "-i", "1")["expiry"] < "2031"
    terminal.inside(lambda house: defined(house, "tag:a", "tag:b"))
    assert terminal.json("nodes", "tag", "-i", "1", "-t", "tag:a,tag:b")["tags"] == [
        "tag:a",
        "tag:b",
    ]
    node = terminal.json("nodes", "approve-routes", "-i", "1", "-r", "10.1.0.0/16,10.2.0.0/16")
    assert node["approvedRoutes"] == ["10.1.0.0/16", "10.2.0.0/16"]
    text = terminal.ok("nodes", "list-routes")
    assert header(text) == ["ID", "Hostname", "Approved", "Available", "Serving (Primary)"]
    assert "10.1.0.0/16, 10.2.0.0/16" in text
    assert terminal.json("nodes", "approve-routes", "-i", "1")["approvedRoutes"] == []
    assert terminal.json("nodes", "backfillips", "--force") == {"changes": []}
    assert terminal.ok("nodes", "del", "-i", "desk", "--force") == "Node deleted\n"
    assert terminal.json("nodes", "list") == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("expire",), 1, "--identifier"),
        (("expire", "-i", "77"), 1, "77"),
        (("expire", "-i", "1", "-e", "tomorrow"), 1, "2030-01-31"),
        (("expire", "-i", "1", "-d", "-e", "2031-01-01T00:00:00Z"), 1, "contradict"),
        (("rename", "-i", "1", "phone"), 1, "phone"),
        (("rename", "-i", "1", "x" * 64), 1, "63"),
        (("tag", "-i", "1"), 1, "--tags"),
        (("tag", "-i", "1", "-t", "web"), 1, "tag:"),
        (("approve-routes", "-i", "1", "-r", "10.0.0.1/40"), 1, "10.0.0.1/40"),
        (("rename", "-i", "1", ""), 1, "''"),
        (("list", "-u", "nobody"), 1, "'nobody'"),
        (("move", "-i", "1", "-u", "nobody"), 1, "'nobody'"),
        (("move", "-i", "1"), 1, "--user"),
        (("delete", "-i", "ghost", "--force"), 1, "nodes list"),
        (("list-routes", "-i", "77"), 1, "77"),
    ],
)
def test_node_refusals_name_the_way_out(
    terminal: Terminal, arguments: tuple[str, ...], code: int, says: str
) -> None:
    terminal.inside(lambda house: house.node("alice", "laptop"))
    terminal.inside(lambda house: house.node("alice", "phone"))
    assert says in terminal.fails("nodes", *arguments, code=code)


def test_machine_forms_say_the_same(terminal: Terminal) -> None:
    terminal.ok("users", "create", "alice")
    as_json = terminal.ok("policy", "status", "-o", "json")
    as_line = terminal.ok("-o", "json-line", "policy", "status")
    as_yaml = terminal.ok("policy", "-o", "yaml", "status")
    assert "\n\t" in as_json
    assert as_line.count("\n") == 1
    assert json.loads(as_json) == json.loads(as_line) == yaml.safe_load(as_yaml)


def test_health_and_version(terminal: Terminal) -> None:
    assert terminal.json("health") == {"databaseConnectivity": True}
    assert json.loads(terminal.ok("health", "-o", "json")) == {"database_connectivity": True}
    terminal.inside(_sicken)
    # F10: a sentence, not the number of an HTTP status.
    assert "the database does not answer" in terminal.fails("health")
    error = json.loads(terminal.fails("health", "-o", "json"))
    assert "the database does not answer" in error["error"]
    assert terminal.json("version")["version"] in terminal.ok("version")


def test_health_says_what_is_wrong_with_a_policy(terminal: Terminal) -> None:
    terminal.inside(_refuse_policy)
    code, out, complaint = terminal("health")
    assert (code, out) == (0, "The server reaches its database.\n")
    assert "the newest policy of tailnet default is not in force" in complaint
    assert "line 1, column 2" in complaint
    assert terminal.json("health")["policyTrouble"]["default"] in complaint


def test_health_repeats_the_warnings_of_the_site(terminal: Terminal) -> None:
    """B14: each warning, also while everything else is well."""
    terminal.inside(_warn)
    code, out, complaint = terminal("health")
    assert (code, out, complaint) == (
        0,
        "The server is well and reaches its database.\n",
        "warning: no relay\n",
    )


def test_health_is_bad_while_everything_is_denied(terminal: Terminal) -> None:
    terminal.inside(_deny_all)
    assert "everything is denied" in terminal.fails("health")


async def _refuse_policy(house: House) -> None:
    await house.door.policies[house.live.id].take_over(PolicySource("settings", text="{"))


async def _deny_all(house: House) -> None:
    snapshot = house.live.snapshot
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        compiled = compile(DENYING, snapshot.users, snapshot.nodes)
        edit.set_policy(DENYING, compiled)


async def _warn(house: House) -> None:
    house.warnings.append("no relay")


async def _sicken(house: object) -> None:
    house.wells.append(False)  # type: ignore[attr-defined]  # a House, seen as an object


def test_nobody_at_the_socket_is_exit_code_three(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.way = ("--socket", str(terminal.socket.with_name("absent")))
    complaint = terminal.fails("users", "list", code=3)
    assert "headwater serve" in complaint
    # F11: what a job without a server needs is named.
    assert "--offline" in terminal.fails("policy", "check", "-f", os.devnull, code=3)
    assert "absent" in complaint
    assert capsys.readouterr().out == ""
