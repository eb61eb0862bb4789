"""``headwater policy`` without any server: in a CI job, with a dumped tailnet."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.root import run

POLICY = """{
  // who may do what
  "tagOwners": {"tag:web": ["alice@example.com"]},
  "hosts": {"printer": "10.1.0.9"},
  "acls": [
    {"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web:443"]},
    {"action": "accept", "src": ["autogroup:member"], "dst": ["printer:631"]},
  ],
  "ssh": [
    {
      "action": "check",
      "src": ["alice@example.com"],
      "dst": ["tag:web"],
      "users": ["root", "autogroup:nonroot"],
    },
  ],
  "tests": [{"src": "alice@example.com", "accept": ["tag:web:443"], "deny": ["tag:web:22"]}],
}
"""
TAILNET = {
    "version": 1,
    "users": [
        {"id": 1, "name": "alice", "email": "alice@example.com"},
        {"id": 2, "name": "bob", "email": "bob@example.com"},
    ],
    "nodes": [
        {"id": 1, "name": "laptop", "user": 1, "addresses": ["100.64.0.1", "fd7a:115c:a1e0::1"]},
        {"id": 2, "name": "phone", "user": 2, "addresses": ["100.64.0.2"]},
        {"id": 3, "name": "web-1", "tags": ["tag:web"], "addresses": ["100.64.0.3"]},
        {
            "id": 4,
            "name": "router",
            "user": 2,
            "addresses": ["100.64.0.4"],
            "offered": ["10.1.0.0/16"],
            "approved": ["10.1.0.0/16"],
        },
    ],
}


class Desk:
    """A folder with a policy and a tailnet, and the command line in it."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: str, code: int = 0, dump: bool = True) -> tuple[str, str]:
        """Run a policy command that must end with ``code``; give output and complaints."""
        self._capture.readouterr()
        tailnet = ("--tailnet", "tailnet.json") if dump else ()
        got = run(["policy", *arguments, *tailnet])
        said = self._capture.readouterr()
        assert got == code, said
        return said.out, said.err

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "-o", "json", code=code)[0])


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    monkeypatch.chdir(tmp_path)
    Path("policy.hujson").write_text(POLICY)
    Path("tailnet.json").write_text(json.dumps(TAILNET))
    return Desk(capsys)


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def give(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    return give


# ── check and test ──────────────────────────────────────────────────────────────────────────────


def test_good_policy_is_fine(desk: Desk, stdin: Callable[[str], None]) -> None:
    assert desk("check", "policy.hujson") == ("Policy is valid\n", "")
    assert desk("check", "-f", "policy.hujson") == ("Policy is valid\n", "")
    assert desk.json("check", "policy.hujson") == {"ok": True, "mistakes": []}
    stdin(POLICY)
    assert desk("check", "-") == ("Policy is valid\n", "")


def test_words_that_match_no_user_are_noted(desk: Desk) -> None:
    Path("policy.hujson").write_text(
        POLICY.replace('["autogroup:member"]', '["alcie@example.com"]', 1)
    )
    out, complaint = desk("check", "policy.hujson")
    assert out == "Policy is valid\n"
    place, _, words = complaint.partition(" note: ")
    assert place.startswith("policy.hujson:")
    assert 'did you mean "alice@example.com"?' in words
    (note,) = desk.json("check", "policy.hujson")["notes"]
    assert f"policy.hujson:{note['line']}:{note['column']}:" == place


def test_every_mistake_has_its_place(desk: Desk) -> None:
    Path("policy.hujson").write_text('{\n  "aclss": [],\n  "acls": [{"action": "deny"}],\n}')
    _, complaint = desk("check", "policy.hujson", code=1)
    first, *rest = complaint.splitlines()
    assert first == 'policy.hujson:2:3: unknown field "aclss"; did you mean "acls"?'
    assert all(line.startswith("policy.hujson:3:") for line in rest)
    assert rest
    answer = desk.json("check", "policy.hujson", code=1)
    assert answer["ok"] is False
    assert answer["mistakes"][0] == {
        "file": "policy.hujson",
        "line": 2,
        "column": 3,
        "message": 'unknown field "aclss"; did you mean "acls"?',
    }


def test_text_that_is_no_hujson_is_refused_in_place(desk: Desk) -> None:
    Path("policy.hujson").write_text('{"acls": [}')
    for command in (("check",), ("test",), ("fmt", "--check")):
        _, complaint = desk(*command, "policy.hujson", code=1)
        assert complaint.startswith("policy.hujson:1:11: ")
    Path("policy.hujson").write_bytes(b'{\n"\xff": 1}')
    assert "policy.hujson:2: " in desk("check", "policy.hujson", code=1)[1]


def test_failing_tests_say_which_claim_does_not_hold(desk: Desk) -> None:
    Path("policy.hujson").write_text(POLICY.replace("tag:web:22", "printer:631"))
    for command in ("check", "test"):
        _, complaint = desk(command, "policy.hujson", code=1)
        assert "test(s) failed" in complaint
        assert "policy.hujson:17:13: tests[0]: alice@example.com -> printer:631: exp" in complaint
    answer = desk.json("test", "policy.hujson", code=1)
    assert (answer["ok"], answer["tests"], answer["mistakes"][0]["line"]) == (False, 1, 17)


def test_tests_that_hold_are_counted(desk: Desk) -> None:
    assert desk("test", "policy.hujson")[0] == "policy.hujson: all 1 test(s) hold\n"
    assert desk.json("test", "policy.hujson") == {"ok": True, "tests": 1, "mistakes": []}
    Path("policy.hujson").write_text("{}")
    assert desk("test", "policy.hujson")[0] == "policy.hujson: no tests\n"


def test_text_alone_can_be_read_without_a_tailnet(desk: Desk) -> None:
    Path("policy.hujson").write_text(
        '{"acls": [{"action": "accept", "src": ["user:*@example.com"], "dst": ["*:*"]}],'
        ' "tests": [{"src": "alice@example.com", "deny": ["alice@example.com:22"]}]}'
    )
    words = ("check", "--offline", "policy.hujson")
    assert "need the tailnet" in desk(*words, "--domain", "Example.com", dump=False)[0]
    assert "example.com" in desk(*words, code=1, dump=False)[1]


def test_empty_file_is_refused(desk: Desk) -> None:
    Path("policy.hujson").write_text("\n")
    for words in (("check",), ("test",), ("diff", "--against", "policy.hujson")):
        _, complaint = desk(*words, "policy.hujson", code=1)
        assert complaint.startswith("policy.hujson:1:1: the text is empty")
    desk("check", "--offline", "policy.hujson", code=1, dump=False)


# ── fmt ─────────────────────────────────────────────────────────────────────────────────────────


def test_formatting_is_checked_shown_and_written(desk: Desk, stdin: Callable[[str], None]) -> None:
    ugly = POLICY.replace("  ", "\t").replace("},\n}", "}}")
    Path("ugly.hujson").write_text(ugly)
    Path("ugly.hujson").chmod(0o640)
    desk("fmt", "--check", "policy.hujson", dump=False)
    out, _ = desk("fmt", "--check", "policy.hujson", "ugly.hujson", code=1, dump=False)
    assert out == "ugly.hujson: not formatted\n"
    assert desk("fmt", "ugly.hujson", dump=False)[0] == POLICY
    stdin(ugly)
    assert desk("fmt", dump=False)[0] == POLICY
    assert desk("fmt", "--write", "ugly.hujson", dump=False)[0] == "ugly.hujson: formatted\n"
    assert Path("ugly.hujson").read_text() == POLICY
    assert Path("ugly.hujson").stat().st_mode & 0o777 == 0o640
    assert desk("fmt", "-w", "ugly.hujson", dump=False) == ("", "")
    assert sorted(path.name for path in Path.cwd().iterdir()) == [
        "policy.hujson",
        "tailnet.json",
        "ugly.hujson",
    ]


# ── diff ────────────────────────────────────────────────────────────────────────────────────────


def test_diff_names_the_nodes_and_what_changes(desk: Desk) -> None:
    Path("new.hujson").write_text(
        POLICY.replace('"src": ["alice@example.com"], "dst"', '"src": ["bob@example.com"], "dst"')
    )
    out, _ = desk("diff", "new.hujson", "--against", "policy.hujson")
    lines = out.splitlines()
    assert {"laptop", "phone", "web-1"} <= set(lines)
    assert "  + sees web-1" in lines
    assert "  - sees web-1" in lines
    assert lines[-1] == "4 of 4 node(s) would change"
    desk("diff", "new.hujson", "--against", "policy.hujson", "--exit-code", code=1)
    same = ("diff", "policy.hujson", "--against", "policy.hujson", "--exit-code")
    assert desk(*same)[0] == "no change for any of 4 node(s)\n"
    answer = desk.json("diff", "new.hujson", "--against", "policy.hujson")
    assert answer["nodes"] == 4
    assert [change["node"] for change in answer["changes"]] == [
        "laptop",
        "phone",
        "web-1",
        "router",
    ]
    assert answer["changes"][1]["peersGained"] == ["web-1"]


def test_diff_names_routes_that_would_be_approved(desk: Desk) -> None:
    tailnet = json.loads(json.dumps(TAILNET))
    tailnet["nodes"][3]["approved"] = []
    Path("tailnet.json").write_text(json.dumps(tailnet))
    Path("new.hujson").write_text(
        '{"autoApprovers": {"routes": {"10.0.0.0/8": ["bob@example.com"]}}}'
    )
    Path("old.hujson").write_text("{}")
    out, _ = desk("diff", "new.hujson", "--against", "old.hujson")
    assert out == "router\n  + approved route 10.1.0.0/16\n1 of 4 node(s) would change\n"


def test_mistakes_of_either_policy_name_their_file(desk: Desk) -> None:
    Path("bad.hujson").write_text('{"x": 1}')
    for words in (
        ("bad.hujson", "--against", "policy.hujson"),
        ("policy.hujson", "--against", "bad.hujson"),
    ):
        assert desk("diff", *words, code=1)[1].startswith("bad.hujson:1:2: ")
    error = json.loads(desk("diff", *words, "-o", "json", code=1)[1])
    assert error["mistakes"][0]["column"] == 2


# ── explain ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (
            ("laptop", "web-1:443"),
            [
                "laptop -> web-1:443: allowed",
                "  by acls[0] (line 6): alice@example.com -> tag:web:443",
            ],
        ),
        (
            ("alice", "tag:web:22"),
            [
                "laptop -> web-1:22: denied",
                "  nearest acls[0] (line 6): alice@example.com -> tag:web:443: another port",
                "  nearest acls[1] (line 7): autogroup:member -> printer:631: "
                "the destination is not in dst",
                "  SSH: check (good for 12h) as any user by ssh[0] (line 10): "
                "alice@example.com -> tag:web as root, autogroup:nonroot",
                "  SSH: but no rule lets packets to port 22 through, so nobody gets that far",
            ],
        ),
        (
            ("phone", "web-1", "--user", "root"),
            [
                "phone -> web-1: denied",
                "  nearest acls[1] (line 7): autogroup:member -> printer:631: "
                "the destination is not in dst",
                "  nearest acls[0] (line 6): alice@example.com -> tag:web:443: "
                "the source is not in src",
                "  SSH: no rule lets the source log in as root",
                "  SSH: nearest ssh[0] (line 10): alice@example.com -> tag:web as root, "
                "autogroup:nonroot: the source is not in src",
            ],
        ),
        (
            ("laptop", "10.1.7.7", "--user", "root"),
            [
                "laptop -> 10.1.7.7: denied",
                "  nearest acls[0] (line 6): alice@example.com -> tag:web:443: "
                "the destination is not in dst",
                "  nearest acls[1] (line 7): autogroup:member -> printer:631: "
                "the destination is not in dst",
                "  by way of router, which routes 10.1.0.0/16",
                "  SSH: only nodes log in, and only at nodes",
            ],
        ),
        (
            ("phone", "printer:631"),
            [
                "phone -> printer:631: allowed",
                "  by acls[1] (line 7): autogroup:member -> printer:631",
                "  by way of router, which routes 10.1.0.0/16",
            ],
        ),
        (
            ("bob@example.com", "web-1:443", "--proto", "udp"),
            [
                "phone -> web-1:443: denied",
                "  nearest acls[1] (line 7): autogroup:member -> printer:631: "
                "the destination is not in dst",
                "  nearest acls[0] (line 6): alice@example.com -> tag:web:443: "
                "the source is not in src",
                "router -> web-1:443: denied",
                "  nearest acls[1] (line 7): autogroup:member -> printer:631: "
                "the destination is not in dst",
                "  nearest acls[0] (line 6): alice@example.com -> tag:web:443: "
                "the source is not in src",
            ],
        ),
        (
            ("web-1", "laptop:22"),
            [
                "web-1 -> laptop:22: denied",
                "  no rule comes near",
                "  SSH: no rule lets the source log in",
            ],
        ),
        (
            ("laptop", "192.168.7.7"),
            [
                "laptop -> 192.168.7.7: denied",
                "  nearest acls[0] (line 6): alice@example.com -> tag:web:443: "
                "the destination is not in dst",
                "  nearest acls[1] (line 7): autogroup:member -> printer:631: "
                "the destination is not in dst",
                "  no approved route that the source may use leads there",
            ],
        ),
    ],
)
def test_explanations_name_rules_routes_and_logins(
    desk: Desk, question: tuple[str, ...], answer: list[str]
) -> None:
    assert desk("explain", *question, "-f", "policy.hujson")[0].splitlines() == answer


