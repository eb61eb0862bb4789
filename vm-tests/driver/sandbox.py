"""Private namespaces for one story, in which nothing outlives the driver.

For: entering them, and laying out /run, /sys and the control groups as systemd-nspawn wants them.
Every machine, mount, bridge and process of a story is inside, so the end of the driver, however it
comes, is the end of them all. Not for machines.
Source: unshare(1), pid_namespaces(7): when the first process of a pid namespace ends, so do the others.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
NAMED = "headwater-story-"

# No story has this long to make its machines.
ABANDONED_S = 3600
DYING_S = 5

# Where machines keep what they write: in memory, so that nothing is left on disk either.
WORK = Path("/run/headwater-vm")
WORK_SIZE = "6G"

_UNSHARE = (
    *("unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child"),
    *("--mount-proc", "--propagation", "private"),
)


_PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "ip": "iproute2",
}


class Forbidden(Exception):
    """The kernel, who we are, or what is installed does not allow machines."""


def require() -> None:
    """Raise Forbidden, with the reason, where stories cannot run."""
    if os.geteuid() != 0:
        raise Forbidden("not root")
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            raise Forbidden(f"no {program} (Debian: {package})")
    trial = [*_UNSHARE, "sh", "-c", "mount -t tmpfs tmpfs /run && mount -t cgroup2 c /mnt"]
    try:
        done = subprocess.run(trial, capture_output=True, text=True, timeout=30, check=False)
    except OSError as error:
        raise Forbidden(str(error)) from error
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"unshare ended with {done.returncode}"]
        raise Forbidden(words[0])


def command(arguments: Sequence[str]) -> list[str]:
    """The command that runs this program again inside a sandbox."""
    # The kernel ends it when its parent ends, even if that has no time to say so.
    watched = ("setpriv", "--pdeathsig", "KILL")
    return [*watched, *_UNSHARE, sys.executable, "-m", "driver", *arguments]


def lay_out() -> None:
    """Inside: make /run, /sys and the control groups those of the sandbox."""
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for folder in (Path("/run/netns"), Path("/run/lock"), WORK):
        folder.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", f"mode=700,size={WORK_SIZE}", "tmpfs", str(WORK))
    _mount("-t", "sysfs", "sysfs", "/sys")
    _mount("-t", "cgroup2", "cgroup2", str(CGROUPS))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=30)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, timeout=30)


def cgroup(owner: str, machine: str) -> Path:
    """Make a control group for a machine: without one nspawn takes over the root of them all."""
    made = CGROUPS / f"{NAMED}{owner}" / machine
    made.mkdir(parents=True, exist_ok=True)
    return made


def sweep(owner: str = "") -> None:
    """Inside: remove the empty control groups of a story, or those of drivers that were killed.

    These cannot be told by their process numbers from in here, but by their age.
    """
    oldest = time.time() - ABANDONED_S
    for group in CGROUPS.glob(f"{NAMED}{owner or '*'}"):
        if owner:
            # The machines' last processes are still on their way out.
            ends = time.monotonic() + DYING_S
            while group.exists() and time.monotonic() < ends:
                _remove(group)
                time.sleep(0.02)
        elif group.stat().st_mtime < oldest:
            _remove(group)


def _remove(group: Path) -> None:
    for folder, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):
            Path(folder).rmdir()
