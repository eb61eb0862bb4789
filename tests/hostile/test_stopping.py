"""A server that is told to stop while it is under attack stops at once, and says nothing bad."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.hostile.victim import Victim, allow_open_files
from tests.support.pace import patience

pytestmark = pytest.mark.system

ATTACKS = (
    "two_thousand_half_open",
    "receivers_that_never_read",
    "questions_without_reading",
    "members_who_never_read",
    "strangers_who_stay",
)
STOP_S = 3.0
BUSY_FILES = 500
"""Open at once, by five attackers: how many more it becomes depends on who gets the processor."""
BUSY_S = 60.0


def test_server_stops_under_attack(tmp_path: Path) -> None:
    allow_open_files()
    victim = Victim(tmp_path)
    command = [sys.executable, "-m", "tests.hostile.attacks"]
    attackers = [
        subprocess.Popen(
            [*command, name, victim.target.text(), "--seconds", "30"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in ATTACKS
    ]
    try:
        deadline = time.monotonic() + BUSY_S
        while victim.files < BUSY_FILES and time.monotonic() < deadline:
            time.sleep(0.05)
        assert victim.files >= BUSY_FILES
    finally:
        took = victim.stop()
        for attacker in attackers:
            attacker.kill()
            attacker.wait()
    print(f"stopped in {took:.2f} s")
    assert took < patience(STOP_S)
    assert not victim.log_complaints()
    assert "stopped" in victim.log.read_text().splitlines()[-1]
