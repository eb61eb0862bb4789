"""``headwater policy`` on a running server: Headscale's verbs, and questions before a change."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.cli.policy import policy
from appliance.identity.principals import LOCAL
from appliance.live.policy import PolicySource
from tests.api.conftest import House
from tests.api.test_policy import keep_elsewhere
from tests.cli.conftest import Terminal

POLICY = """{
  // Alice's servers
  "tagOwners": {"tag:web": ["alice@"]},
  "acls": [
    {"action": "accept", "src": ["alice@"], "dst": ["tag:web:443"]},
  ],
  "tests": [{"src": "alice@", "accept": ["tag:web:443"], "deny": ["tag:web:22"]}],
}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: Terminal) -> Path:
    """A folder with a policy, and a server with Alice's laptop, Bob's phone and a web server."""
    monkeypatch.chdir(tmp_path)
    Path("policy.hujson").write_text(POLICY)
    terminal.inside(lambda house: house.node("alice", "laptop"))
    terminal.inside(lambda house: house.node("bob", "phone"))
    terminal.inside(lambda house: house.node("alice", "web", ("tag:web",)))
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_policy_goes_in_and_comes_out_as_it_was_written(terminal: Terminal) -> None:
    assert "acl policy not found" in terminal.fails("policy", "get")
    assert "everything may reach everything" in terminal.ok("policy", "status")
    assert terminal.ok("policy", "set", "policy.hujson") == "Policy updated.\n"
    assert terminal.ok("policy", "get") == POLICY
    for form in ("json", "json-line", "yaml"):
        # X4: it is HuJSON already, so that what was read can be set again.
        assert terminal.ok("policy", "show", "-o", form) == POLICY
        assert terminal.ok("policy", "update", "-f", "policy.hujson", "-o", form) == (
            "Policy updated.\n"
        )
    assert "in force: since" in terminal.ok("policy", "status")
    assert terminal.json("policy", "status")["source"] == "database"


@pytest.mark.usefixtures("folder")
def test_policy_is_set_only_over_the_one_that_was_seen(terminal: Terminal) -> None:
    assert "etag: ts-default\n" in terminal.ok("policy", "status")
    first = ("policy", "set", "policy.hujson", "--if-match", "ts-default")
    terminal.ok(*first)
    complaint = terminal.fails(*first)
    assert "somebody set another policy meanwhile" in complaint
    seen = terminal.json("policy", "status")["etag"]
    assert f"etag: {seen}\n" in terminal.ok("policy", "status")
    Path("new.hujson").write_text(POLICY.replace("443", "80"))
    terminal.ok("policy", "set", "new.hujson", "--if-match", f'"{seen}"')
    terminal.fails("policy", "set", "policy.hujson", "--if-match", seen)
    assert terminal.ok("policy", "get") == Path("new.hujson").read_text()
    # A script's variable that is not set must not mean "whatever is there".
    for words in (("",), ("a\nb",), (seen, "--bypass-server-and-access-database-directly")):
        code, _, complaint = terminal(*first[:-1], *words)
        assert (code, "--if-match" in complaint) == (1, True)


@pytest.mark.usefixtures("folder")
def test_bad_policy_changes_nothing(terminal: Terminal) -> None:
    terminal.ok("policy", "set", "policy.hujson")
    Path("bad.hujson").write_text(POLICY.replace('"acls"', '"aclss"'))
    for verb in ("set", "check", "test", "diff"):
        complaint = terminal.fails("policy", verb, "bad.hujson")
        assert complaint.startswith('bad.hujson:4:3: unknown field "aclss"; did you mean "acls"?')
    Path("bad.hujson").write_text(POLICY.replace("tag:web:22", "tag:web:443"))
    for verb in ("set", "check", "test"):
        complaint = terminal.fails("policy", verb, "-f", "bad.hujson")
        assert "test(s) failed" in complaint
        assert "bad.hujson:7:13: tests[0]: alice@ -> tag:web:443: expected DENIED" in complaint
    error = json.loads(terminal.fails("policy", "set", "bad.hujson", "-o", "json"))
    assert "test(s) failed" in error["error"]
    assert error["mistakes"][0]["line"] == 7
    assert terminal.ok("policy", "get") == POLICY


