"""The network of the interop tests: it is there, and it is gone however its owner ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.interop.netns import SERVER_V4, SERVER_V6, Net

pytestmark = [pytest.mark.interop, pytest.mark.system]

ROOT = Path(__file__).resolve().parent.parent.parent

LEAVE_BEHIND = """
import os, sys
from tests.interop.netns import Net
net = Net()
print(net.host("orphan").name, flush=True)
sys.stdin.read()
"""


def _reaches(prefix: list[str], address: str, port: int) -> bool:
    family = "AF_INET6" if ":" in address else "AF_INET"
    program = (
        "import socket, sys\n"
        f"s = socket.socket(socket.{family})\n"
        "s.settimeout(3)\n"
        f"sys.exit(s.connect_ex(({address!r}, {port})) != 111)\n"  # 111: refused, so it got there
    )
    return subprocess.run([*prefix, sys.executable, "-c", program], check=False).returncode == 0


def test_hosts_reach_the_server_over_both_families(net: Net) -> None:
    host = net.host("plain")
    assert _reaches(host.prefix, SERVER_V4, 9)
    assert _reaches(host.prefix, SERVER_V6, 9)


def test_server_keeps_its_hardware_address(net: Net) -> None:
    """Whoever has it in the neighbour table goes on reaching the server when hosts are plugged in."""
    read = [*net.server_prefix, "cat", "/sys/class/net/br0/address"]
    before = subprocess.run(read, capture_output=True, check=True).stdout
    for number in range(12):
        net.host(f"more{number}")
        assert subprocess.run(read, capture_output=True, check=True).stdout == before


def test_natted_host_reaches_the_server(net: Net) -> None:
    host = net.natted("behind")
    assert _reaches(host.prefix, SERVER_V4, 9)


def test_unplugged_host_comes_back(net: Net) -> None:
    for host in (net.host("plain"), net.natted("behind")):
        host.link(up=False)
        assert not _reaches(host.prefix, SERVER_V4, 9)
        host.link(up=True)
        assert _reaches(host.prefix, SERVER_V4, 9)


def test_network_of_a_killed_owner_is_removed(net: Net) -> None:  # noqa: ARG001  # skips where none can be made
    with subprocess.Popen(
        [sys.executable, "-c", LEAVE_BEHIND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        name = owner.stdout.readline().strip()
        assert name.startswith(f"hw-{owner.pid}-")
        owner.send_signal(signal.SIGKILL)
    ends = time.monotonic() + 10
    while (
        name
        in subprocess.run(
            ["ip", "netns", "list"], capture_output=True, text=True, check=True
        ).stdout
    ):
        assert time.monotonic() < ends, f"{name} is still there"
        time.sleep(0.05)
