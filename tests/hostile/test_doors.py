"""Every attack, one after the other, on one server; whoever lives beside it must notice nothing.

The server, its bystanders and each attacker are processes of their own. After each attack: something
was counted, the open files are back where they were, memory is bounded, the bystanders' sessions
stand, changes reached them within a second and their packets flowed. In the end the log names no
error and the server stops at once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import attacks
from tests.hostile.bystanders import Bystanders, Life
from tests.hostile.victim import Victim, allow_open_files
from tests.support.pace import patience

pytestmark = pytest.mark.system

WITHIN_S = 1.0
"""What bystanders may wait for a change, a packet or an answer."""
GROWTH_BYTES = 96 << 20
"""What the server may grow above where it stood with its bystanders: 32 MiB for unfinished requests
of strangers, some 35 KB for each of 1,400 half-open connections, and what the allocator keeps."""
NEW_FILES = 6
"""Bystanders come anew now and then, so the number of open files is never quite the same."""
ATTACK_S = 60.0
STOP_S = 3.0
LEAST = 2
"""Changes and answers that make a life; some attacks are over at once."""

FORBIDDEN = ("let in", "answered", "accepted", "told a map", "left open", "not closed")
"""What no attacker of these may see; some words are fine for others."""
FINE = {
    "smuggled_requests": {"left open"},  # an empty line before a request is no request yet
    "heads_without_end": {"left open"},
    "strangers_who_register": {"answered"},
    "strangers_who_poll": {"answered"},
    "members_who_lie": {"answered"},
}


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """A server that all attacks are made on."""
    allow_open_files()
    directory: Path = tmp_path_factory.mktemp("victim")
    server = Victim(directory)
    yield server
    assert not server.log_complaints()
    assert server.stop() < patience(STOP_S)
    assert not server.log_complaints()


@pytest.fixture(scope="module")
def bystanders(victim: Victim) -> Iterator[Bystanders]:
    """Well-behaved clients of it."""
    crowd = Bystanders(victim.target)
    yield crowd
    crowd.leave()


@pytest.fixture(scope="module")
def calm_bytes(victim: Victim, bystanders: Bystanders) -> int:
    """What the server needs before anybody attacks it."""
    bystanders.report()
    return victim.resident_bytes


@pytest.mark.parametrize("name", sorted(attacks.load()))
def test_attack_is_counted_and_bystanders_notice_nothing(
    name: str, victim: Victim, bystanders: Bystanders, calm_bytes: int
) -> None:
    attack = attacks.ATTACKS[name]
    files, before, complaints = victim.files, victim.counters(), len(victim.log_complaints())
    victim.forget_peak()
    bystanders.mark()
    seen = carry_out(name, victim)
    life = bystanders.report_of_life(LEAST)
    after = victim.counters()
    peak = victim.peak_bytes - calm_bytes
    print(f"{name}: grew by {peak >> 20} MiB, {seen}, {life}")
    check_life(life)
    assert not (seen.keys() & set(FORBIDDEN)) - FINE.get(name, set()), seen
    assert any(
        value > before.get(counter, 0.0)
        for counter, value in after.items()
        if counter.startswith(attack.counted)
    ), f"nothing of {attack.counted} was counted"
    assert peak < GROWTH_BYTES
    assert victim.wait_for_files(files + NEW_FILES) <= files + NEW_FILES
    assert not victim.log_complaints()[complaints:]


def carry_out(name: str, victim: Victim) -> dict[str, int]:
    """Run one attack in a process; give what it saw."""
    command = [sys.executable, "-m", "tests.hostile.attacks", name, victim.target.text()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ATTACK_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    seen: dict[str, int] = json.loads(done.stdout)
    return seen


def check_life(life: Life) -> None:
    """See that the bystanders had a normal life."""
    assert not life.failures
    assert (life.sessions_lost, life.unheard, life.relay_lost, life.packets_lost) == (0, 0, 0, 0)
    assert life.packets
    within_s = patience(WITHIN_S)
    assert life.slowest_change_s < within_s
    assert life.slowest_packet_s < within_s
    assert life.slowest_answer_s < within_s