def test_explanation_says_which_condition_is_not_met(desk: Desk) -> None:
    Path("new.hujson").write_text("""{
      "postures": {
        "posture:mac": ["node:os IN ['macos', 'ios']", "node:tsVersion >= '1.60'"],
        "posture:trusted": ["custom:level >= 3", "custom:managed == true", "ip:country == 'DE'"],
      },
      "acls": [
        {"action": "accept", "src": ["autogroup:member"], "dst": ["100.64.0.3:443"],
         "srcPosture": ["posture:mac", "posture:trusted"]},
      ],
    }""")
    tailnet = json.loads(json.dumps(TAILNET))
    given = {"custom:level": 2.5, "custom:managed": False, "ip:country": "DE"}
    tailnet["nodes"][0] |= {"os": "linux", "version": "1.90.0", "attributes": given}
    Path("tailnet.json").write_text(json.dumps(tailnet))
    out, _ = desk("explain", "laptop", "web-1:443", "-f", "new.hujson")
    assert out.splitlines()[1].endswith(
        "the source is in src but not in the posture: "
        "posture:mac wants node:os IN macos, ios, it is linux; "
        "posture:trusted wants custom:level >= 3, it is 2.5; "
        "posture:trusted wants custom:managed == true, it is false"
    )


LOGINS = """{
  "tagOwners": {"tag:web": []},
  "postures": {"posture:mac": ["node:os == 'macos'"]},
  "acls": [{"action": "accept", "src": ["autogroup:member"], "dst": ["tag:web:22"]}],
  "ssh": [
    {"action": "accept", "src": ["autogroup:member"], "dst": ["tag:web"],
     "users": ["autogroup:nonroot"], "recorder": ["tag:web"], "enforceRecorder": true},
    {"action": "check", "src": ["bob@example.com"], "dst": ["tag:web"],
     "users": ["root"], "checkPeriod": "1h30m"},
    {"action": "check", "src": ["alice@example.com"], "dst": ["tag:web"],
     "users": ["root"], "checkPeriod": "always", "srcPosture": ["posture:mac"]},
  ],
}
"""


