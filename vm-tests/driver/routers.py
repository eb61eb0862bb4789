"""Machines that stand between others: translating routers, and machines that lose packets.

For: what a story's body does to the network with nftables on the machines themselves, through the
shell, so that it works under NixOS too. Not for cables and addresses, which the drivers lay.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from driver.face import Machine

_TRANSLATION = """
table ip story_nat {{
  chain post {{
    type nat hook postrouting priority 100;
    oifname "eth1" masquerade {ports}
  }}
  chain input {{
    type filter hook input priority 0;
    iifname "eth1" ct state new drop
  }}
  chain forward {{
    type filter hook forward priority 0;
    iifname "eth1" ct state new drop
  }}
}}
"""
# What comes unasked is dropped before it is remembered: a remembered stray would take the very port
# that the machine behind needs for punching its hole.


def translate(machine: Machine, *, hard: bool = False) -> None:
    """Make a router: what comes from eth2 leaves by eth1 under the router's own address.

    An easy router keeps one public port for all destinations; a hard one takes a random port for
    each, so that what STUN saw is of no use to a peer.
    """
    rules = _TRANSLATION.format(ports="fully-random" if hard else "")
    machine.succeed(f"printf %s {shlex.quote(rules)} | nft -f -")
    machine.succeed("echo 1 > /proc/sys/net/ipv4/ip_forward")


def block_udp(machine: Machine, allowed: Sequence[str] = ()) -> None:
    """Drop all UDP that leaves a machine, except to these addresses."""
    accepts = [f"{'ip6' if ':' in to else 'ip'} daddr {to} accept" for to in allowed]
    _filter(machine, "udp", [*accepts, 'oifname "lo" accept', "meta l4proto udp drop"])


def refuse_tcp(machine: Machine, host: str, port: int = 443) -> None:
    """Refuse connections from a machine to one port of another, of either family."""
    rules = []
    for family, known in (("ip", "ahostsv4"), ("ip6", "ahostsv6")):
        address = machine.succeed(f"getent {known} {host}").split()[0]
        rules.append(f"{family} daddr {address} tcp dport {port} reject with tcp reset")
    _filter(machine, "tcp", rules)


def allow(machine: Machine, what: str) -> None:
    """Undo `block_udp` ("udp") or `refuse_tcp` ("tcp")."""
    machine.succeed(f"nft delete table inet story_{what}")


def _filter(machine: Machine, what: str, rules: Sequence[str]) -> None:
    lines = [f"table inet story_{what} {{", "chain out {"]
    lines += ["type filter hook output priority 0;", *rules, "}", "}"]
    text = "\n".join(lines) + "\n"
    machine.succeed(f"printf %s {shlex.quote(text)} | nft -f -")
