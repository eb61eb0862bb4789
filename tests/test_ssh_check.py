"""SSH check mode from end to end: a node asks through Noise, a person answers on the socket."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from appliance.identity.principals import LOCAL
from appliance.policy.answers.admission import admit
from appliance.serve.server import Server
from appliance.tailnet import nodes, policies
from tests.serve.test_server import plan, running
from tests.support.polling import until
from tests.test_whole import Node, auth_key, connected

POLICY = {
    "tagOwners": {"tag:web": ["autogroup:admin"]},
    "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
    "ssh": [
        {"action": "check", "src": ["autogroup:member"], "dst": ["tag:web"], "users": ["root"]}
    ],
}


async def on_socket(path: Path, method: str, target: str) -> Any:
    """Make one call on the local socket; give the decoded body."""
    reader, writer = await asyncio.open_unix_connection(path)
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()
    return json.loads(answer.partition(b"\r\n\r\n")[2])


async def get(node: Node, target: str) -> Any:
    """Ask as the node, with a GET."""
    stream = node.client.request(target, method="GET")
    node._send()
    answer = node.client.answers[stream]
    while not answer.ended:
        await node._receive()
    assert answer.status == 200, bytes(answer.body)
    return json.loads(answer.body)


async def rule(server: Server, tagged: str) -> None:
    live = server.tailnets.default
    async with live.edit(by=LOCAL, act="test.change") as edit:
        known = edit.users, edit.nodes, policies.background(edit)
        admitted = admit(json.dumps(POLICY), *known)
        policies.replace_policy(edit, admitted, live.clock(), source="database", by="test")
        nodes.set_tags(edit, edit.by_name[tagged], ["tag:web"], live.clock())


async def test_a_login_waits_for_a_person_and_gets_in(tmp_path: Path) -> None:
    async with asyncio.timeout(30), running(plan(tmp_path)) as server:
        key = await auth_key(server)
        async with connected(server, "laptop", "srv") as (laptop, srv):
            await laptop.enrol(key)
            await srv.enrol(key)
            await rule(server, "srv")
            await srv.listen()
            told = json.dumps(srv.heard)
            assert "/machine/ssh/action/$SRC_NODE_ID/to/$DST_NODE_ID" in told
            by_name = server.tailnets.default.snapshot.by_name
            source, destination = by_name["laptop"], by_name["srv"]
            first = f"/machine/ssh/action/{source}/to/{destination}?local_user=root"
            held = await get(srv, first)
            checks = await on_socket(tmp_path / "s", "GET", "/api/v1/ssh/check")
            [check] = checks["checks"]
            assert (check["source"], check["destination"]) == ("laptop", "srv")
            assert check["id"] in held["message"]
            follow = f"{first}&check={check['id']}"
            assert held["holdAndDelegate"].endswith(f"local_user=$LOCAL_USER&check={check['id']}")
            waiting = asyncio.create_task(get(srv, follow))
            [pending] = server.ssh_checks.pending(
                server.tailnets.default.id, server.tailnets.default.clock()
            )
            await until(lambda: bool(pending.decided._waiters))
            await on_socket(tmp_path / "s", "POST", f"/api/v1/ssh/check/{check['id']}/approve")
            assert (await waiting)["accept"] is True
            # The next session passes silently; another machine may not even ask.
            assert (await get(srv, first))["accept"] is True
            stream = laptop.client.request(first, method="GET")
            laptop._send()
            while not laptop.client.answers[stream].ended:
                await laptop._receive()
            assert laptop.client.answers[stream].status == 404


async def test_a_server_that_stops_lets_nobody_wait(tmp_path: Path) -> None:
    async with asyncio.timeout(30):
        async with running(plan(tmp_path)) as server:
            key = await auth_key(server)
            many = connected(server, "laptop", "srv")
            laptop, srv = await many.__aenter__()
            await laptop.enrol(key)
            await srv.enrol(key)
            await rule(server, "srv")
            by_name = server.tailnets.default.snapshot.by_name
            target = f"/machine/ssh/action/{by_name['laptop']}/to/{by_name['srv']}?local_user=root"
            await get(srv, target)
            live = server.tailnets.default
            [check] = server.ssh_checks.pending(live.id, live.clock())
            waiting = asyncio.create_task(get(srv, f"{target}&check={check.id}"))
            await until(lambda: bool(check.decided._waiters))
        await asyncio.gather(waiting, return_exceptions=True)
        await many.__aexit__(None, None, None)
