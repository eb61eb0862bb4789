"""What passes between systemd and us: sockets that it made, the watchdog, more time, reload."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance import config
from appliance.cli import serve
from appliance.loops import run_all
from appliance.serve import systemd
from appliance.serve.certificates import open_certificate
from appliance.tls.challenges import Challenges
from tests.support import stunclient
from tests.support.certificates import self_signed_pem
from tests.support.polling import until

START_S = 60.0
"""A start takes half a second; a busy machine some."""


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Listen where systemd would; gives what was said since the last look."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        def look() -> list[str]:
            lines: list[str] = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    lines += sock.recv(4096).decode().splitlines()
            return lines

        yield look


def test_sockets_come_by_name_and_only_once() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.socket(type=socket.SOCK_DGRAM) as two,
    ):
        first = 700  # two numbers side by side, as systemd gives them
        os.dup2(one.fileno(), first)
        os.dup2(two.fileno(), first + 1)
        environ = {
            "LISTEN_PID": str(os.getpid()),
            "LISTEN_FDS": "2",
            "LISTEN_FDNAMES": "listen:stun",
            "OTHER": "stays",
        }
        given = systemd.inherited(environ, first)
        assert given["listen"][0].getsockname() == one.getsockname()
        assert given["stun"][0].type == socket.SOCK_DGRAM
        assert not os.get_inheritable(first)
        assert environ == {"OTHER": "stays"}
        assert systemd.inherited(environ, first) == {}
        for sock in (*given["listen"], *given["stun"]):
            sock.close()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "one", "LISTEN_PID": str(os.getpid())},
        {"LISTEN_FDS": "-1", "LISTEN_PID": str(os.getpid())},
    ],
)
def test_sockets_of_somebody_else_are_left_alone(environ: dict[str, str]) -> None:
    assert systemd.inherited(dict(environ)) == {}


def test_watchdog_is_ours_only_if_it_names_us(monkeypatch: pytest.MonkeyPatch) -> None:
    assert systemd.watchdog_s() is None
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert systemd.watchdog_s() == 30.0
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert systemd.watchdog_s() is None


async def test_a_turning_loop_feeds_the_watchdog_and_a_standing_one_does_not(
    said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "3000")
    task = asyncio.create_task(run_all(systemd.loops()))
    heard: list[str] = []

    def pinged() -> bool:
        heard.extend(said())
        return heard.count("WATCHDOG=1") >= 3

    await until(pinged)
    said()
    _stand_still(0.05)
    assert said() == []
    task.cancel()


def _stand_still(seconds: float) -> None:
    """Hold the loop up, as a bug would."""
    import time

    time.sleep(seconds)


async def test_more_time_is_asked_for_only_while_it_lasts(said: Callable[[], list[str]]) -> None:
    async with systemd.extend_start_timeout("migrating", every_s=0.001):
        heard: list[str] = []

        def asked() -> bool:
            heard.extend(said())
            return heard.count("EXTEND_TIMEOUT_USEC=60000000") >= 2

        await until(asked)
        assert "STATUS=migrating" in heard
    said()
    await asyncio.sleep(0)
    assert said() == []


LAUNCH = """
import os, sys
for i, number in enumerate(map(int, sys.argv[1].split(","))):
    os.dup2(number, 3 + i)
    os.set_inheritable(3 + i, True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "appliance", *sys.argv[2:]])
