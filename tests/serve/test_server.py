"""The whole server: start, what it answers, reload, stop; and ``headwater dev`` as people run it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance import config
from appliance.config import ConfigError, Settings, reader
from appliance.identity.principals import LOCAL
from appliance.serve import statedir
from appliance.serve.server import Server, database_url
from appliance.serve.statedir import StateError
from appliance.serve.supervise import Supervisor
from appliance.store.errors import StoreError
from appliance.tailnet import users
from appliance.wire.keys import PrivateKey
from tests.support.pace import patience
from tests.support.polling import until

STOP_S = 2.0
"""What a stop may take, with hundreds of clients."""
READY_CPU_S = 2.0
"""What ``headwater dev`` may cost until it accepts clients: 3 s of a clock, said the issue; the
machine's other work is not counted here, so the bound is lower."""


def plan(home: Path, **changes: Any) -> Settings:
    """Give the settings of a server on loopback, without TLS unless asked."""
    return config.build(
        {
            "server_url": "http://127.0.0.1",
            "listen": ["127.0.0.1:0"],
            "state_dir": str(home / "state"),
            "socket": {"path": str(home / "s"), "mode": "0600"},
            "tls": {"mode": "off"},
            "derp": {"server": {"stun_listen": ["127.0.0.1:0"]}},
            **changes,
        }
    )


@asynccontextmanager
async def running(
    settings: Settings,
    reload: Callable[[], Settings] | None = None,
    *,
    supervisor: Supervisor | None = None,
) -> AsyncIterator[Server]:
    """Run a server while the block lasts."""
    server = Server(settings, reload=reload, supervisor=supervisor)
    ready = asyncio.Event()

    async def started() -> None:
        ready.set()

    task = asyncio.create_task(server.run(started))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not ready.is_set():
        await task
    try:
        yield server
    finally:
        server.stop()
        await task


async def ask(server: Server, path: str, context: ssl.SSLContext | None = None) -> str:
    """Get a page as a client does."""
    host, port = server.listeners[0].addresses[0]
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return answer.decode()


async def over_socket(path: Path, target: str) -> str:
    """Get a page over the local socket."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.decode()


async def test_server_answers_and_leaves_nothing_open(tmp_path: Path) -> None:
    settings = plan(tmp_path)
    async with running(settings) as server:
        assert "mkey:" in await ask(server, "/key?v=130")
        assert "204 No Content" in await ask(server, "/generate_204")
        assert "200 OK" in await ask(server, "/derp/latency-check")
        assert "426" in await ask(server, "/derp")
        refused = await ask(server, "/api/v1/node")
        assert refused.startswith("HTTP/1.1 401 ")
        assert refused.endswith("\r\n\r\nUnauthorized")
        assert '"databaseConnectivity":true' in await over_socket(
            settings.socket.path, "/api/v1/health"
        )
    assert not settings.socket.path.exists()


async def test_state_is_private_and_survives(tmp_path: Path) -> None:
    settings = plan(tmp_path)
    async with running(settings) as server:
        first = await ask(server, "/key?v=130")
        async with server.tailnets.default.edit(by=LOCAL, act="test.change") as edit:
            users.create(edit, "alice", server.tailnets.default.clock())
        assert stat.S_IMODE(settings.socket.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.state_dir.stat().st_mode) == 0o700
    for name in ("noise.key", "derp.key"):
        assert stat.S_IMODE((settings.state_dir / name).stat().st_mode) == 0o600
    async with running(settings) as server:
        assert (await ask(server, "/key?v=130")).splitlines()[-1] == first.splitlines()[-1]
        assert users.find(server.tailnets.default.snapshot, name="alice")


async def test_local_ca_is_served_and_trusted(tmp_path: Path) -> None:
    settings = plan(tmp_path, server_url="https://127.0.0.1", tls={"mode": "local_ca"})
    async with running(settings) as server:
        context = ssl.create_default_context(cafile=str(server.ca_file))
        assert "mkey:" in await ask(server, "/key?v=130", context)
        (region,) = (server.tailnets.default.snapshot.settings.derp_map.regions or {}).values()
        node = region.nodes[0]
        assert (node.cert_name, node.ipv4, node.ipv6) == ("", "127.0.0.1", "none")
        assert node.derp_port == server.listeners[0].port


async def test_plain_listener_beside_tls_sends_browsers_on_and_proves_no_portal(
    tmp_path: Path,
) -> None:
    settings = plan(
        tmp_path,
        server_url="https://127.0.0.1",
        tls={"mode": "local_ca"},
        listen_plain=["127.0.0.1:0"],
    )
    async with running(settings) as server:
        port = server.listeners[1].port
        moved = await ask_plainly(port, "GET /welcome?x=1", "X-A: 1")
        assert moved.startswith("HTTP/1.1 302 ")
        assert (
            "Location: https://127.0.0.1/welcome?x=1\r\n" in moved
        )  # the server's name, not the visitor's
        proof = await ask_plainly(port, "GET /generate_204", "X-Tailscale-Challenge: ts_x")
        assert proof.startswith("HTTP/1.1 204 ")
        assert "X-Tailscale-Response: response ts_x\r\n" in proof
        assert (await ask_plainly(port, "POST /ts2021", "X-A: 1")).startswith("HTTP/1.1 400 ")
        assert (await ask_plainly(port, "GET /key?v=130", "X-A: 1")).startswith("HTTP/1.1 302 ")


async def ask_plainly(port: int, request: str, header: str) -> str:
    """Give the head of the answer to one request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"{request} HTTP/1.1\r\nHost: hw.example\r\n{header}\r\nContent-Length: 0\r\n\r\n".encode()
    )
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return head.decode()


