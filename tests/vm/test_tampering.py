"""The choice of changes, without a machine."""

from __future__ import annotations

import random
import subprocess

from ansible_tampering.tampering import KINDS, Change, Target, choose

TARGET = Target(
    ("/etc/headwater/config.json", "/etc/headwater/firewall.nft"),
    ("headwater.socket",),
    ("headwater.service",),
    ("/etc/headwater/secrets/mesh-key",),
)


def changes(seed: int, count: int) -> list[Change]:
    rng = random.Random(seed)
    return [choose(rng, TARGET) for _ in range(count)]


def test_the_same_seed_makes_the_same_changes() -> None:
    assert changes(3, 40) == changes(3, 40)
    assert changes(3, 40) != changes(4, 40)


def test_each_kind_is_a_command_that_a_shell_can_read() -> None:
    for kind in KINDS:
        change = kind(random.Random(1), TARGET)
        done = subprocess.run(["sh", "-n", "-c", change.command], check=False, capture_output=True)
        assert done.returncode == 0, change


def test_what_the_play_does_not_mend_can_be_undone() -> None:
    for kind in KINDS:
        change = kind(random.Random(1), TARGET)
        assert bool(change.stops_with) is bool(change.undo), change
