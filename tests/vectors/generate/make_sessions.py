"""Write inputs_mapsession.json: random map sessions, to be replayed by the official client.

Usage: python -m tests.vectors.generate.make_sessions
"""

import ipaddress
import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from appliance.wire import tailcfg
from appliance.wire.keys import DiscoKey, MachineKey, NodeKey
from tests.vectors import HERE

SEED = 20261121
SESSIONS = 30
MESSAGES = 5
START = datetime(2026, 1, 1, tzinfo=UTC)


class Maker:
    """Makes nodes from few values each, so that equal, changed and missing ones all occur."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def maybe(self, *values: Any) -> Any:
        return self.random.choice(values)

    def time(self) -> datetime:
        return START + timedelta(hours=self.random.randrange(3))

    def prefixes(self, *texts: str) -> tuple[tailcfg.Prefix, ...]:
        return tuple(ipaddress.ip_network(text) for text in texts)

    def node(self, number: int) -> tailcfg.Node:
        maybe, steady = self.maybe, self.random.random() < 0.7
        endpoint = tailcfg.AddrPort.parse(f"192.0.2.{number}:41641")
        own = self.prefixes(f"100.64.0.{number}/32", f"fd7a:115c:a1e0::{number}/128")
        return tailcfg.Node(
            id=number,
            stable_id=f"n{number}",
            name=f"n{number}.example.ts.net.",
            user=number if steady else maybe(1, 2),
            sharer=0 if steady else maybe(0, 3),
            key=NodeKey(bytes([number, maybe(0, 1)]) * 16),
            key_expiry=maybe(None, self.time()),
            key_signature=maybe(b"", b"", b"sig", b"gis"),
            machine=MachineKey(bytes([number]) * 32),
            disco_key=maybe(None, DiscoKey(bytes([number, maybe(1, 2)]) * 16)),
            addresses=own,
            allowed_ips=None if steady else maybe(None, (), own, own[:1]),
            endpoints=maybe(None, (), (endpoint,), (endpoint, endpoint)),
            home_derp=maybe(0, 900, 901),
            hostinfo=tailcfg.Hostinfo(os="linux" if steady else maybe("linux", "windows")),
            created=START,
            cap=maybe(0, 140, 141),
            tags=() if steady else maybe((), ("tag:a",)),
            last_seen=maybe(None, self.time()),
            online=maybe(None, True, False),
            machine_authorized=True if steady else maybe(True, False),
            cap_map=maybe(None, {}, {"a": ()}, {"a": (tailcfg.raw(1),)}, {"b": ()}),
            unsigned_peer_api_only=False if steady else maybe(False, True),
            expired=False if steady else maybe(False, True),
            is_jailed=False if steady else maybe(False, True),
        )

    def patch(self, number: int) -> tailcfg.PeerChange:
        maybe = self.maybe
        endpoint = tailcfg.AddrPort.parse(f"198.51.100.{number}:1")
        return tailcfg.PeerChange(
            node_id=number,
            derp_region=maybe(0, 0, 903),
            cap=maybe(0, 0, 142),
            cap_map=maybe(None, None, {}, {"c": ()}),
            endpoints=maybe(None, None, (), (endpoint,)),
            key=maybe(None, None, NodeKey(bytes([number, 9]) * 16)),
            key_signature=maybe(None, None, b"new"),
            disco_key=maybe(None, None, DiscoKey(bytes([number, 9]) * 16)),
            online=maybe(None, True, False),
            last_seen=maybe(None, None, self.time()),
            key_expiry=maybe(None, None, self.time(), tailcfg.NEVER),
        )

    def profile(self, user: int) -> tailcfg.UserProfile:
        return tailcfg.UserProfile(id=user, login_name=self.maybe("a", "b"))

    def some(self, make: Any) -> tuple[Any, ...]:
        numbers = self.random.sample(range(2, 7), self.random.randrange(4))
        return tuple(make(number) for number in numbers)

    def rules(self) -> tuple[tailcfg.FilterRule, ...]:
        everything = tailcfg.PortRange(first=0, last=65535)
        return tuple(
            tailcfg.FilterRule(
                src_ips=(f"100.64.0.{self.random.randrange(9)}",),
                dst_ports=(tailcfg.NetPortRange(ip="*", ports=everything),),
            )
            for _ in range(self.random.randrange(3))
        )

    def derp_map(self) -> tailcfg.DERPMap:
        region = tailcfg.DERPRegion(region_id=900, region_code=self.maybe("a", "b"))
        return tailcfg.DERPMap(
            regions=self.maybe(None, {}, {900: region}),
            home_params=self.maybe(
                None,
                tailcfg.DERPHomeParams(),
                tailcfg.DERPHomeParams(region_score={}),
                tailcfg.DERPHomeParams(region_score={900: 0.5}),
            ),
            omit_default_regions=self.maybe(True, False),
        )

    def messages(self) -> dict[str, tailcfg.DisplayMessage | None]:
        names = self.random.sample(["*", "x", "y", "z"], self.random.randrange(4))
        message = tailcfg.DisplayMessage(title="t", text=self.maybe("1", "2"), severity="low")
        return {name: None if name == "*" else self.maybe(None, message) for name in names}

    def response(self, first: bool) -> tailcfg.MapResponse:
        maybe = self.maybe
        return tailcfg.MapResponse(
            node=self.node(1) if first else maybe(None, None, None, self.node(1)),
            derp_map=maybe(None, None, self.derp_map()),
            peers=self.some(self.node) or None
            if first
            else maybe(*[None] * 6, self.some(self.node)),
            peers_changed=maybe(None, self.some(self.node), self.some(self.node)),
            peers_removed=maybe(None, None, self.some(int)),
            peers_changed_patch=maybe(None, self.some(self.patch), self.some(self.patch)),
            online_change=maybe(None, None, dict.fromkeys(self.some(int), maybe(True, False))),
            # Only false: true writes the clock of the client.
            peer_seen_change=maybe(None, None, dict.fromkeys(self.some(int), False)),
            dns_config=maybe(
                None, None, tailcfg.DNSConfig(), tailcfg.DNSConfig(domains=("a.b",), proxied=True)
            ),
            domain=maybe("", "", "example.com", "example.org"),
            collect_services=maybe(None, None, True, False),
            packet_filters=maybe(None, None, self.filters()),
            user_profiles=maybe(None, self.some(self.profile)),
            health=maybe(None, None, (), ("ill",)),
            display_messages=maybe(None, None, self.messages()),
            ssh_policy=maybe(None, None, tailcfg.SSHPolicy()),
            tka_info=maybe(None, None, None, tailcfg.TKAInfo(disabled=maybe(True, False))),
        )

    def filters(self) -> dict[str, tuple[tailcfg.FilterRule, ...] | None]:
        names = self.random.sample(["*", "base", "x", "y"], self.random.randrange(4))
        return {name: self.one_filter(name) for name in names}

    def one_filter(self, name: str) -> tuple[tailcfg.FilterRule, ...] | None:
        rules: tuple[tailcfg.FilterRule, ...] | None
        rules = self.maybe(None, self.rules()) if name != "*" else self.maybe(None, None, ())
        return rules


def main() -> None:
    maker = Maker(SEED)
    sessions = [[maker.response(place == 0) for place in range(MESSAGES)] for _ in range(SESSIONS)]
    lines = (
        "[" + ",\n ".join(tailcfg.encode(response).decode() for response in session) + "]"
        for session in sessions
    )
    text = "[\n" + ",\n".join(lines) + "\n]\n"
    json.loads(text)
    (HERE / "inputs_mapsession.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