"""
"""What systemd does between fork and exec."""


class Given:
    """Sockets as a box has them, and a program that was started with them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.stack = contextlib.ExitStack()
        self.sockets: list[tuple[str, socket.socket]] = []
        for name in ("listen", "plain", "metrics"):
            self._keep(name, socket.create_server(("127.0.0.1", 0)))
        datagram = socket.socket(type=socket.SOCK_DGRAM)
        datagram.bind(("127.0.0.1", 0))
        self._keep("stun", datagram)
        local = socket.socket(socket.AF_UNIX)
        local.bind(str(home / "local"))
        local.listen()
        self._keep("local", local)
        self.notify = self.stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.notify.bind(str(home / "notify"))
        self.notify.settimeout(START_S)

    def _keep(self, name: str, sock: socket.socket) -> None:
        self.sockets.append((name, self.stack.enter_context(sock)))

    def __getitem__(self, name: str) -> socket.socket:
        return dict(self.sockets)[name]

    def url(self, name: str) -> str:
        return f"127.0.0.1:{self[name].getsockname()[1]}"

    @contextlib.contextmanager
    def run(self, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run the program with every socket; ready when the block begins."""
        numbers = [sock.fileno() for _, sock in self.sockets]
        environ = {
            **os.environ,
            "LISTEN_FDS": str(len(numbers)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in self.sockets),
            "NOTIFY_SOCKET": str(self.home / "notify"),
            "WATCHDOG_USEC": "1000000",
        }
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, ",".join(map(str, numbers)), *command],
            env=environ,
            pass_fds=numbers,
        )
        try:
            self.hear("READY=1")
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(START_S) == 0

    def hear(self, wanted: str) -> list[str]:
        """Wait until it says this; give all that it said."""
        heard: list[str] = []
        while wanted not in heard:
            heard += self.notify.recv(4096).decode().splitlines()
        return heard

    def get(self, name: str, path: str) -> str:
        """Ask for a page over one of the sockets."""
        family = self[name].family
        with socket.socket(family) as sock:
            sock.settimeout(START_S)
            sock.connect(self[name].getsockname())
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
        return answer.decode()

    def asks_stun(self) -> bool:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.settimeout(START_S)
            sock.sendto(stunclient.encode_request(b"x" * 12), self["stun"].getsockname())
            return bool(sock.recv(1500))


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Given]:
    given = Given(tmp_path)
    with given.stack:
        yield given


ELSEWHERE = {
    "server": {"enabled": False},
    "regions": [{"id": 900, "code": "there", "nodes": [{"host": "relay.example.com"}]}],
}
"""A site whose relay is another host's."""


def site(given: Given, **more: object) -> Path:
    """Write a site file whose own addresses cannot be had: only the sockets can serve."""
    path = given.home / "site.json"
    path.write_text(
        json.dumps(
            {
                "server_url": "https://hw.example.com",
                "listen": ["192.0.2.1:1"],
                "listen_plain": ["192.0.2.1:2"],
                "metrics": {"listen": "192.0.2.1:3"},
                "tls": {"mode": "local_ca"},
                "state_dir": str(given.home / "state"),
                "socket": {"path": str(given.home / "nowhere" / "s")},
                **more,
            }
        )
    )
    return path


def test_the_server_serves_on_every_socket_that_systemd_made(given: Given) -> None:
    path = site(given, derp={"server": {"stun_listen": ["192.0.2.1:1"]}})
    with given.run("serve", "-c", str(path)) as process:
        assert " 302 " in given.get("plain", "/").splitlines()[0]
        assert "200 OK" in given.get("local", "/health")
        assert "headwater_" in given.get("metrics", "/metrics")
        assert given.asks_stun()
        given.hear("WATCHDOG=1")
        process.send_signal(signal.SIGHUP)
        heard = given.hear("READY=1")
        reloading = heard.index("RELOADING=1")
        assert heard[reloading + 1].startswith("MONOTONIC_USEC=")
    assert (given.home / "local").exists(), "a socket of systemd's is systemd's to remove"


def test_sockets_of_another_file_are_named_in_the_log(
    given: Given, capfd: pytest.CaptureFixture[str]
) -> None:
    """Somebody changed the site file and left the units as they were."""
    path = site(given, derp=ELSEWHERE)
    with given.run("serve", "-c", str(path)):
        said = capfd.readouterr().err
    warnings = [line for line in said.splitlines() if "renew and restart their units" in line]
    assert len(warnings) == 3  # listen, plain and metrics
    assert given.url("listen") in warnings[0]
    assert "192.0.2.1:1" in warnings[0]


def test_a_missing_socket_unit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside the sandbox nothing can be bound, with or without capabilities."""
    monkeypatch.setenv("INVOCATION_ID", "0")
    refusal = serve._refusal(PermissionError(1, "Operation not permitted"))
    assert refusal is not None
    assert "headwater deploy render" in refusal.advice


async def test_a_certificate_may_be_a_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the page about the settings says of every key that ends in _file."""
    (tmp_path / "tls-pair").write_bytes(self_signed_pem())
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    tls = {"mode": "files", "cert_file": "tls-pair", "key_file": "tls-pair"}
    settings = config.build({"server_url": "https://hw.example.com", "tls": tls})
    opened = await open_certificate(settings, (), Challenges())
    assert opened is not None
    assert opened.certificate.chain == tmp_path / "tls-pair"


def test_a_connection_waits_in_the_socket_while_the_server_restarts(given: Given) -> None:
    path = site(given, derp=ELSEWHERE)
    with given.run("serve", "-c", str(path)):
        pass
    with socket.socket() as early:
        early.settimeout(START_S)
        early.connect(given["plain"].getsockname())
        early.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        with given.run("serve", "-c", str(path)):
            assert b" 302 " in early.recv(65536)


def test_a_relay_alone_serves_on_sockets_that_systemd_made(given: Given) -> None:
    path = site(
        given,
        listen_plain=[],
        tls={"mode": "off"},
        server_url="https://hw.example.com",
        derp={"server": {"stun_listen": ["192.0.2.1:1"], "verify_clients": False}},
    )
    with given.run("relay", "-c", str(path)):
        assert "200 OK" in given.get("listen", "/derp/probe")
        assert given.asks_stun()
        given.hear("WATCHDOG=1")