def test_explanation_names_the_rules_that_let_in(desk: Desk) -> None:
    Path("new.hujson").write_text(LOGINS)
    question = ("explain", "phone", "web-1:22", "-f", "new.hujson")
    assert desk(*question)[0].splitlines()[2:] == [
        "  SSH: check (good for 1h30m) as root by ssh[1] (line 8): "
        "bob@example.com -> tag:web as root",
        "  SSH: accept as any user but root by ssh[0] (line 6): autogroup:member -> tag:web as "
        "autogroup:nonroot; recorded at web-1 or refused",
    ]
    answer = desk.json(*question)
    assert (answer["user"], answer["allowed"]) == ("", True)
    assert answer["pairs"][0]["ssh"][1] == {
        "action": "accept",
        "users": ["*"],
        "besides": ["root"],
        "section": "ssh",
        "index": 0,
        "line": 6,
        "rule": "autogroup:member -> tag:web as autogroup:nonroot",
        "checkPeriod": "",
        "recorders": ["web-1"],
        "enforceRecorder": True,
        "ownDevices": False,
    }


def test_many_rules_for_ssh_are_counted(desk: Desk) -> None:
    rules = [
        {"action": "accept", "src": ["autogroup:member"], "dst": ["tag:web"], "users": users}
        for users in [[f"a{n:02}" for n in range(20)], *([f"b{n}"] for n in range(60))]
    ]
    Path("new.hujson").write_text(json.dumps({"tagOwners": {"tag:web": []}, "ssh": rules}))
    lines = desk("explain", "phone", "web-1", "-f", "new.hujson")[0].splitlines()
    assert lines[2].startswith(
        f"  SSH: accept as {', '.join(f'a{n:02}' for n in range(12))} and 8 "
    )
    assert lines[-1] == "  SSH: … and by 11 more rule(s): ask with --user"
    answer = desk.json("explain", "phone", "web-1", "-f", "new.hujson")["pairs"][0]
    assert (len(answer["ssh"]), answer["sshMore"]) == (50, 11)
    out, _ = desk("explain", "phone", "web-1", "-f", "new.hujson", "--user", "b59")
    assert out.splitlines()[-1].startswith("  SSH: accept as b59 by ssh[60]")


