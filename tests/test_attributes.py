"""Posture attributes on a whole server: what they let through, on sessions that are open."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from appliance.cli.client import Client, SocketWay
from appliance.identity.principals import LOCAL
from appliance.live import LiveTailnet, utc_now
from appliance.policy.answers.admission import admit
from appliance.records import Attribute
from appliance.serve.server import Server
from appliance.tailnet import nodes, policies
from tests.serve.test_server import plan, running
from tests.test_whole import Node, auth_key, connected

HOUR = timedelta(hours=1)
POLICY = {
    "tagOwners": {"tag:web": ["autogroup:admin"]},
    "postures": {"posture:trusted": ["custom:level >= 3"]},
    "acls": [
        {
            "action": "accept",
            "src": ["autogroup:member"],
            "dst": ["tag:web:443"],
            "srcPosture": ["posture:trusted"],
        }
    ],
}


async def rule(live: LiveTailnet) -> None:
    """Put the policy in force, and tag the server."""
    async with live.edit(by=LOCAL, act="test.change") as edit:
        known = edit.users, edit.nodes, policies.background(edit)
        admitted = admit(json.dumps(POLICY), *known)
        policies.replace_policy(edit, admitted, live.clock(), source="database", by="test")
        nodes.set_tags(edit, edit.by_name["srv"], ["tag:web"], live.clock())


async def call(server: Server, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Make one call on the local socket."""
    client = Client(SocketWay(server.settings.socket.path))
    return await asyncio.to_thread(client.call, method, f"/api/v1/{path}", body)


