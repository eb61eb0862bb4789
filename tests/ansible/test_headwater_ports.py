"""Who listens on this machine, seen as the program sees it on a host."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from headwater_ports import Listener, decode_address, listeners, read_connection, way_in
from headwater_system import System


def test_a_listener_is_found_with_its_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        (found,) = [each for each in listeners() if each.port == port and each.protocol == "tcp"]
    assert found.pid == os.getpid()
    assert found.process == Path("/proc/self/comm").read_text().strip()
    assert not found.is_public


def test_a_datagram_socket_is_found_too() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::", 0))
        port = sock.getsockname()[1]
        found = [each for each in listeners() if each.port == port and each.protocol == "udp"]
    assert [(each.address, each.pid) for each in found] == [("::", os.getpid())]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0100007F", "127.0.0.1"),
        ("00000000", "0.0.0.0"),  # noqa: S104
        ("00000000000000000000000000000000", "::"),
        ("B80D0120000000000000000001000000", "2001:db8::1"),
    ],
)
def test_addresses_are_read_as_the_kernel_writes_them(text: str, address: str) -> None:
    assert decode_address(text) == address


@pytest.mark.parametrize(
    ("theirs", "mine", "collides"),
    [
        ("0.0.0.0", "0.0.0.0", True),  # noqa: S104
        ("192.0.2.1", "0.0.0.0", True),  # noqa: S104
        ("0.0.0.0", "192.0.2.1", True),  # noqa: S104
        ("192.0.2.1", "192.0.2.2", False),
        ("::", "0.0.0.0", False),  # noqa: S104
        ("::", "2001:db8::1", True),
    ],
)
def test_which_sockets_exclude_each_other(theirs: str, mine: str, *, collides: bool) -> None:
    held = Listener("tcp", theirs, 443)
    assert held.collides("tcp", mine, 443) is collides
    assert not held.collides("udp", mine, 443)
    assert not held.collides("tcp", mine, 444)


def test_the_way_in_is_read_from_the_processes_above() -> None:
    """As with sudo: the command itself no longer has the variable, the shell above it has."""
    code = "from headwater_ports import way_in; print(way_in())"
    inner = f"{sys.executable} -c '{code}'"
    done = subprocess.run(
        ["/bin/sh", "-c", f'env -u SSH_CONNECTION PYTHONPATH="{ports()}" {inner}; true'],
        env={**os.environ, "SSH_CONNECTION": "192.0.2.9 41928 192.0.2.1 2222"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "(2222, '192.0.2.9 41928')\n"


@pytest.mark.parametrize("text", ["", "192.0.2.9 41928 192.0.2.1", "a b c d", "1 2 3 4 5"])
def test_what_is_no_connection_is_none(text: str) -> None:
    assert read_connection(text) is None


def test_who_passes_the_connection_on_is_believed() -> None:
    came = System("2001:db8::9 41928 2001:db8::1 2222").way_in()
    assert came == (2222, "2001:db8::9 41928")


def ports() -> Path:
    return Path(__file__).parents[2] / "ansible" / "roles" / "headwater" / "files"


def test_without_ssh_there_is_no_way_in(tmp_path: Path) -> None:
    for pid, parent in ((7, 5), (5, 5)):  # a parent of itself, which cannot be, ends nevertheless
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "environ").write_bytes(b"HOME=/root\0")
        (tmp_path / str(pid) / "status").write_text(f"Name:\tsh\nPPid:\t{parent}\n")
    assert way_in(7, tmp_path) is None
