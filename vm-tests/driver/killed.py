"""Shows that a driver which is killed within a story leaves nothing behind.

For: one check beside the stories, on a story's own machines. Not for ending drivers.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from driver import stories
from driver.stories import Story

# Boot takes a second; the kernel takes them all away at once.
BOOT_S = 60
GONE_S = 10


def check(story: Story, planned: Mapping[str, list[str]]) -> int:
    """Boot a story's machines, kill what drives them, look for leftovers; give an exit code."""
    began = time.monotonic()
    before = _outside()
    with Path(os.devnull).open("wb") as nowhere, stories.in_sandbox(story, planned, nowhere) as it:
        family = _booted(it, len(story.machines))
        it.send_signal(signal.SIGKILL)
        it.wait(GONE_S)
    left = _left(family)
    changed = [f"{what}: {now}" for what, now in _outside().items() if now != before[what]]
    how = "failed" if left or changed or not family else "passed"
    took = time.monotonic() - began
    print(f"vm: {how:8} {took:6.1f} s  the driver is killed: {len(family)} processes gone with it")
    for each in (*left, *changed):
        print(f"vm: left behind: {each}")
    return int(how == "failed")


def _booted(process: subprocess.Popen[bytes], machines: int) -> dict[int, str]:
    """Wait until all machines have processes of their own; give every process below the driver."""
    ends = time.monotonic() + BOOT_S
    family: dict[int, str] = {}
    while time.monotonic() < ends and process.poll() is None:
        family = dict(_below(process.pid))
        if sum("dbus-daemon" in command for command in family.values()) >= machines:
            return family
        time.sleep(0.05)
    print(f"vm: the machines did not boot: {sorted(family.values())}", file=sys.stderr)
    return {}


def _below(pid: int) -> Iterator[tuple[int, str]]:
    """Give a process and all that came of it, with their commands."""
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        yield pid, command
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _below(int(child))


def _left(family: Mapping[int, str]) -> list[str]:
    """Wait until none of these processes is there; give those that stay."""
    ends = time.monotonic() + GONE_S
    while True:
        left = [
            f"process {pid}: {command}"
            for pid, command in family.items()
            if dict(_below(pid)).get(pid) == command
        ]
        if not left or time.monotonic() > ends:
            return left
        time.sleep(0.05)


def _outside() -> dict[str, list[str]]:
    """What a story could leave on this machine besides processes."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return {
        "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "mounts": sorted(line for line in mounts if "headwater-vm" in line),
        "network namespaces": sorted(path.name for path in Path("/run/netns").glob("vm-*")),
    }
