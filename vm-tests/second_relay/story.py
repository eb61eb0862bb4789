"""A second relay host, meshed with the first: packets cross between them, and each takes over."""

from __future__ import annotations

from driver import routers
from driver.client import Client
from driver.face import Machines
from driver.tailnet import RELAY_UNIT, Server

REGION = 901

# A client finds its connection broken at once, then dials the other relay.
TAKEN_OVER_S = 15.0


def story(machines: Machines) -> None:
    """Let two nodes sit on different relays of a region, and take one relay away."""
    server = Server(machines.server)
    server.ready(authority=False)
    for relay in (machines.relay1, machines.relay2):
        relay.wait_for_unit(RELAY_UNIT)
        relay.wait_until_succeeds(f"curl -fsS https://{relay.name}/derp/probe", timeout=30)
    for machine in (machines.laptop, machines.desktop):
        routers.block_udp(machine)
    with machines.subtest("nodes on different relays of the region reach each other"):
        # The first relay of a region is preferred; one node cannot get to it.
        routers.refuse_tcp(machines.desktop, "relay1")
        laptop, desktop = server.join(machines.laptop, machines.desktop)
        laptop.sees(desktop.name)
        desktop.sees(laptop.name)
        laptop.reaches(desktop)
        desktop.reaches(laptop)
        _relayed(laptop, desktop)
        assert _connected(machines, "relay1", machines.laptop.name)
        assert _connected(machines, "relay2", machines.desktop.name)
    with machines.subtest("a stranger is refused by both"):
        for host in ("relay1", "relay2"):
            answer = laptop.call("relay_stranger", url=f"https://{host}/derp")
            assert answer["admitted"] is False, answer
    with machines.subtest("the second takes over when the first loses power"):
        laptop.stream_start("kept", desktop)
        machines.relay1.crash()
        laptop.stream_moves("kept")
        assert _connected(machines, "relay2", machines.laptop.name)
        _relayed(laptop, desktop)
    with machines.subtest("the first comes back and takes over from the second"):
        machines.relay1.start()
        machines.relay1.wait_for_unit(RELAY_UNIT)
        routers.allow(machines.desktop, "tcp")
        machines.relay2.crash()
        laptop.stream_moves("kept")
        stats = laptop.stream_stop("kept")
        machines.say(f"longest silence {stats['max_gap_s']:.2f} s")
        assert stats["max_gap_s"] < TAKEN_OVER_S, stats
        _relayed(laptop, desktop)


def _relayed(left: Client, right: Client) -> None:
    path = left.ping(right.addresses()[0])
    assert not path.direct, path
    assert path.region == REGION, path


def _connected(machines: Machines, relay: str, node: str) -> bool:
    """Tell whether a node has a connection to a relay, by the relay's own sockets."""
    address = machines[relay].succeed(f"getent ahosts {node} | cut -d ' ' -f 1 | sort -u")
    peers = machines[relay].succeed("ss -Htn state established '( sport = :443 )'")
    return any(each in peers for each in address.split())
