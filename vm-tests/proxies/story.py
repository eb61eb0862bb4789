"""A reverse proxy in front: nginx, then Caddy in its place; control and relay go through it."""

from __future__ import annotations

from driver import routers
from driver.face import Machines
from driver.tailnet import REGION, Server


def story(machines: Machines) -> None:
    """Enrol and talk through nginx, replace it by Caddy, talk on and enrol one more."""
    server = Server(machines.server, url="https://front")
    server.ready(authority=False)
    machines.front.succeed("systemctl start nginx")
    for machine in (machines.laptop, machines.desktop):
        routers.block_udp(machine)
    with machines.subtest("the server itself is plain"):
        machines.front.succeed("curl -fsS http://server:8080/health")
    with machines.subtest("two nodes enrol and talk through nginx"):
        laptop, desktop = server.join(machines.laptop, machines.desktop)
        laptop.sees(desktop.name)
        desktop.sees(laptop.name)
        laptop.reaches(desktop)
        desktop.reaches(laptop)
        path = laptop.ping(desktop.addresses()[0])
        assert not path.direct, path
        assert path.region == REGION, path
    with machines.subtest("the server knows who is behind the proxy"):
        # The relay tells whom it refused, by address: that of the machine, not that of the proxy.
        for client in (laptop, desktop):
            answer = client.call("relay_stranger", url="https://front/derp")
            assert answer["admitted"] is False, answer
            found = machines.server.succeed(f"getent ahosts {client.name} | cut -d ' ' -f 1")
            addresses = "|".join(each.replace(".", "\\.") for each in set(found.split()))
            machines.server.succeed(
                "journalctl -u headwater --no-pager"
                f" | grep -E 'not admitted.* remote=({addresses})( |$)'"
            )
    with machines.subtest("Caddy takes nginx' place, and nobody enrols again"):
        before = [client.identity() for client in (laptop, desktop)]
        machines.front.succeed("systemctl stop nginx", "systemctl start caddy")
        machines.front.wait_for_open_port(443)
        server.online(laptop, desktop)
        laptop.stream_start("through-caddy", desktop)
        laptop.stream_stop("through-caddy")
        laptop.reaches(desktop)
        assert [client.identity() for client in (laptop, desktop)] == before
    with machines.subtest("a third node enrols through Caddy"):
        (tablet,) = server.join(machines.laptop, name="tablet")
        tablet.sees(desktop.name)
        tablet.reaches(desktop)