async def hears(node: Node, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until a node hears a message like that; forget it and those before."""
    while True:
        for number, message in enumerate(node.heard):
            if what(message):
                del node.heard[: number + 1]
                return message
        await node.hear(len(node.heard) + 1)


def filter_of(message: dict[str, Any]) -> str:
    """Give the rules that a message brings, as text."""
    rules = [message[name] for name in ("PacketFilter", "PacketFilters") if name in message]
    return json.dumps(rules) if rules else ""


def at(moment: datetime) -> Callable[[], datetime]:
    return lambda: moment


async def test_attribute_opens_a_rule_and_its_expiry_closes_it(tmp_path: Path) -> None:
    async with asyncio.timeout(30), running(plan(tmp_path)) as server:
        live = server.tailnets.default
        key = await auth_key(server)
        async with connected(server, "laptop", "srv") as (laptop, srv):
            await laptop.enrol(key)
            await srv.enrol(key)
            await rule(live)
            await laptop.listen()
            await srv.listen()
            ids = live.snapshot.by_name
            mine, theirs = ids["laptop"], ids["srv"]
            address = str(live.snapshot.nodes[mine].ipv4)
            assert not laptop.heard[0].get("Peers")
            assert address not in filter_of(srv.heard[0])

            now = live.clock()
            body = {"value": 4, "expiry": (now + HOUR).isoformat()}
            await call(server, "POST", f"node/{mine}/attributes/custom:level", body)
            opened = await hears(laptop, lambda m: "PeersChanged" in m)
            assert [peer["ID"] for peer in opened["PeersChanged"]] == [theirs]
            await hears(srv, lambda m: address in filter_of(m))
            program = _program(live)

            live.clock = at(now + HOUR)
            await live.tick()
            closed = await hears(laptop, lambda m: "PeersRemoved" in m)
            assert closed["PeersRemoved"] == [theirs]
            await hears(srv, lambda m: bool(filter_of(m)) and address not in filter_of(m))
            assert live.snapshot.nodes[mine].attributes == ()
            assert _program(live) is program, "nothing was compiled from scratch"


async def test_a_node_cannot_give_itself_attributes(tmp_path: Path) -> None:
    """It would open for itself what a posture is to keep shut."""
    async with asyncio.timeout(30), running(plan(tmp_path)) as server:
        live = server.tailnets.default
        key = await auth_key(server)
        async with connected(server, "laptop") as (laptop,):
            await laptop.enrol(key)
            said = {"Version": 140, "NodeKey": str(laptop.key), "Update": {"custom:level": 9}}
            stream = laptop.client.request(
                "/machine/set-device-attr", json.dumps(said).encode(), method="PATCH"
            )
            laptop._send()
            answer = laptop.client.answers[stream]
            while not answer.ended:
                await laptop._receive()
            assert answer.status == 501
            assert b"administrator" in answer.body
            (node,) = live.snapshot.nodes.values()
            assert node.attributes == ()


async def test_what_ran_out_while_the_server_was_down_is_gone_when_its_doors_open(
    tmp_path: Path,
) -> None:
    settings = plan(tmp_path)
    async with asyncio.timeout(30), running(settings) as server:
        live = server.tailnets.default
        key = await auth_key(server)
        async with connected(server, "laptop") as (laptop,):
            await laptop.enrol(key)
        (node,) = live.snapshot.nodes.values()
        live.clock = at(utc_now() - 2 * HOUR)
        over = Attribute("custom:level", 4, utc_now() - HOUR)
        lasting = Attribute("custom:team", "ops", utc_now() + HOUR)
        async with live.edit(by=LOCAL, act="test.change") as edit:
            edit.put(replace(edit.nodes[node.id], attributes=(over, lasting)))
        await live.tick()
        assert len(live.snapshot.nodes[node.id].attributes) == 2
    async with asyncio.timeout(30), running(settings) as server:
        live = server.tailnets.default
        assert live.snapshot.nodes[node.id].attributes == (lasting,)
        shown = await call(server, "GET", f"node/{node.id}/attributes")
        assert shown["attributes"] == {"custom:team": "ops"}


async def test_explain_and_dump_know_what_a_node_was_given(tmp_path: Path) -> None:
    async with asyncio.timeout(30), running(plan(tmp_path)) as server:
        live = server.tailnets.default
        key = await auth_key(server)
        async with connected(server, "laptop", "srv") as (laptop, srv):
            await laptop.enrol(key)
            await srv.enrol(key)
        await rule(live)
        question = {"src": "laptop", "dst": "srv:443"}
        mine = live.snapshot.by_name["laptop"]
        path = f"node/{mine}/attributes/custom:level"
        for value, said in (
            (2, "posture:trusted wants custom:level >= 3, it is 2"),
            ("high", "it is high"),
            (True, "it is true"),
        ):
            await call(server, "POST", path, {"value": value})
            answer = await call(server, "POST", "policy/explain", question)
            assert answer["allowed"] is False
            assert said in json.dumps(answer)
        await call(server, "POST", path, {"value": 3})
        assert (await call(server, "POST", "policy/explain", question))["allowed"] is True
        dumped = await call(server, "GET", "policy/dump")
        given = {node["name"]: node.get("attributes") for node in dumped["nodes"]}
        assert given == {"laptop": {"custom:level": 3}, "srv": None}


async def test_a_posture_guards_ssh_too(tmp_path: Path) -> None:
    async with asyncio.timeout(30), running(plan(tmp_path)) as server:
        live = server.tailnets.default
        key = await auth_key(server)
        async with connected(server, "laptop", "srv") as (laptop, srv):
            await laptop.enrol(key)
            await srv.enrol(key)
            await rule(live)
            guarded = {
                "action": "accept",
                "src": ["autogroup:member"],
                "dst": ["tag:web"],
                "users": ["root"],
                "srcPosture": ["posture:trusted"],
            }
            text = json.dumps({**POLICY, "ssh": [guarded]})
            await call(server, "PUT", "policy", {"policy": text})
            await srv.listen()
            mine = live.snapshot.by_name["laptop"]
            address = str(live.snapshot.nodes[mine].ipv4)
            path = f"node/{mine}/attributes/custom:level"
            await call(server, "POST", path, {"value": 3})
            await hears(srv, lambda m: address in json.dumps(m.get("SSHPolicy")))
            await call(server, "DELETE", path)
            await hears(srv, lambda m: "SSHPolicy" in m and address not in json.dumps(m))


def _program(live: LiveTailnet) -> object:
    state = live.snapshot.compiled.state
    assert state is not None
    return state.rule_index