def test_one_user_can_be_asked_about(desk: Desk) -> None:
    Path("new.hujson").write_text(LOGINS)
    question = ("explain", "laptop", "web-1", "-f", "new.hujson", "--user")
    out, _ = desk(*question, "root", "--exit-code", code=1)
    lines = out.splitlines()[1:]
    assert lines[0].startswith("  by acls[0]")
    assert lines[1] == "  SSH: no rule lets the source log in as root"
    assert lines[2].endswith("as autogroup:nonroot: the user is not in users")
    assert lines[3].endswith(
        "as root: the source is in src but not in the posture: "
        "posture:mac wants node:os == macos, it is not set"
    )
    assert lines[4].endswith("bob@example.com -> tag:web as root: the source is not in src")
    answer = desk.json(*question, "root")
    assert (answer["user"], answer["allowed"]) == ("root", False)
    assert answer["pairs"][0]["allowed"] is True
    assert [each["index"] for each in answer["pairs"][0]["sshNearest"]] == [0, 2, 1]
    out, _ = desk(*question, "web", "--exit-code")
    assert "  SSH: accept as web by ssh[0]" in out


def test_explanation_names_capabilities_and_exit_nodes(desk: Desk) -> None:
    Path("new.hujson").write_text("""{
      "grants": [
        {"src": ["alice@example.com"], "dst": ["100.64.0.3"],
         "app": {"tailscale.com/cap/drive": [{"shares": ["*"]}]}},
        {"src": ["*"], "dst": ["100.64.0.2"], "app": {"example.com/x": []}},
        {"src": ["autogroup:member"], "dst": ["autogroup:internet"], "ip": ["*"]},
      ],
    }""")
    tailnet = json.loads(json.dumps(TAILNET))
    for node in tailnet["nodes"][2:]:
        node["offered"] = node["approved"] = ["0.0.0.0/0", "::/0"]
    Path("tailnet.json").write_text(json.dumps(tailnet))
    out, _ = desk("explain", "laptop", "web-1", "-f", "new.hujson")
    assert "  with the capabilities tailscale.com/cap/drive\n" in out
    out, _ = desk("explain", "laptop", "phone", "-f", "new.hujson")
    assert "  with the capabilities example.com/x\n" in out
    assert "capabilities" not in desk("explain", "phone", "web-1", "-f", "new.hujson")[0]
    out, _ = desk("explain", "laptop", "1.1.1.1:443", "-f", "new.hujson")
    assert "allowed" in out
    assert "  by way of web-1 or router, which routes 0.0.0.0/0\n" in out


