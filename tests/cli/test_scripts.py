"""Scripts that were written for Headscale's command line: flags, answers, exit codes, forms."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from io import StringIO
from ipaddress import IPv4Network

import pytest
import yaml

from appliance.cli.output import table
from appliance.cli.root import run
from appliance.identity.principals import LOCAL
from tests.api.conftest import House
from tests.cli.conftest import Terminal


def says(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", StringIO(words))


@pytest.mark.parametrize("answer", ["y\n", "YES\n", "sure\n", "y"])
def test_answer_is_read_from_a_pipe(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """B12: ``echo y |`` confirms what is asked."""
    terminal.inside(lambda house: house.node("alice", "laptop"))
    terminal.ok("users", "create", "bob")
    for line, said in (
        (("nodes", "delete", "-i", "1"), "Node deleted\n"),
        (("users", "destroy", "-n", "bob"), "User destroyed\n"),
    ):
        says(answer, monkeypatch)
        assert terminal.ok(*line) == said


@pytest.mark.parametrize("answer", ["n\n", "\n", "nope\n"])
def test_answer_no_is_no_mistake(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """B12: who says no gets exit code 0 and the sentence that the peer has."""
    terminal.inside(lambda house: house.node("alice", "laptop"))
    for line, said in (
        (("nodes", "delete", "-i", "1"), "Node not deleted"),
        (("users", "destroy", "-n", "alice"), "User not destroyed"),
    ):
        says(answer, monkeypatch)
        assert terminal.ok(*line) == f"{said}\n"
        says(answer, monkeypatch)
        assert json.loads(terminal.ok(*line, "-o", "json")) == {"Result": said}
    assert len(terminal.json("nodes", "list")) == 1


def test_nobody_to_ask_is_a_failure(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """B12: where nothing can be read, a script must not take it for done."""
    terminal.inside(lambda house: house.node("alice", "laptop"))
    says("", monkeypatch)
    assert "--force" in terminal.fails("nodes", "delete", "-i", "1")


def test_flags_may_carry_their_values(terminal: Terminal) -> None:
    """B12: ``--reusable=true``, ``-i=2``, ``-o=json``, as Go's flags are written."""
    terminal.ok("users", "create", "alice")
    line = ("preauthkeys", "create", "-u=1", "--reusable=true", "--ephemeral=false")
    key = json.loads(terminal.ok(*line, "-o=json", "--compat=0.30"))
    assert (key["reusable"], key["ephemeral"], key["user"]["name"]) == (True, False, "alice")
    key = json.loads(terminal.ok(*line, "--reusable=F", "-o=json", "--compat=0.30"))
    assert key["reusable"] is False
    assert len(json.loads(terminal.ok("-o=json", "preauthkeys", "list"))) == 2
    terminal.ok("preauthkeys", "delete", "-i=2")
    assert "neither true nor false" in terminal.fails("users", "destroy", "-i=1", "--force=perhaps")
    terminal.ok("users", "destroy", "-i=1", "--force=1")
    assert terminal.json("users", "list") == []


def test_value_of_an_option_is_never_taken_for_a_flag(terminal: Terminal) -> None:
    terminal.ok("users", "create", "alice", "-d", "--force=true")
    assert terminal.json("users", "list")[0]["displayName"] == "--force=true"


def test_keys_are_deleted_without_a_question(terminal: Terminal) -> None:
    """B12, D16: ``preauthkeys delete -i 1`` deletes, as the peer does."""
    terminal.ok("users", "create", "alice")
    terminal.ok("preauthkeys", "create", "-u", "1")
    assert terminal.ok("preauthkeys", "delete", "-i", "1") == "Key deleted\n"


def test_key_may_be_made_expired(terminal: Terminal) -> None:
    terminal.ok("users", "create", "alice")
    assert terminal.ok("preauthkeys", "create", "-u", "1", "-e", "0s").startswith("hskey-auth-")


