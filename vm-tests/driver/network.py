"""The networks of a story: bridges, and the interfaces that plug machines into them.

For: one bridge a VLAN inside the sandbox, and one network namespace a machine, with the addresses
that NixOS' driver would give: 192.168.VLAN.NUMBER and 2001:db8:VLAN::NUMBER. Not for routing and
translation, which machines do themselves.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from driver.spec import Spec


def ip(*lines: str, where: str = "") -> None:
    """Run `ip` commands, in one process."""
    command = ["ip", *(["-netns", where] if where else []), "-batch", "-"]
    subprocess.run(command, input="\n".join(lines) + "\n", text=True, check=True, timeout=60)


def v4(vlan: int, number: int) -> str:
    """A machine's IPv4 address in a network."""
    return f"192.168.{vlan}.{number}"


def v6(vlan: int, number: int) -> str:
    """A machine's IPv6 address in a network."""
    return f"2001:db8:{vlan}::{number:x}"


def make_bridges(vlans: set[int]) -> None:
    """Make the networks."""
    for vlan in sorted(vlans):
        ip(f"link add br{vlan} type bridge stp_state 0 forward_delay 0", f"link set br{vlan} up")


def namespace(machine: str) -> str:
    """The name of a machine's network namespace."""
    return f"vm-{machine}"


def port(number: int, vlan: int) -> str:
    """The bridge's side of a cable."""
    return f"port{number}-{vlan}"


def plug(machine: str, number: int, spec: Spec, gateway: str) -> None:
    """Make a container's network namespace with one interface for each of its networks."""
    inside = namespace(machine)
    subprocess.run(["ip", "netns", "add", inside], check=True, timeout=30)
    lines = ["link set lo up"]
    for index, vlan in enumerate(spec.vlans, 1):
        outer = port(number, vlan)
        ip(
            f"link add {outer} type veth peer name eth{index} netns {inside}",
            f"link set {outer} master br{vlan} up",
        )
        lines += [
            f"addr add {v4(vlan, number)}/24 dev eth{index}",
            f"addr add {v6(vlan, number)}/64 dev eth{index} nodad",
            f"link set eth{index} up",
        ]
    if gateway:
        lines.append(f"route add default via {gateway}")
    ip(*lines, where=inside)


def plug_tap(number: int, vlan: int) -> str:
    """Make the cable of an emulated machine."""
    name = port(number, vlan)
    ip(f"tuntap add {name} mode tap", f"link set {name} master br{vlan} up")
    return name


def cables(number: int, spec: Spec, *, up: bool) -> None:
    """Pull a machine's cables, or plug them in again."""
    state = "up" if up else "down"
    ip(*(f"link set {port(number, vlan)} {state}" for vlan in spec.vlans))


def hosts(specs: Mapping[str, Spec]) -> str:
    """What /etc/hosts says on every machine: each by the addresses of its first network."""
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    for number, (name, spec) in enumerate(sorted(specs.items()), 1):
        vlan = spec.vlans[0]
        lines += [f"{v4(vlan, number)} {name}", f"{v6(vlan, number)} {name}"]
    return "\n".join(lines) + "\n"
