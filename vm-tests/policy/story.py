"""Policy denies, then allows: live, on stock clients, and again after a restart."""

from __future__ import annotations

import json
import shlex
from typing import Any

from driver.client import ECHO_PORT, Client, ClientError
from driver.face import Machines
from driver.tailnet import UNIT, Server

# What is denied is dropped in silence; what is allowed answers within milliseconds.
SILENCE_S = 3.0

NOBODY: dict[str, Any] = {"acls": []}

PAGES_ONE_WAY: dict[str, Any] = {
    "acls": [{"action": "accept", "src": ["alice@"], "dst": ["bob@:80"]}],
    "tests": [{"src": "alice@", "accept": ["bob@:80"], "deny": ["bob@:7"]}],
}

# Its own test does not hold.
MISTAKEN: dict[str, Any] = {
    "acls": [{"action": "accept", "src": ["alice@"], "dst": ["bob@:80"]}],
    "tests": [{"src": "bob@", "accept": ["alice@:80"]}],
}


def story(machines: Machines) -> None:
    """Deny everything, allow pages one way, refuse a mistaken policy, restart."""
    server = Server(machines.server)
    server.ready()
    server.cli("users", "create", "bob")
    (laptop,) = server.join(machines.laptop)
    key = str(server.cli("preauthkeys", "create", "-u", "bob", "--reusable")["key"])
    desktop, phone = server.join(machines.desktop, machines.phone, key=key)

    with machines.subtest("without a policy everybody reaches everybody"):
        for client, other in ((laptop, desktop), (desktop, phone), (phone, laptop)):
            client.sees(other.name)
            other.sees(client.name)
            # Both ways: what is silent below answered here.
            client.reaches(other)
            other.reaches(client)
    with machines.subtest("a policy that allows nothing parts them at once"):
        _set(machines, NOBODY)
        for client, other in ((laptop, desktop), (desktop, phone), (phone, laptop)):
            client.loses(other.name)
        _denied(laptop, desktop)
    with machines.subtest("one that allows pages one way allows just that"):
        _set(machines, PAGES_ONE_WAY)
        _pages_one_way(laptop, desktop)
        # Who is visited knows its visitor, to answer; who has no rule in common with another does not.
        desktop.sees(laptop.name)
        phone.sees(laptop.name)
        assert phone.name not in desktop.peers()
        assert desktop.name not in phone.peers()
    with machines.subtest("a policy whose own test fails is refused, and changes nothing"):
        before = machines.server.succeed("headwater policy get")
        said = machines.server.fail(f"printf %s {_quoted(MISTAKEN)} | headwater policy set - 2>&1")
        machines.say(said)
        assert machines.server.succeed("headwater policy get") == before
        _pages_one_way(laptop, desktop)
    with machines.subtest("the policy is in force again after a restart, from the first map on"):
        machines.server.succeed(f"systemctl restart {UNIT}")
        server.back()
        server.online(laptop, desktop, phone)
        _pages_one_way(laptop, desktop)
        assert phone.name not in desktop.peers()


def _quoted(policy: dict[str, Any]) -> str:
    return shlex.quote(json.dumps(policy))


def _set(machines: Machines, policy: dict[str, Any]) -> None:
    machines.server.succeed(f"printf %s {_quoted(policy)} | headwater policy set -")


def _reaches(client: Client, other: Client) -> bool:
    v4, _ = other.addresses()
    try:
        client.get(f"http://{v4}/", timeout_s=SILENCE_S)
    except ClientError:
        return False
    return True


def _denied(client: Client, other: Client) -> None:
    assert not _reaches(client, other)
    assert not _reaches(other, client)


def _pages_one_way(client: Client, other: Client) -> None:
    """The one fetches the other's page, gets nothing else there, and is not reached itself."""
    client.sees(other.name)
    client.reaches(other)
    v4, _ = other.addresses()
    try:
        answer = client.call(
            "dial", network="tcp", addr=f"{v4}:{ECHO_PORT}", send="x", timeout_s=SILENCE_S
        )
    except ClientError:
        pass
    else:
        raise AssertionError(f"the echo port of {other.name} answered: {answer}")
    assert not _reaches(other, client)