@pytest.mark.parametrize("line", [[], ["nodes"], ["users"], ["nodes", "-o", "json"], ["policy"]])
def test_noun_alone_gives_help(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """B12: a bare noun prints its help with exit code 0."""
    assert run(line) == 0
    assert "Commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    [
        ["nodes", "rename"],
        ["nope"],
        ["nodes", "nope"],
        ["--nope"],
        ["nodes", "--nope"],
        ["users", "create"],
    ],
)
def test_wrong_usage_is_exit_code_one(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """B12: 1, as the peer has it, and not click's 2."""
    assert run(line) == 1
    assert "Error: " in capsys.readouterr().err


def test_complaints_have_the_form_that_was_asked_for(terminal: Terminal) -> None:
    line = ("users", "destroy", "-n", "nobody", "--force")
    assert terminal.fails(*line, "-o", "json").startswith('{\n\t"error": "')
    assert terminal.fails(*line, "-o", "json-line").startswith('{"error":"')
    assert yaml.safe_load(terminal.fails(*line, "-o", "yaml")).keys() == {"error"}


async def two_nodes(house: House) -> None:
    owners = '{"tagOwners": {"tag:a": [], "tag:db": []}}'
    await house.door.policies[house.live.id].replace(owners, LOCAL)
    await house.node("alice", "laptop")
    await house.node("bob", "server", ("tag:db",))


def test_forms_of_0_29_are_what_the_server_claims_to_be(terminal: Terminal) -> None:
    """B12: /version says 0.29, and so -o json has that release's names, numbers and times."""
    terminal.inside(two_nodes)
    first, second = json.loads(terminal.ok("nodes", "list", "-o", "json"))
    assert (first["id"], first["given_name"], first["register_method"]) == (1, "laptop", 1)
    assert first["ip_addresses"] == ["100.64.0.1", "fd7a:115c:a1e0::1"]
    assert set(first["last_seen"]) <= {"seconds", "nanos"}
    assert isinstance(first["created_at"]["seconds"], int)
    assert first["user"]["id"] == 1
    assert first["pre_auth_key"]["used"] is True
    # What is empty is left out, as Go's encoder does.
    assert first.keys().isdisjoint({"expiry", "online", "tags", "approved_routes", "givenName"})
    assert (second["user"]["name"], second["tags"]) == ("tagged-devices", ["tag:db"])
    [alice, _] = json.loads(terminal.ok("users", "list", "-o", "json-line"))
    assert alice.keys() == {"id", "name", "created_at"}
    key = json.loads(terminal.ok("preauthkeys", "create", "-u", "1", "-o", "json"))
    assert (key["id"], key["expiration"].keys() <= {"seconds", "nanos"}) == (3, True)
    node = yaml.safe_load(terminal.ok("nodes", "list", "-o", "yaml"))[0]
    assert (node["id"], node["givenname"], node["expiry"]) == (1, "laptop", None)
    assert node["createdat"].keys() <= {"seconds", "nanos"}


def test_forms_of_0_30_are_there_on_request(terminal: Terminal) -> None:
    """B12: --compat 0.30 gives the API's names and text."""
    terminal.inside(two_nodes)
    first, _ = terminal.json("nodes", "list")
    assert (first["id"], first["givenName"]) == ("1", "laptop")
    assert datetime.fromisoformat(first["createdAt"])
    assert first["expiry"] is None
    tagged = terminal.json("nodes", "tag", "-i", "1", "-t", "tag:a")
    assert (tagged["user"]["id"], tagged["user"]["name"]) == ("", "")
    text = terminal.ok("nodes", "list", "-o", "yaml", "--compat", "0.30")
    node = yaml.safe_load(text)[0]
    assert (node["id"], node["givenname"], node["ipaddresses"][0]) == ("1", "laptop", "100.64.0.1")
    assert isinstance(node["createdat"], datetime)


def test_deletion_says_its_result(terminal: Terminal) -> None:
    terminal.inside(two_nodes)
    answer = json.loads(terminal.ok("nodes", "delete", "-i", "1", "--force", "-o", "json"))
    assert answer == {"Result": "Node deleted"}


def test_users_may_be_destroyed_as_they_are_created(terminal: Terminal) -> None:
    """F11: the name stands where create and set-role take it."""
    terminal.ok("users", "create", "alice")
    assert terminal.ok("users", "destroy", "alice", "--force") == "User destroyed\n"
    assert "one user" in terminal.fails("users", "destroy", "a", "-n", "b")


def test_node_moves_from_tags_to_a_user_and_back(terminal: Terminal) -> None:
    """F11: what the words promise ("move") is there."""
    terminal.inside(two_nodes)
    node = terminal.json("nodes", "move", "-i", "server", "-u", "alice")
    assert (node["user"]["name"], node["tags"]) == ("alice", [])
    assert terminal.json("nodes", "tag", "-i", "2", "-t", "tag:db")["tags"] == ["tag:db"]


async def other_prefix(house: House) -> None:
    await house.node("alice", "laptop")
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        edit.set_settings(replace(edit.settings, prefix_v4=IPv4Network("100.99.0.0/24")))


def test_backfill_shows_its_plan_and_asks(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B11: --plan first; the question comes with the plan; then in words what was done."""
    terminal.inside(other_prefix)
    plan = "laptop (1) lost 100.64.0.1\nlaptop (1) got 100.99.0.1\n"
    assert terminal.ok("nodes", "backfillips", "--plan") == plan
    says("n\n", monkeypatch)
    code, out, err = terminal("nodes", "backfillips")
    assert (code, out, plan in err) == (0, "Addresses not changed\n", True)
    assert terminal.json("nodes", "list")[0]["ipAddresses"][0] == "100.64.0.1"
    says("y\n", monkeypatch)
    assert terminal.ok("nodes", "backfillips") == plan
    assert terminal.json("nodes", "list")[0]["ipAddresses"][0] == "100.99.0.1"
    assert terminal.ok("nodes", "backfillips") == "Every node has its addresses\n"
    assert json.loads(terminal.ok("nodes", "backfillips", "--force", "-o", "json")) == {}


def test_ephemeral_column_is_true_for_nodes_that_asked(terminal: Terminal) -> None:
    """Real clients, 10."""
    terminal.inside(lambda house: house.node("alice", "fleeting", ephemeral=True))
    assert terminal.ok("nodes", "list").splitlines()[1].split("|")[8].strip() == "true"


def test_columns_stand_straight_under_wide_letters() -> None:
    """F11: a cell of a terminal is what is counted, not a letter."""
    lines = table(("A", "B"), [("我的电脑", "x"), ("e\u0301a", "y"), ("plain", "z")]).splitlines()
    assert lines == ["A        | B", "我的电脑 | x", "e\u0301a       | y", "plain    | z"]


def test_times_are_in_utc(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    terminal.ok("users", "create", "alice")
    shown = terminal.ok("users", "list").splitlines()[1].split("|")[4].strip()
    made = terminal.json("users", "list")[0]["createdAt"]
    assert made.startswith(shown.replace(" ", "T"))