def test_words_for_many_nodes_are_answered_for_each(desk: Desk) -> None:
    answer = desk.json("explain", "autogroup:member", "autogroup:member", "-f", "policy.hujson")
    pairs = [(pair["src"], pair["dst"]) for pair in answer["pairs"]]
    names = ("laptop", "phone", "router")
    assert pairs == [(a, b) for a in names for b in names if a != b]
    assert answer["allowed"] is False
    desk("explain", "laptop", "phone", "-f", "policy.hujson", "--exit-code", code=1)
    desk("explain", "laptop", "web-1:443", "-f", "policy.hujson", "--exit-code")


def test_long_answers_are_cut_and_counted(desk: Desk) -> None:
    nodes = [
        {"id": n, "name": f"n{n}", "user": 1, "addresses": [f"100.64.0.{n}"]} for n in range(1, 9)
    ]
    Path("tailnet.json").write_text(json.dumps({**TAILNET, "nodes": nodes}))
    out, _ = desk("explain", "alice", "alice", "-f", "policy.hujson")
    assert out.count("denied") == 20
    assert out.endswith("… and 36 more pair(s): name nodes to see them\n")
    users = [{"id": n, "name": f"u{n}", "email": f"u{n}@example.com"} for n in range(1, 61)]
    nodes = [
        {"id": n, "name": f"n{n}", "user": n, "addresses": [f"100.64.0.{n}"]} for n in range(1, 61)
    ]
    Path("tailnet.json").write_text(json.dumps({"version": 1, "users": users, "nodes": nodes}))
    Path("old.hujson").write_text('{"acls": []}')
    Path("new.hujson").write_text("{}")
    out, _ = desk("diff", "new.hujson", "--against", "old.hujson")
    first = out.split("\nn2\n")[0].splitlines()
    assert first[1:41] == [
        f"  + sees {name}" for name in sorted(f"n{n}" for n in range(2, 61))[:40]
    ]
    assert first[41:] == ["  + lets in the whole tailnet to * port *", "  … and 19 more"]