@pytest.mark.usefixtures("folder")
def test_questions_are_answered_before_a_change(terminal: Terminal) -> None:
    assert terminal.ok("policy", "check", "policy.hujson") == "Policy is valid\n"
    assert terminal.json("policy", "check", "policy.hujson") == {"ok": True, "mistakes": []}
    assert "all 1 test(s) hold" in terminal.ok("policy", "test", "policy.hujson")
    assert "policy in force: no tests" in terminal.ok("policy", "test")
    out = terminal.ok("policy", "diff", "policy.hujson")
    assert "phone\n  - sees laptop\n  - sees web\n" in out
    out = terminal.ok("policy", "explain", "phone", "web:443")
    assert out == "phone -> web:443: allowed\n  by no acls and no grants: * -> *:*\n"
    out = terminal.ok("policy", "explain", "bob", "tag:web:443", "-f", "policy.hujson")
    assert out.startswith("phone -> web:443: denied\n  nearest acls[0] (line 5): alice@")
    terminal.ok("policy", "set", "policy.hujson")
    assert "no change for any of 3" in terminal.ok("policy", "diff", "policy.hujson")
    assert "all 1 test(s) hold" in terminal.ok("policy", "test")
    out = terminal.ok("policy", "explain", "alice", "web:443")
    assert "by acls[0] (line 5): alice@ -> tag:web:443" in out
    assert "tag:wob" in terminal.fails("policy", "explain", "alice", "tag:wob:443")


@pytest.mark.usefixtures("folder")
def test_role_counts_at_once(terminal: Terminal) -> None:
    Path("policy.hujson").write_text(
        '{"acls": [{"action": "accept", "src": ["autogroup:it-admin"], "dst": ["*:*"]}]}'
    )
    terminal.ok("policy", "set", "policy.hujson")
    question = ("policy", "explain", "phone", "laptop:22", "--exit-code")
    assert "phone -> laptop:22: denied" in terminal(*question)[1]
    terminal.ok("users", "set-role", "bob", "it-admin")
    assert "phone -> laptop:22: allowed" in terminal.ok(*question)
    assert "no node" in terminal.fails("policy", "explain", "autogroup:owner", "laptop")


@pytest.mark.usefixtures("folder")
def test_dump_answers_as_the_server_does(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a CI job says of a policy is what the server would."""
    terminal.ok("policy", "dump", "tailnet.json")
    assert json.loads(Path("tailnet.json").read_text()) == terminal.json("policy", "dump")
    Path("open.hujson").write_text("{}")
    terminal.ok("policy", "set", "open.hujson")
    questions = (
        ("check", "policy.hujson"),
        ("test", "policy.hujson"),
        ("diff", "policy.hujson", "--against", "open.hujson"),
        ("explain", "bob", "tag:web:443", "-f", "policy.hujson"),
    )
    forms = [(), ("-o", "json"), ("-o", "json-line"), ("-o", "yaml")]
    lines = [(*words, *form) for words in questions for form in forms]
    online = [terminal.ok("policy", *line) for line in lines]
    monkeypatch.setattr(terminal, "socket", Path("absent"))
    assert [terminal.ok("policy", *line, "--tailnet", "tailnet.json") for line in lines] == online


@pytest.mark.usefixtures("folder")
def test_policy_of_a_file_is_set_there(terminal: Terminal) -> None:
    source = PolicySource("file", Path("/etc/headwater/policy.hujson"))

    async def move(house: House) -> None:
        keep_elsewhere(house, source)

    terminal.inside(move)
    complaint = terminal.fails("policy", "set", "policy.hujson")
    assert "/etc/headwater/policy.hujson" in complaint
    assert "source: file /etc/headwater/policy.hujson" in terminal.ok("policy", "status")


def test_name_of_a_tailnet_is_not_taken_for_a_dump(terminal: Terminal) -> None:
    assert "acl policy not found" in terminal.fails("policy", "get", "--tailnet", "default")
    assert "no tailnet named 'other'" in terminal.fails("policy", "get", "--tailnet", "other")


PAGE = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
LINES = [
    line
    for block in re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
PAGE_POLICY = POLICY.replace("alice@", "alice@example.com")
PAGE_LOGINS = """{
  "tagOwners": {"tag:web": []},
  "acls": [
    {"action": "accept", "src": ["autogroup:member"], "dst": ["tag:web:22"]}],
  "ssh": [
    {"action": "accept", "src": ["autogroup:member"], "dst": ["tag:web"],
     "users": ["autogroup:nonroot"]},
    {"action": "check", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["root"],
     "checkPeriod": "1h"},
  ],
}
"""


@pytest.mark.usefixtures("folder")
def test_every_command_of_the_page_works(terminal: Terminal) -> None:
    terminal.inside(give_emails)
    Path("policy.hujson").write_text(PAGE_POLICY)
    Path("main.hujson").write_text("{}")
    Path("ssh.hujson").write_text(PAGE_LOGINS)
    verbs = set()
    for line in LINES:
        program, noun, verb, *rest = shlex.split(line)
        assert program == "headwater"
        terminal.ok(noun, verb, *rest)
        verbs |= {verb} if noun == "policy" else set()
    assert terminal.ok("policy", "get") == PAGE_POLICY
    assert verbs == set(policy.commands), "the page shows every command"
    (shown,) = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for block in shown.split("$ headwater ")[1:]:
        line, _, said = block.partition("\n")
        assert terminal.ok(*shlex.split(line)) == said


async def give_emails(house: House) -> None:
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        for user in list(edit.users.values()):
            edit.put(replace(user, email=f"{user.name}@example.com"))
