"""A server with one fault: everything else goes on, and the health check names it."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.root import run
from appliance.live import LiveTailnet
from appliance.loops import Loop
from appliance.serve.server import Server
from appliance.serve.supervise import Supervisor
from appliance.tailnet import policies
from appliance.tailnet.policies import DENYING
from appliance.tailnet.snapshot import Snapshot
from tests.serve.test_server import ask, over_socket, plan, running
from tests.support.polling import until
from tests.test_whole import auth_key, connected

KINDS = (
    "certificate",
    "commit",
    "control sweep",
    "database",
    "key uses",
    "map distribution",
    "map keep-alive",
    "map leavers",
    "mesh",
    "oidc",
    "oidc refresh",
    "policy",
    "relay revocation",
    "reload",
    "tick",
    "watchdog",
)
"""Every kind of loop that a server has."""


class Faulty(Supervisor):
    """A supervisor whose loops of one kind raise at first, and as often as is wanted."""

    def __init__(self, kind: str, times: int) -> None:
        super().__init__(sleep=self._soon)
        self.kinds: set[str] = set()
        self._kind = kind
        self._times = times

    async def _soon(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))

    def start(self, *loops: Loop) -> None:
        self.kinds.update(loop.name for loop in loops)
        super().start(*(self._broken(loop) if loop.name == self._kind else loop for loop in loops))

    def _broken(self, loop: Loop) -> Loop:
        async def step() -> None:
            if self._times:
                self._times -= 1
                raise RuntimeError("a bug of this loop")
            waiting = loop.step()
            if waiting is not None:
                await waiting

        return loop._replace(step=step)


def whole(home: Path) -> Any:
    """Give the settings of a server that has every kind of loop."""
    mesh_key = home / "mesh.key"
    mesh_key.write_text("ab" * 32)
    mesh = {"key_file": str(mesh_key), "peers": ["https://127.0.0.1:1/derp"]}
    nobody = {"issuer": "https://127.0.0.1:1", "client_id": "headwater"}
    return plan(
        home,
        server_url="https://127.0.0.1",
        tls={"mode": "local_ca"},
        derp={"server": {"stun_listen": ["127.0.0.1:0"], "mesh": mesh}},
        oidc=[nobody],
    )


async def health(server: Server) -> dict[str, Any]:
    answer = await over_socket(server.settings.socket.path, "/api/v1/health")
    return dict(json.loads(answer.partition("\r\n\r\n")[2]))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_loop_that_raises_is_named_and_ends_nothing(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D2: any of them ended the whole server."""
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    supervisor = Faulty(kind, times=3)
    async with asyncio.timeout(30), running(whole(tmp_path), supervisor=supervisor) as server:
        assert supervisor.kinds == set(KINDS), "a kind that is missing here has no test"
        await until(lambda: supervisor.failures[kind] == 3)
        context = ssl.create_default_context(cafile=str(server.ca_file))
        assert "mkey:" in await ask(server, "/key?v=130", context)
        assert await auth_key(server), "edits are committed"
        metrics = await over_socket(server.settings.socket.path, "/metrics")
        assert f'headwater_loop_failures_total{{loop="{kind}"}} 3.0' in metrics


async def test_a_loop_that_goes_on_failing_is_a_warning_of_the_health_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor = Faulty("policy", times=10**9)
    async with asyncio.timeout(30), running(plan(tmp_path), supervisor=supervisor) as server:
        await until(lambda: supervisor.failures["policy"] > 0)
        (one,) = (await health(server))["failing"]
        assert (one["name"], one["about"]) == ("policy", "default")
        assert one["reason"] == "a bug of this loop"
        assert one["failures"] >= 1
        assert "T" in one["since"]
        assert '{"status":"warn"}' in await ask(server, "/health")
        metrics = await over_socket(server.settings.socket.path, "/metrics")
        assert 'headwater_loop_failing{loop="policy"} 1.0' in metrics
        command = ["--socket", str(server.settings.socket.path), "health"]
        assert await asyncio.to_thread(run, command) == 0
        assert "policy (default) fails since" in capsys.readouterr().err


async def test_a_policy_that_meets_a_bug_denies_everything_in_its_own_tailnet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D2: a fault of the compiler for one stored record kept the server from ever starting."""

    def settle(old: Snapshot, new: Snapshot) -> Snapshot:
        if new.tailnet.name == "lab" and new.policy is not DENYING:
            raise KeyError("a bug of the compiler")
        return policies.settle(old, new)

    monkeypatch.setattr("appliance.serve.runtime.LiveTailnet", partial(LiveTailnet, settle=settle))
    settings = plan(tmp_path, tailnets=[{"name": "lab", "base_domain": "lab.internal"}])
    async with asyncio.timeout(30), running(settings) as server:
        default, lab = (runtime.policy.status for runtime in server.runtimes)
        assert (default.denies_all, default.trouble) == (False, "")
        assert lab.denies_all
        reported = await health(server)
        assert list(reported["policyTrouble"]) == ["lab"]
        assert "a bug of the compiler" in reported["policyTrouble"]["lab"]
        key = await auth_key(server)
        async with connected(server, "one") as (one,):
            assert (await one.enrol(key))["MachineAuthorized"]


async def test_nodes_poll_on_while_loops_fail(tmp_path: Path) -> None:
    supervisor = Faulty("map distribution", times=2)
    async with asyncio.timeout(30), running(plan(tmp_path), supervisor=supervisor) as server:
        key = await auth_key(server)
        async with connected(server, "one", "two") as (one, two):
            await one.enrol(key)
            await one.listen()
            await two.enrol(key)
            while not any("PeersChanged" in message for message in one.heard):
                await one.hear(len(one.heard) + 1)
    assert supervisor.failures["map distribution"] == 2


Damage = Callable[[Path], None]


def _garbage(directory: Path) -> None:
    (directory / "ca.key").write_text("garbage")


def _gone(directory: Path) -> None:
    (directory / "ca.key").unlink()
    (directory / "ca.key").mkdir()


@pytest.mark.parametrize("damage", [_garbage, _gone])
async def test_a_damaged_authority_leaves_the_certificate_in_memory(
    tmp_path: Path, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    """D2: ``ca.key`` damaged under a running server ended it at the next renewal."""
    caplog.set_level(logging.INFO, "appliance")
    settings = plan(tmp_path, server_url="https://127.0.0.1", tls={"mode": "local_ca"})
    async with asyncio.timeout(30), running(settings) as server:
        ca = (settings.state_dir / "tls" / "ca.pem").read_text()
        damage(settings.state_dir / "tls")
        (settings.state_dir / "tls" / "server.pem").unlink()  # so that a new one is due
        server.reload()
        await until(lambda: "no new certificate, the one in use stays" in caplog.text)
        assert "mkey:" in await ask(server, "/key?v=130", ssl.create_default_context(cadata=ca))