@pytest.mark.parametrize(
    ("src", "dst", "allowed"),
    [
        ("100.64.0.1", "100.64.0.3:443", True),
        ("fd7a:115c:a1e0::1", "printer:631", None),
        ("phone", "[fd7a:115c:a1e0::1]:80", None),
        ("laptop", "100.64.0.2", False),
    ],
)
def test_addresses_may_be_asked_about(desk: Desk, src: str, dst: str, allowed: bool | None) -> None:
    question = ("explain", src, dst, "-f", "policy.hujson")
    if allowed is None:
        assert "family" in desk(*question, code=1)[1]
    else:
        assert desk.json(*question)["allowed"] is allowed


# ── refusals ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("check",), 1, "FILE"),
        (("check", "policy.hujson", "-f", "policy.hujson"), 1, "FILE"),
        (("check", "absent.hujson"), 1, "absent.hujson: No such file"),
        (("test",), 1, "FILE"),
        (("diff", "policy.hujson"), 1, "--against"),
        (("diff", "policy.hujson", "--against", "absent"), 1, "absent"),
        (("explain", "laptop", "phone"), 1, "--file"),
        (("explain", "lapto", "phone", "-f", "policy.hujson"), 1, 'did you mean "laptop"?'),
        (("explain", "laptop", "tag:nix", "-f", "policy.hujson"), 1, "tag:nix has no node"),
        (("explain", "laptop", "autogroup:nix", "-f", "policy.hujson"), 1, "autogroup:nix"),
        (("explain", "laptop", "laptop:22", "-f", "policy.hujson"), 1, "same node"),
        (("explain", "laptop", "phone:22-23", "-f", "policy.hujson"), 1, "one port"),
        (("explain", "laptop", "phone", "--proto", "nix", "-f", "policy.hujson"), 1, "nix"),
        (("explain", "laptop", "phone", "--user", "*", "-f", "policy.hujson"), 1, "one local user"),
        (("explain", "laptop", "phone:80", "--user", "a", "-f", "policy.hujson"), 1, "port"),
        (("explain", "laptop"), 1, "DST"),
        (("fmt", "--write"), 1, "--write"),
        (("fmt", "--write", "--check", "policy.hujson"), 1, "--write"),
        (("fmt", "a", "b"), 1, "--check"),
        (("get",), 1, "server"),
        (("set", "policy.hujson"), 1, "server"),
    ],
)
def test_refusals_name_the_way_out(
    desk: Desk, arguments: tuple[str, ...], code: int, says: str
) -> None:
    assert says in desk(*arguments, code=code)[1]


def test_what_is_no_dump_is_refused(desk: Desk) -> None:
    Path("tailnet.json").write_text('{"version": 1, "nodes": [{"id": 1}]}')
    assert "policy dump" in desk("check", "policy.hujson", code=1)[1]
    Path("tailnet.json").unlink()
    assert "tailnet.json: No such file" in desk("check", "policy.hujson", code=1)[1]


def test_question_without_server_and_dump_says_how(desk: Desk) -> None:
    _, complaint = desk("check", "policy.hujson", "--socket", "absent", code=3, dump=False)
    assert "--tailnet DUMP.json" in complaint


def test_help_of_policy_imports_no_engine() -> None:
    code = (
        "import sys; from appliance.cli.root import run; run(['policy', 'explain', '--help']);"
        "print([m for m in sys.modules if m.startswith('appliance.policy') or m == 'msgspec'])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
