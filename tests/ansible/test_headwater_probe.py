from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import headwater_probe
import pytest
from headwater_probe import binding_request, checks_for, place_of, run

from appliance.config.reader import to_plain
from appliance.wire import stun
from tests.serve.test_server import plan, running

NAME = "hw.example.com"


def parameters(settings: Any, **changes: Any) -> dict[str, Any]:
    return {
        "url": f"https://{NAME}",
        "role": "server",
        "address": "127.0.0.1",
        "proxy_address": "",
        "ca_file": "",
        "ca_pem": "",
        "settings": to_plain(settings),
        **changes,
    }


def test_the_binding_request_is_one_that_our_relay_answers() -> None:
    assert stun.decode_request(binding_request(b"twelve bytes")) == b"twelve bytes"


async def test_a_server_that_is_well_answers_everything(tmp_path: Path) -> None:
    settings = plan(tmp_path, server_url=f"https://{NAME}", tls={"mode": "local_ca"})
    async with running(settings) as server:
        assert server.ca_file is not None
        assert server.relay is not None
        given = parameters(
            settings,
            url=f"https://{NAME}:{server.listeners[0].port}",
            ca_pem=server.ca_file.read_text(),
        )
        given["settings"]["derp"]["server"]["stun_listen"] = []  # only loopback here: not asked
        times, reason = await asyncio.to_thread(run, checks_for(given), 5)
        assert reason == ""
        assert list(times) == ["health", "relay"]

        given["settings"]["derp"]["server"] |= {
            "stun_listen": ["0.0.0.0:3478"],
            "stun_port": server.ports.stun,
        }
        times, reason = await asyncio.to_thread(run, checks_for(given), 5)
        assert reason == ""
        assert list(times) == ["health", "relay", "stun"]


async def test_a_server_whose_name_is_an_address_is_asked_by_it(tmp_path: Path) -> None:
    settings = plan(tmp_path, server_url="https://[2001:db8::1]", tls={"mode": "local_ca"})
    async with running(settings) as server:
        assert server.ca_file is not None
        given = parameters(
            settings,
            url=f"https://[2001:db8::1]:{server.listeners[0].port}",
            ca_pem=server.ca_file.read_text(),
        )
        checks = {"health": checks_for(given)["health"]}
        times, reason = await asyncio.to_thread(run, checks, 0)
    assert reason == ""
    assert list(times) == ["health"]


async def test_a_certificate_that_nobody_vouches_for_is_not_well(tmp_path: Path) -> None:
    settings = plan(tmp_path, server_url=f"https://{NAME}", tls={"mode": "local_ca"})
    async with running(settings) as server:
        given = parameters(settings, url=f"https://{NAME}:{server.listeners[0].port}")
        times, reason = await asyncio.to_thread(run, checks_for(given), 0)
    assert times == {}
    assert reason.startswith("health: ")
    assert "CERTIFICATE_VERIFY_FAILED" in reason


def test_a_door_that_is_closed_is_named() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    given = parameters(SETTINGS, url=f"https://{NAME}:{port}")
    _, reason = run(checks_for(given), 0)
    assert reason.startswith("health: ")
    assert "refused" in reason


SETTINGS = plan(Path("/tmp/none"), server_url=f"https://{NAME}", tls={"mode": "local_ca"})  # noqa: S108


def with_server(**changes: Any) -> dict[str, Any]:
    given = parameters(SETTINGS)
    given["settings"]["derp"]["server"] |= {"stun_listen": ["0.0.0.0:3478"], **changes}
    return given


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (with_server(), ["health", "relay", "stun"]),
        (with_server(enabled=False), ["health"]),
        (with_server(stun_listen=[]), ["health", "relay"]),
        (with_server(stun_listen=["127.0.0.1:3478", "[::1]:3478"]), ["health", "relay"]),
        ({**with_server(), "role": "relay"}, ["relay", "stun"]),
        (with_server(separate=True, listen=["0.0.0.0:8443"]), ["health", "relay", "stun"]),
    ],
    ids=["all", "no relay", "no stun", "loopback", "relay host", "relay process"],
)
def test_only_what_is_there_is_asked(given: dict[str, Any], names: list[str]) -> None:
    assert list(checks_for(given)) == names


def behind_proxy(**changes: Any) -> dict[str, Any]:
    given = {**with_server(), **changes}
    given["settings"]["tls"]["mode"] = "off"
    return given


def test_what_is_dropped_on_the_way_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headwater_probe, "ATTEMPT_S", 0.2)
    with socket.socket() as full, ExitStack() as held:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        place = full.getsockname()
        for _ in range(2):  # one in its queue; from then on the kernel drops what comes
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(place)
        _, reason = run(checks_for(parameters(SETTINGS, url=f"https://{NAME}:{place[1]}")), 0)
    assert reason.startswith(f"health: no answer from TCP port {place[1]}: something between")
    assert "nft list ruleset" in reason


def test_stun_that_is_dropped_is_said_to_be() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        given = with_server(stun_port=port)
        _, reason = run({"stun": checks_for(given)["stun"]}, 0)
    assert reason.startswith(f"stun: no answer from UDP port {port}: something between")


def test_behind_a_proxy_what_clients_reach_is_asked_too() -> None:
    assert list(checks_for(behind_proxy())) == ["health", "relay", "stun"]


def test_behind_a_proxy_it_is_the_proxy_that_is_asked() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    # The name leads nowhere, the host's own address is not asked: only the proxy refuses.
    given = behind_proxy(
        url=f"https://nowhere.invalid:{port}", address="192.0.2.1", proxy_address="127.0.0.1"
    )
    _, reason = run({"health": checks_for(given)["health"]}, 0)
    assert "refused" in reason
    assert "127.0.0.1" in place_of(given)


async def test_a_server_without_tls_is_asked_by_its_own_url(tmp_path: Path) -> None:
    settings = plan(tmp_path, server_url="http://127.0.0.1", tls={"mode": "off"})
    async with running(settings) as server:
        given = parameters(
            settings,
            url=f"http://127.0.0.1:{server.listeners[0].port}",
            proxy_address="127.0.0.1",
        )
        given["settings"]["derp"]["server"]["stun_listen"] = []
        times, reason = await asyncio.to_thread(run, checks_for(given), 5)
    assert reason == ""
    assert list(times) == ["health", "relay"]
