"""The whole server with ``tls: {mode: acme}``, and Pebble: from nothing to a certificate, and on."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance import config
from appliance.config import Settings
from appliance.serve.server import Server
from appliance.tls import current
from tests.interop.build import Unavailable
from tests.support.pebble import Pebble, programs, running
from tests.support.polling import until
from tests.support.ports import free_port

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", autouse=True)
def pebble_is_built() -> None:
    try:
        programs()
    except Unavailable as reason:
        pytest.skip(f"no Pebble: {reason}")


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds are nothing for an operator, and much for a test."""
    monkeypatch.setattr(current, "POLL_S", 0.05)


def site(home: Path, port: int, pebble: Pebble, **tls: Any) -> Settings:
    return config.build(
        {
            "server_url": f"https://127.0.0.1:{port}",
            "listen": [f"127.0.0.1:{port}"],
            "state_dir": str(home / "state"),
            "socket": {"path": str(home / "hw.sock")},
            "derp": {"server": {"stun_listen": []}},
            "tls": {
                "mode": "acme",
                "directory": pebble.url,
                "ca_file": str(pebble.ca_file),
                **tls,
            },
        }
    )


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Server]:
    server = Server(settings)
    started = asyncio.Event()

    async def note() -> None:
        started.set()

    task = asyncio.create_task(server.run(note))
    try:
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield server
    finally:
        server.stop()
        await task


async def said(server: Server, code: int, *words: str) -> str:
    """Run one command of the command line against the server; give what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "appliance", "--socket", str(server.settings.socket.path), *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == code, out.decode()
    return out.decode()


async def served(port: int) -> bytes | None:
    """Return the certificate that an ordinary client is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    found: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        await writer.wait_closed()
    return found


async def test_a_server_gets_its_certificate_while_it_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    pebble = Pebble(tmp_path / "pebble", http_port=1, tls_port=port)
    async with running(pebble):
        async with serving(site(tmp_path, port, pebble)) as server:
            certificate = server.certificate
            assert certificate is not None
            assert certificate.pin, "the relay is pinned meanwhile"
            assert "no certificate yet" in caplog.text
            await until(lambda: not certificate.status().is_provisional)
            assert not certificate.pin
            assert certificate.facts.names == ("127.0.0.1",)
            first = await served(port)
            assert "Certificate renewed" in await said(server, 0, "certificates", "renew")
            assert certificate.reloads == 2
            assert await served(port) != first
            assert "127.0.0.1 | " in await said(server, 0, "certificates", "list")
            assert "is valid until" in await said(server, 0, "certificates", "check")
        await pebble.stop("acme")
        async with serving(site(tmp_path, port, pebble)) as again:
            assert again.certificate is not None
            assert not again.certificate.status().is_provisional, "what is on disk serves at once"
            assert not again.supervisor.failing


async def test_a_server_starts_while_its_authority_is_away_and_goes_on(tmp_path: Path) -> None:
    port = free_port()
    pebble = Pebble(tmp_path / "pebble", http_port=1, tls_port=port)
    async with running(pebble):
        await pebble.stop("acme")
        async with serving(site(tmp_path, port, pebble)) as server:
            certificate = server.certificate
            assert certificate is not None
            await until(lambda: bool(certificate.status().trouble))
            assert "cannot be reached" in certificate.status().trouble
            await until(lambda: [x.name for x in server.supervisor.failing] == ["certificate"])
            assert await served(port), "it serves all the same"
            told = await said(server, 1, "certificates", "check")
            assert "a self-signed one is served" in told
            assert "must reach the authority by https" in told
            assert "cannot be reached" in await said(server, 0, "health")
            assert "cannot be reached" in await said(server, 1, "certificates", "renew")
            await pebble.start()
            certificate.hurry()
            await until(lambda: not certificate.status().is_provisional)
            await until(lambda: not server.supervisor.failing)
