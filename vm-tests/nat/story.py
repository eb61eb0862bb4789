"""NAT on both sides: easy routers are punched through, a hard one leaves the relay."""

from __future__ import annotations

from driver import routers
from driver.client import ClientError
from driver.face import Machines
from driver.tailnet import REGION, Server

# A direct path through a hard router would show within this time.
NO_DIRECT_S = 5.0


def story(machines: Machines) -> None:
    """Put three nodes behind routers of their own, one of which takes random ports."""
    server = Server(machines.server)
    server.ready()
    for router in (machines.home, machines.office):
        routers.translate(router)
    routers.translate(machines.hotel, hard=True)
    with machines.subtest("nobody is reachable from outside"):
        machines.laptop.succeed(f"ping -c 1 -W 5 192.168.1.{_number(machines, 'server')}")
        machines.server.fail(f"ping -c 1 -W 1 192.168.2.{_number(machines, 'laptop')}")
        laptop, desktop, phone = server.join(machines.laptop, machines.desktop, machines.phone)
    with machines.subtest("two easy routers are punched through"):
        laptop.sees(desktop.name)
        desktop.sees(laptop.name)
        laptop.reaches(desktop)
        v4, _ = desktop.addresses()
        path = laptop.ping_until_direct(v4)
        # The router's address, not that of the machine behind it.
        assert path.endpoint.startswith(f"192.168.1.{_number(machines, 'office')}:"), path
        laptop.stream_start("direct", desktop)
        stats = laptop.stream_stop("direct")
        machines.say(f"longest silence {stats['max_gap_s']:.2f} s")
    with machines.subtest("a hard router leaves the relay"):
        phone.sees(laptop.name)
        laptop.sees(phone.name)
        phone.reaches(laptop)
        laptop.reaches(phone)
        v4, _ = laptop.addresses()
        try:
            path = phone.ping_until_direct(v4, timeout_s=NO_DIRECT_S)
        except ClientError:
            assert phone.ping(v4).region == REGION
        else:
            raise AssertionError(f"a direct path through a router with random ports: {path}")


def _number(machines: Machines, name: str) -> int:
    """The last part of a machine's addresses, by the rule that both drivers have."""
    return 1 + list(machines).index(name)
