from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from headwater_deploy import command, deploy, run_tool

GIVEN: dict[str, Any] = {
    "tool": "/opt/headwater/headwater-release",
    "version": "1.0.0",
    "manifest": {"config": "/etc/headwater/config.json"},
    "files": {"/etc/headwater/config.json": {"text": "{}"}},
    "links": {},
    "secrets": {"/etc/headwater/secrets/key.pem": "hush"},
    "timeout": 60,
    "settle": 3,
    "prove": 60,
    "came": "",
}


def answering(answer: object, asked: list[tuple[list[str], str]]) -> Any:
    def run(arguments: list[str], given: str) -> tuple[str, str]:
        asked.append((arguments, given))
        return json.dumps(answer) if answer else "", "Traceback: no\n"

    return run


@pytest.mark.parametrize(
    ("result", "changed"),
    [
        ("unchanged", False),
        ("refused", False),
        ("planned", True),
        ("applied", True),
        ("rolled-back", True),
        ("failed", True),
    ],
)
def test_what_happened_is_reported(result: str, *, changed: bool) -> None:
    answer = {"result": result, "version": "1.0.0", "reason": "", "diff": []}
    assert deploy(GIVEN, answering(answer, []), dry=False)["changed"] is changed


def test_secrets_go_by_standard_input_and_not_by_the_command_line() -> None:
    asked: list[tuple[list[str], str]] = []
    deploy(GIVEN, answering({"result": "unchanged"}, asked), dry=False)
    ((arguments, given),) = asked
    assert "hush" not in " ".join(arguments)
    assert json.loads(given)["secrets"] == GIVEN["secrets"]


def test_check_mode_plans() -> None:
    assert "plan" in command(GIVEN, dry=True)
    assert "apply" in command(GIVEN, dry=False)


def test_a_program_that_falls_over_is_no_success() -> None:
    answer = deploy(GIVEN, answering(None, []), dry=False)
    assert answer["result"] == "refused"
    assert answer["reason"] == "Traceback: no"


def test_the_program_runs_in_a_session_of_its_own() -> None:
    code = "import os, sys; print(sys.stdin.read(), os.getsid(0) == os.getpid())"
    assert run_tool([sys.executable, "-c", code], "given") == ("given True\n", "")
