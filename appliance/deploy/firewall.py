"""The box's own nftables table: what strangers may reach. Never touches other tables.

Not for loading it (``units.firewall``). Pure.
Source: nft(8).
"""

from __future__ import annotations

from collections.abc import Sequence

from appliance.deploy import facts
from appliance.deploy.plan import Plan

HEADER = "# Made by `headwater deploy` from the site file; changes here are lost.\n"


def table(plan: Plan, *, tcp: Sequence[int] = (facts.SSH_PORT,), udp: Sequence[int] = ()) -> str:
    """Write the table: the site's ports and further ones are open, the rest of the box is closed.

    Declaring the table before deleting it makes loading work whether or not it is there; the whole
    file is one transaction.
    """
    name = f"inet {facts.FIREWALL_TABLE}"
    rules = [
        "ct state vmap { established : accept, related : accept, invalid : drop }",
        'iif "lo" accept',
        f"meta l4proto {{ {_join(facts.ICMP_NUMBERS)} }} accept",
        *_opened("tcp", {*plan.tcp_ports, *tcp}),
        *_opened("udp", {*plan.udp_ports, *udp}),
        "udp dport { 68, 546 } accept",  # answers of DHCP, which no state knows
    ]
    body = "".join(f"    {rule}\n" for rule in rules)
    return (
        f"{HEADER}table {name}\ndelete table {name}\n\ntable {name} {{\n  chain input {{\n"
        f"    type filter hook input priority filter; policy drop;\n{body}  }}\n}}\n"
    )


def _opened(protocol: str, ports: set[int]) -> list[str]:
    return [f"{protocol} dport {{ {_join(sorted(ports))} }} accept"] if ports else []


def _join(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)
