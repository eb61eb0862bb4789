"""Relay when UDP is blocked: nothing but TCP to the server is left, and the nodes still talk."""

from __future__ import annotations

from driver import routers
from driver.face import Machines
from driver.tailnet import REGION, Server


def story(machines: Machines) -> None:
    """Block UDP, talk through the relay, unblock it and talk directly without a break."""
    server = Server(machines.server)
    server.ready()
    with machines.subtest("neither UDP to peers nor STUN gets out"):
        for machine in (machines.laptop, machines.desktop):
            routers.block_udp(machine)
        left, right = server.join(machines.laptop, machines.desktop)
    with machines.subtest("the relay carries everything"):
        left.sees(right.name)
        right.sees(left.name)
        left.reaches(right)
        right.reaches(left)
        v4, _ = right.addresses()
        path = left.ping(v4)
        assert not path.direct, path
        assert path.region == REGION, path
    with machines.subtest("a stream moves to the direct path when UDP comes back"):
        left.stream_start("moving", right)
        for machine in (machines.laptop, machines.desktop):
            routers.allow(machine, "udp")
        # A client looks at its network when that changes; nothing here tells it but this.
        for client in (left, right):
            client.call("debug", action="restun")
        left.ping_until_direct(v4)
        left.stream_moves("moving")
        stats = left.stream_stop("moving")
        machines.say(f"longest silence {stats['max_gap_s']:.2f} s")
