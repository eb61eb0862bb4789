"""A whole server and its policies: first start, restart, change, reload, kill; what it says of them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from appliance.config import Settings
from appliance.identity.principals import LOCAL
from appliance.live.policy import PolicyKeeper, PolicyStatus
from appliance.policy.text.document import decode
from appliance.serve.server import Server
from appliance.store.store import Database
from tests.serve.test_server import ask, over_socket, plan, running
from tests.support.controlclient import ControlClient
from tests.support.polling import until
from tests.test_whole import Node, auth_key, connected, server_key

CLOSED = '{"acls": []}'
OPEN = '{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}'
MANY_WRITES = 8
START_S = 30.0
"""What the start of a server in a process of its own may take on a busy machine."""


def keeper_of(server: Server) -> PolicyKeeper:
    return server.runtimes[0].policy


def status_of(server: Server) -> PolicyStatus:
    return keeper_of(server).status


def text_of(server: Server) -> str:
    record = status_of(server).in_force
    return "" if record is None else record.text


def with_file(home: Path, path: Path, **more: Any) -> Settings:
    return plan(home, tailnet={"policy": {"mode": "file", "path": str(path)}, **more})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.hujson"
    path.write_text(CLOSED)
    return path


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.live.policy.POLL_S", 0.01)


async def told(server: Server) -> tuple[str, dict[str, Any], str]:
    """Give what the server says of its health: to anybody, on its socket, and its metrics."""
    public = (await ask(server, "/health")).splitlines()[-1]
    local = await over_socket(server.settings.socket.path, "/api/v1/health")
    metrics = await over_socket(server.settings.socket.path, "/metrics")
    health = json.loads(local.splitlines()[-1])
    health.pop("warnings", None)  # of a site without TLS
    return json.loads(public)["status"], health, metrics


async def test_what_was_set_is_in_force_after_a_restart(tmp_path: Path) -> None:
    async with running(plan(tmp_path)) as server:
        assert (text_of(server), status_of(server).trouble) == ("", "")
        record = await keeper_of(server).replace(CLOSED, LOCAL)
    async with running(plan(tmp_path)) as server:
        assert status_of(server).in_force == record
        assert server.tailnets.default.snapshot.policy.acls == ()
        grade, health, metrics = await told(server)
    assert (grade, health) == ("pass", {"databaseConnectivity": True})
    (line,) = [x for x in metrics.splitlines() if x.startswith("headwater_policy_since_seconds{")]
    name, value = line.split()
    assert name.endswith('{tailnet="default"}')
    assert float(value) == pytest.approx(record.created_at.timestamp(), abs=0.001)
    assert 'headwater_policy_trouble{tailnet="default"} 0.0' in metrics


async def test_a_file_is_in_force_from_the_first_start(tmp_path: Path, path: Path) -> None:
    async with running(with_file(tmp_path, path)) as server:
        first = status_of(server).in_force
        assert first is not None
        assert (first.text, first.source) == (CLOSED, "file")
    async with running(with_file(tmp_path, path)) as server:
        assert status_of(server).in_force == first


async def test_a_file_that_changed_while_the_server_was_down_is_taken(
    tmp_path: Path, path: Path
) -> None:
    async with running(with_file(tmp_path, path)) as server:
        assert text_of(server) == CLOSED
    write(path, OPEN)
    async with running(with_file(tmp_path, path)) as server:
        assert text_of(server) == OPEN


async def test_a_file_that_broke_while_the_server_was_down_leaves_the_last_good_one(
    tmp_path: Path, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(with_file(tmp_path, path)) as server:
        good = status_of(server).in_force
    write(path, '{"acls": [],\n "groups": 5}')
    async with running(with_file(tmp_path, path)) as server:
        assert status_of(server).in_force == good
        assert server.tailnets.default.snapshot.policy.acls == ()
        grade, health, metrics = await told(server)
    assert grade == "warn"
    assert health["databaseConnectivity"] is True
    assert "line 2, column" in health["policyTrouble"]["default"]
    assert 'headwater_policy_trouble{tailnet="default"} 1.0' in metrics
    assert 'headwater_policy_refused_total{tailnet="default"} 1.0' in metrics
    assert "policy refused, the one in force stays" in caplog.text


async def test_a_file_that_went_missing_leaves_the_last_good_one(
    tmp_path: Path, path: Path
) -> None:
    async with running(with_file(tmp_path, path)) as server:
        good = status_of(server).in_force
    remove(path)
    async with running(with_file(tmp_path, path)) as server:
        assert status_of(server).in_force == good
        assert "there is no such file" in status_of(server).trouble


@pytest.mark.usefixtures("_soon")
async def test_a_first_start_without_the_file_denies_everything_until_it_comes(
    tmp_path: Path, path: Path
) -> None:
    remove(path)
    async with running(with_file(tmp_path, path)) as server:
        assert (status_of(server).denies_all, text_of(server)) == (True, "")
        assert server.tailnets.default.snapshot.policy.acls == ()
        grade, _, metrics = await told(server)
        assert grade == "warn"
        assert 'headwater_policy_trouble{tailnet="default"} 2.0' in metrics
        write(path, OPEN)
        await until(lambda: text_of(server) == OPEN and not status_of(server).trouble)


@pytest.mark.usefixtures("_soon")
async def test_a_running_server_follows_its_file(
    tmp_path: Path, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with running(with_file(tmp_path, path)) as server:
        write(path, OPEN)
        await until(lambda: text_of(server) == OPEN)
        write(path, OPEN[:20])
        await until(lambda: bool(status_of(server).trouble))
        assert text_of(server) == OPEN
        other = path.with_suffix(".new")
        write(other, CLOSED)
        other.rename(path)
        await until(lambda: text_of(server) == CLOSED and not status_of(server).trouble)
    assert caplog.text.count("policy set") == 3


def write(path: Path, text: str) -> None:
    """Write as an editor does that knows nothing better."""
    path.write_text(text)


def remove(path: Path) -> None:
    """Remove a file."""
    path.unlink()


def spoil(home: Path, text: str) -> None:
    """Change the stored policy, as a release that took more would have left it."""
    with closing(sqlite3.connect(home / "state" / "headwater.db")) as connection:
        connection.execute("UPDATE policies SET text = ?", (text,))
        connection.commit()


async def test_a_stored_policy_that_this_release_does_not_take_denies_everything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(plan(tmp_path)) as server:
        await keeper_of(server).replace(OPEN, LOCAL)
    spoil(tmp_path, '{"futures": []}')
    async with running(plan(tmp_path)) as server:
        status = status_of(server)
        assert (status.denies_all, status.in_force) == (True, None)
        assert 'unknown field "futures"' in status.trouble
        assert server.tailnets.default.snapshot.policy.acls == ()
        record = server.tailnets.default.snapshot.policy_text
        assert record is not None
        assert record.text == '{"futures": []}'  # to be read and mended
        await keeper_of(server).replace(OPEN, LOCAL)
        assert (status_of(server).denies_all, status_of(server).trouble) == (False, "")
    assert "no policy can be used: everything is denied" in caplog.text


async def test_a_good_file_mends_a_stored_policy_that_is_not_taken(
    tmp_path: Path, path: Path
) -> None:
    async with running(with_file(tmp_path, path)) as server:
        assert text_of(server) == CLOSED
    spoil(tmp_path, "{")
    async with running(with_file(tmp_path, path)) as server:
        assert (text_of(server), status_of(server).trouble) == (CLOSED, "")


async def test_a_policy_whose_tests_fail_by_now_stays_in_force(tmp_path: Path) -> None:
    text = '{"acls": [], "tests": [{"src": "alice@", "deny": ["100.64.0.9:22"]}]}'
    async with running(plan(tmp_path)) as server:
        await keeper_of(server).replace(CLOSED, LOCAL)
    spoil(tmp_path, text)  # alice is gone
    async with running(plan(tmp_path)) as server:
        assert (text_of(server), status_of(server).denies_all) == (text, False)


async def test_a_reload_changes_source_text_and_domains(tmp_path: Path, path: Path) -> None:
    def in_settings(document: object, domains: list[str]) -> Settings:
        policy = {"mode": "settings", "document": document}
        return plan(tmp_path, tailnet={"policy": policy, "email_domains": domains})

    rule = {"action": "accept", "src": ["user:*@example.com"], "dst": ["*:*"]}
    current = [with_file(tmp_path, path)]
    async with running(current[0], lambda: current[-1]) as server:
        current.append(in_settings({"acls": [rule]}, []))
        server.reload()
        await until(lambda: "example.com" in status_of(server).trouble)
        assert text_of(server) == CLOSED
        current.append(in_settings({"acls": [rule]}, ["example.com"]))
        server.reload()
        await until(lambda: "user:*@example.com" in text_of(server))
        assert (status_of(server).source, status_of(server).trouble) == ("settings", "")
        assert json.loads(text_of(server)) == {"acls": [rule]}
    # The domains are known before the stored policy is read.
    async with running(current[-1]) as server:
        assert (status_of(server).trouble, status_of(server).denies_all) == ("", False)


async def test_each_tailnet_has_a_policy_of_its_own(tmp_path: Path, path: Path) -> None:
    lab = {
        "name": "lab",
        "base_domain": "lab.internal",
        "policy": {"mode": "file", "path": str(path)},
    }
    async with running(plan(tmp_path, tailnets=[lab])) as server:
        sources = {each.name: each.policy.status for each in server.runtimes}
        assert sources["default"].in_force is None
        assert sources["lab"].in_force is not None
    # Dropped from the settings: served as it was.
    async with running(plan(tmp_path)) as server:
        sources = {each.name: each.policy.status for each in server.runtimes}
        assert sources["lab"].in_force is not None
        assert sources["lab"].source == "database"


@pytest.mark.usefixtures("_soon")
async def test_nodes_are_parted_and_joined_by_a_file_and_across_a_restart(
    tmp_path: Path, path: Path
) -> None:
    settings = with_file(tmp_path, path)
    async with asyncio.timeout(30), running(settings) as server:
        key = await auth_key(server)
        async with connected(server, "one", "two") as (one, two):
            await one.enrol(key)
            await one.listen()
            await two.enrol(key)
            await two.listen()
            assert not two.heard[0].get("Peers")
            write(path, OPEN)
            while not any("PeersChanged" in message for message in one.heard):
                await one.hear(len(one.heard) + 1)
            write(path, CLOSED)
            while not any("PeersRemoved" in message for message in one.heard):
                await one.hear(len(one.heard) + 1)
    remove(path)
    async with asyncio.timeout(30), running(settings) as server:
        again = Node(ControlClient(await server_key(server), machine=one.client.machine), "one")
        again.key = one.key
        host, port = server.listeners[0].addresses[0][:2]
        await again.connect(host, port)
        await again.listen()
        assert again.heard[0]["Node"]["Name"] == "one.tailnet.internal."
        assert not again.heard[0].get("Peers")
        await again.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from appliance.identity.principals import LOCAL
from appliance.serve.server import Server
from tests.serve.test_server import plan

async def main():
    server = Server(plan(Path(sys.argv[1])))
    async def write():
        keeper = server.runtimes[0].policy
        n = 0
        while True:
            record = await keeper.replace('{"acls": []} // %d' % n, LOCAL)
            print(record.id, flush=True)
            n += 1
    await server.run(write)

asyncio.run(main())
"""


async def test_a_server_that_is_killed_between_writes_loses_no_policy(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_S):
            said = [int(await process.stdout.readline()) for _ in range(MANY_WRITES)]
    finally:
        process.kill()
        rest, _ = await process.communicate()
    said += [int(line) for line in rest.splitlines(keepends=True) if line.endswith(b"\n")]
    database = Database.open(f"sqlite:///{tmp_path}/state/headwater.db")
    try:
        await database.migrate()
        (snapshot,), ids = await database.load()
    finally:
        await database.close()
    record = snapshot.policy_text
    assert record is not None
    assert record.id >= said[-1]
    assert ids.policy >= record.id
    assert decode(record.text).acls == ()
    async with running(plan(tmp_path)) as server:
        assert status_of(server).in_force == record
