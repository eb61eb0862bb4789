"""`headwater dev` and two stock clients on loopback, as the smoke test runs them by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop import build
from tests.interop.conftest import Figure
from tests.interop.server import Server
from tests.interop.smoke import smoke

pytestmark = [pytest.mark.interop]

READY_S = 3.0
"""What the program promises: `headwater dev` accepts clients within this."""


@pytest.mark.usefixtures("stock_clients")
@pytest.mark.parametrize("client", build.CLIENTS)
async def test_two_nodes_exchange_pages_on_loopback(client: str, tmp_path: Path) -> None:
    assert await smoke(client, tmp_path, verbose=False) == 0


async def test_dev_accepts_clients_soon_and_keeps_its_place(tmp_path: Path, figure: Figure) -> None:
    server = Server(tmp_path, ["dev", "--dir", str(tmp_path / "dev"), "-o", "json"])
    first = await server.start()
    took = server.start_seconds
    figure("ready after", took)
    await server.kill()
    again = await server.start()
    # The better of two: the machine may have other work, the program is the same.
    assert min(took, server.start_seconds) <= READY_S
    await server.stop()
    assert (again.url, again.auth_key, again.ca_file) == (first.url, first.auth_key, first.ca_file)
