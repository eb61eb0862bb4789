"""``headwater policy`` with a real server, and without it in its own database."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.root import run
from tests.cli.test_serve import headwater, write_site

FLAGS = (
    "--bypass-server-and-access-database-directly",
    "--bypass-grpc-and-access-database-directly",
)
FLAG = FLAGS[0]
CLOSED = '{"acls": []}\n'
OPEN = "{}\n"
FAILING = '{"tests": [{"src": "alice@", "deny": ["alice@:22"]}]}\n'


class Machine:
    """A site file with its server, and the command line beside it."""

    def __init__(self, home: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.site = write_site(home)
        self._capture = capture
        for name, text in (("closed", CLOSED), ("open", OPEN), ("failing", FAILING)):
            (home / f"{name}.hujson").write_text(text)

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command line that must end with ``code``; give what it said."""
        self._capture.readouterr()
        got = run(["-c", str(self.site), *arguments])
        said = self._capture.readouterr()
        assert got == code, said
        return said.err if code else said.out

    def file(self, name: str) -> str:
        return str(self.home / f"{name}.hujson")


@pytest.fixture
def machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Machine:
    return Machine(tmp_path, capsys)


def test_policy_is_set_with_the_server_and_without(machine: Machine) -> None:
    assert "start the server once" in machine("policy", "get", FLAG, code=1)
    with headwater("serve", "-c", str(machine.site)):
        machine("users", "create", "alice")
        assert machine("policy", "set", machine.file("closed")) == "Policy updated.\n"
        assert machine("policy", "get") == CLOSED
        for words in (("get",), ("set", machine.file("open")), ("check", machine.file("open"))):
            complaint = machine("policy", *words, FLAG, code=1)
            assert "leave the flag out, or stop the server" in complaint
        complaint = machine("policy", "set", machine.file("failing"), code=1)
        assert "test(s) failed" in complaint
    machine("policy", "get", code=3)
    for flag in FLAGS:
        assert machine("policy", "get", flag) == CLOSED
    assert "Policy is valid" in machine("policy", "check", machine.file("open"), FLAG)
    for verb in ("check", "set"):
        complaint = machine("policy", verb, "-f", machine.file("failing"), FLAG, code=1)
        assert "test(s) failed" in complaint
        assert "failing.hujson:1:12: tests[0]: alice@ -> alice@:22" in complaint
    assert machine("policy", "get", FLAG) == CLOSED
    assert machine("policy", "set", "-f", machine.file("open"), FLAG) == "Policy updated.\n"
    with headwater("serve", "-c", str(machine.site)):
        assert machine("policy", "get") == OPEN
        status = json.loads(machine("policy", "status", "-o", "json"))
        assert (status["by"], status["trouble"]) == ("local:database", "")


def test_policy_of_a_file_is_set_there(machine: Machine) -> None:
    path = machine.home / "policy.hujson"
    path.write_text(CLOSED)
    write_site(machine.home, tailnet={"policy": {"mode": "file", "path": str(path)}})
    with headwater("serve", "-c", str(machine.site)):
        assert machine("policy", "get") == CLOSED
        assert f"source: file {path}" in machine("policy", "status")
        assert str(path) in machine("policy", "set", machine.file("open"), code=1)
        assert "no change" in machine("policy", "diff", str(path))
    assert str(path) in machine("policy", "set", machine.file("open"), FLAG, code=1)
    assert machine("policy", "get", FLAG) == CLOSED


def test_empty_database_says_so(machine: Machine) -> None:
    with headwater("serve", "-c", str(machine.site)):
        assert "acl policy not found" in machine("policy", "get", code=1)
    assert "acl policy not found" in machine("policy", "get", FLAG, code=1)
    assert "no tailnet named 'x'" in machine("policy", "get", FLAG, "--tailnet", "x", code=1)


def test_database_of_another_user_is_left_alone(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with headwater("serve", "-c", str(machine.site)):
        pass
    before = _files(machine.home / "state")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert "sudo -u" in machine("policy", "set", machine.file("open"), FLAG, code=1)
    assert _files(machine.home / "state") == before


def _files(folder: Path) -> dict[str, Any]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