async def test_lonely_certificate_is_pinned_in_the_relay_map(tmp_path: Path) -> None:
    settings = plan(tmp_path, server_url="https://127.0.0.1", tls={"mode": "local_ca"})
    server = Server(settings, self_signed=True)
    pinned: list[str] = []

    async def started() -> None:
        regions = server.tailnets.default.snapshot.settings.derp_map.regions or {}
        pinned.extend(region.nodes[0].cert_name for region in regions.values())
        server.stop()

    await server.run(started)
    assert server.certificate is not None
    assert server.certificate.pin
    assert pinned == [server.certificate.pin]
    assert server.ca_file is not None
    assert "PRIVATE KEY" not in server.ca_file.read_text()


async def test_metrics_have_a_listener_of_their_own(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with running(plan(tmp_path, metrics={"listen": f"127.0.0.1:{port}"})):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = (await reader.read()).decode()
        writer.close()
    assert "headwater_tailnet_nodes 0.0" in answer
    assert "process_resident_memory_bytes" in answer


@pytest.mark.parametrize(
    ("fields", "status"),
    [("Content-Encoding: gzip", 415), ("Content-Length: 99999999", 413), ("Host: y", 400)],
)
async def test_metrics_have_the_bounds_of_the_front(
    tmp_path: Path, fields: str, status: int
) -> None:
    """H5: a megabyte of gzip took the server two seconds; the listener had no bounds at all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with running(plan(tmp_path, metrics={"listen": f"127.0.0.1:{port}"})):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /metrics HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n".encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 %d " % status)
        writer.close()


async def test_stop_is_quick_with_hundreds_of_clients(tmp_path: Path) -> None:
    async with running(plan(tmp_path)) as server:
        host, port = server.listeners[0].addresses[0]
        streams = [await asyncio.open_connection(host, port) for _ in range(300)]
        for _, writer in streams[::2]:
            writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: len(server.listeners[0].streams) == 300)
        began = time.monotonic()
    took = time.monotonic() - began
    for _, stream in streams:
        stream.close()
        with contextlib.suppress(OSError):
            await stream.wait_closed()
    assert took < patience(STOP_S)


async def test_reload_takes_over_what_is_hot_and_names_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    current = [plan(tmp_path)]
    async with running(current[0], lambda: current[-1]) as server:
        live = server.tailnets.default
        caplog.set_level("INFO", "appliance")
        current.append(
            plan(
                tmp_path,
                listen=["127.0.0.1:1"],
                tailnet={"base_domain": "other.internal", "key_expiry": "90d"},
                dns={"search_domains": ["corp.example"]},
            )
        )
        server.reload()
        await until(lambda: live.snapshot.settings.search_domains == ("corp.example",))
        assert live.snapshot.tailnet.domain == "other.internal"
        assert str(live.snapshot.settings.key_expiry) == "90 days, 0:00:00"
        await until(lambda: "settings wait for a restart" in caplog.text)
        assert server.settings.listen == current[0].listen


async def test_wrong_new_settings_keep_the_old(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Settings:
        raise ConfigError("site.yaml", (reader.Mistake("dns", "5", "a mapping"),))

    async with running(plan(tmp_path), broken) as server:
        before = server.settings
        server.reload()
        await until(lambda: "new settings are wrong, the old ones stay" in caplog.text)
        assert server.settings is before
        assert "mkey:" in await ask(server, "/key?v=130")


async def test_several_tailnets_keep_to_themselves(tmp_path: Path) -> None:
    more = [{"name": "lab", "base_domain": "lab.internal"}]
    async with running(plan(tmp_path, tailnets=more)) as server:
        names = [live.snapshot.tailnet.name for live in server.tailnets]
        assert names == ["default", "lab"]
        lab = list(server.tailnets)[1]
        async with lab.edit(by=LOCAL, act="test.change") as edit:
            users.create(edit, "alice", lab.clock())
        path = server.settings.socket.path
        assert '"users":[]' in await over_socket(path, "/api/v1/user")
        assert '"alice"' in await over_socket(path, "/api/v1/user?tailnet=lab")
    async with running(plan(tmp_path)) as server:  # dropped from the settings, not from the disk
        assert [live.snapshot.tailnet.name for live in server.tailnets] == ["default", "lab"]


@pytest.fixture
def notified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))

        def said() -> list[str]:
            lines: list[str] = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    lines += sock.recv(4096).decode().splitlines()
            return lines

        yield said


async def test_systemd_is_told(tmp_path: Path, notified: Callable[[], list[str]]) -> None:
    async with running(plan(tmp_path)) as server:
        assert "READY=1" in notified()
        heard: list[str] = []
        server.reload()
        while "READY=1" not in heard:
            heard += notified()
            await asyncio.sleep(0)
        assert heard[0] == "RELOADING=1"
    assert "STOPPING=1" in notified()


def failure_of(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def fails(settings: Settings) -> BaseException:
    """Start a server that must not start; give why."""
    with pytest.raises(BaseException) as failure:  # noqa: PT011  # groups of several kinds
        await Server(settings).run()
    return failure_of(failure.value)


async def test_second_server_is_refused_in_words(tmp_path: Path) -> None:
    settings = plan(tmp_path)
    async with running(settings):
        error = await fails(settings)
        assert isinstance(error, StoreError | StateError), error
        other = plan(tmp_path, state_dir=str(tmp_path / "elsewhere"))
        error = await fails(other)
        assert "another server answers" in str(error)


async def test_socket_of_a_dead_server_is_taken_over(tmp_path: Path) -> None:
    settings = plan(tmp_path)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(settings.socket.path))
    async with running(settings) as server:
        assert "200 OK" in await over_socket(server.settings.socket.path, "/health")


async def test_damaged_key_is_never_replaced(tmp_path: Path) -> None:
    settings = plan(tmp_path)
    statedir.prepare(settings.state_dir)
    (settings.state_dir / "noise.key").write_text("privkey:oops")
    error = await fails(settings)
    assert isinstance(error, StateError), error
    assert "restore it" in str(error)
    assert (settings.state_dir / "noise.key").read_text() == "privkey:oops"


async def test_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = await fails(plan(tmp_path, listen=[f"127.0.0.1:{port}"]))
    assert f"127.0.0.1:{port}" in str(error)


def test_key_files_appear_whole(tmp_path: Path) -> None:
    path = tmp_path / "k"
    key = statedir.private_key(path, os.urandom)
    assert statedir.private_key(path, os.urandom).public_raw == key.public_raw
    PrivateKey.parse(path.read_text())
    assert [each.name for each in tmp_path.iterdir()] == ["k"]


def test_database_password_comes_from_its_file(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("p@ss/word\n")
    settings = plan(
        tmp_path,
        database_url="postgresql://user@db.example/headwater",
        database_password_file=str(secret),
    )
    assert database_url(settings) == "postgresql://user:p%40ss%2Fword@db.example/headwater"


class Dev:
    """``headwater dev`` in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "appliance", "dev", *arguments, "-o", "json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.ready_s = time.monotonic() - began
        assert line, self.process.communicate()[1]
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        self.cpu_s = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
        self.about: dict[str, Any] = json.loads(line)

    def __enter__(self) -> Dev:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        complaints = self.process.communicate(timeout=10)[1]
        assert self.process.returncode == 0, complaints

    def ask(self, *arguments: str) -> Any:
        """Run a command against it."""
        line = [sys.executable, "-m", "appliance", "--socket", self.about["socket"]]
        done = subprocess.run(
            [*line, *arguments, "-o", "json"], capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)


@pytest.mark.parametrize("flag", [(), ("--http",), ("--pinned",)], ids=["ca", "http", "pinned"])
def test_dev_accepts_clients_and_continues_in_its_directory(
    tmp_path: Path, flag: tuple[str, ...]
) -> None:
    with Dev("--dir", str(tmp_path / "d"), *flag) as first:
        assert set(first.about) == {"url", "ca_file", "auth_key", "socket", "state_dir", "pid"}
        assert first.about["pid"] == first.process.pid
        assert first.about["url"].startswith("http://" if flag == ("--http",) else "https://")
        first.ask("users", "create", "alice")
    with Dev("--dir", str(tmp_path / "d"), *flag) as second:
        for field in ("url", "ca_file", "auth_key", "socket", "state_dir"):
            assert second.about[field] == first.about[field]
        assert [user["name"] for user in second.ask("users", "list")] == ["dev", "alice"]
        # The second start has compiled modules, as an installed program does.
        print(f"headwater dev: ready after {second.ready_s:.2f} s, {second.cpu_s:.2f} s CPU")
        assert second.cpu_s <= patience(READY_CPU_S)


async def test_health_asks_the_database(tmp_path: Path) -> None:
    async with running(plan(tmp_path)) as server:
        assert '{"status":"pass"}' in await ask(server, "/health")
        assert server.database is not None
        await server.database.close()
        assert '{"status":"fail"}' in await ask(server, "/health")
