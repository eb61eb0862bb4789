"""``headwater serve`` and ``relay`` as processes: ready, reloaded, stopped; failures in one sentence."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.client import Client, CommandFailed, SocketWay
from tests.support.pace import patience

READY_TIMEOUT_S = 20.0


def write_site(home: Path, **changes: Any) -> Path:
    """Write a site file for a server on loopback."""
    site = home / "site.json"
    site.write_text(
        json.dumps(
            {
                "server_url": "http://127.0.0.1",
                "listen": ["127.0.0.1:0"],
                "state_dir": str(home / "state"),
                "socket": {"path": str(home / "s"), "mode": "0600"},
                "tls": {"mode": "off"},
                "derp": {"server": {"stun_listen": []}},
                **changes,
            }
        )
    )
    return site


@contextmanager
def headwater(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """Run the program until it says that it is ready, as systemd would."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind("")  # an abstract name, chosen by the kernel
        told.settimeout(READY_TIMEOUT_S)
        name = "@" + told.getsockname().decode()[1:]
        process = subprocess.Popen(
            [sys.executable, "-m", "appliance", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NOTIFY_SOCKET": name},
        )
        try:
            assert b"READY=1" in told.recv(4096)
            yield process, told
        finally:
            process.terminate()
            process.communicate(timeout=10)


def fails(*arguments: str) -> str:
    """Run the program, which must refuse; give what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "appliance", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_serve_reloads_and_stops(tmp_path: Path, loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    site = write_site(tmp_path, event_loop=loop)
    with headwater("serve", "-c", str(site)) as (process, told):
        client = Client(SocketWay(tmp_path / "s"))
        health = client.get("/api/v1/health")
        assert health["databaseConnectivity"] is True
        assert "clients dial relays with TLS only" in str(health["warnings"])  # as the check says
        write_site(tmp_path, event_loop=loop, dns={"search_domains": ["corp.example"]})
        process.send_signal(signal.SIGHUP)
        assert told.recv(4096).startswith(b"RELOADING=1")
        assert b"READY=1" in told.recv(4096)
        site.write_text("{")
        process.send_signal(signal.SIGHUP)
        assert told.recv(4096).startswith(b"RELOADING=1")
        assert b"READY=1" in told.recv(4096)
        process.terminate()
        _, said = process.communicate(timeout=patience(5))
    assert process.returncode == 0
    assert "settings reloaded" in said
    assert "dns.search_domains" in said
    assert "new settings are wrong, the old ones stay" in said


def test_relay_runs_beside_the_server(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    server = {"separate": True, "listen": [place], "stun_listen": []}
    site = write_site(tmp_path, derp={"server": server})
    with headwater("relay", "-c", str(site)) as (process, _):
        with socket.create_connection(("127.0.0.1", int(place.rpartition(":")[2])), 5) as wire:
            wire.sendall(b"GET /generate_204 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert wire.recv(4096).startswith(b"HTTP/1.1 204 ")
        process.terminate()
        process.communicate(timeout=10)
        assert process.returncode == 0


def test_failures_are_sentences(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        site = write_site(tmp_path, listen=[place])
        assert f"cannot listen on {place}" in fails("serve", "-c", str(site))
    tls = {"mode": "files", "cert_file": "/no/c", "key_file": "/no/k"}
    site = write_site(tmp_path, server_url="https://127.0.0.1", tls=tls)
    assert "/no/" in fails("serve", "-c", str(site))
    site = write_site(tmp_path, database_url=f"sqlite:///{site}/x.db")
    assert "site.json" in fails("serve", "-c", str(site))
    site.write_text("{}")
    assert "server_url" in fails("serve", "-c", str(site))


def test_a_server_whose_database_is_replaced_ends_with_a_sentence(tmp_path: Path) -> None:
    """B15: whoever restarts it gets one that has loaded what is true."""
    with headwater("serve", "-c", str(write_site(tmp_path))) as (process, _):
        client, path = Client(SocketWay(tmp_path / "s")), tmp_path / "state" / "headwater.db"
        client.post("/api/v1/user", {"name": "alice"})
        copy = tmp_path / "copy.db"
        shutil.copy(path, copy)
        copy.replace(path)
        with pytest.raises(CommandFailed):
            client.post("/api/v1/user", {"name": "bob"})
        _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith(f"Error: {path} was moved, removed or replaced")
    assert "Traceback" not in said
