"""What strangers send to become nodes, and nodes to describe themselves: a record that every database
takes and every client bears, or a refusal."""

from __future__ import annotations

import contextlib
import random
from ipaddress import ip_network

import msgspec

from appliance import netmap
from appliance.errors import Rejected
from appliance.records import Node
from appliance.tailnet import checkin, enrolment, keys
from appliance.tailnet.snapshot import Edit, Sequences
from appliance.wire import tailcfg
from appliance.wire.errors import ProtocolError
from appliance.wire.tailcfg.capver import NEWEST_KNOWN
from tests.fuzz.harness import main, mutate
from tests.support.builder import build, disco_key, machine_key, node_key
from tests.support.clock import NOON, fixed_rng
from tests.support.complaints import complaints

TEXTS = ["", "laptop", "\0", "a\0b", "\u202e\x1b[2J", "x" * 5000, "ÄÖ", "\ud7ff", "-", "a.b.c", " "]
MAX_RECORD_BYTES = 512 << 10
"""A record that said as much as it may; 4,096 routes are the largest part."""


def hostinfo(rng: random.Random) -> tailcfg.Hostinfo:
    """Say anything of oneself."""

    def text() -> str:
        return rng.choice(TEXTS)

    said = {name: text() for name in checkin._TEXTS if rng.random() < 0.5}
    many = rng.choice((0, 1, 3, 300, 6000))
    return tailcfg.Hostinfo(
        **said,  # type: ignore[arg-type]  # these are the fields of text
        routable_ips=tuple(ip_network((0x0A000000 + n * 256, 24)) for n in range(many)),
        request_tags=tuple(text() for _ in range(rng.choice((0, 2, 200)))),
        services=tuple(
            tailcfg.Service(proto=text(), port=1, description=text()) for _ in range(many)
        ),
        ssh_host_keys=tuple(text() for _ in range(rng.choice((0, 1, 100)))),
        wol_macs=tuple(text() for _ in range(rng.choice((0, 1, 100)))),
        net_info=tailcfg.NetInfo(
            preferred_derp=rng.choice((0, 1, -5, 2**40)),
            link_type=text(),
            derp_latency={text(): 1.0 for _ in range(rng.choice((0, 3)))},
        ),
        location=tailcfg.Location(country=text(), city=text()) if rng.random() < 0.3 else None,
    )


def case(rng: random.Random) -> None:
    edit = Edit(build("alice: laptop* phone"), Sequences(node=10, user=10, auth_key=10))
    _key, text = keys.create_auth_key(
        edit, user_id=next(iter(edit.users)), reusable=True, now=NOON, random_bytes=rng.randbytes
    )
    register(rng, edit, text)
    check_in(rng, edit)
    snapshot, _rows = edit.finish()
    for node in snapshot.nodes.values():
        check_record(node)
    viewer = rng.choice(sorted(snapshot.nodes))
    response = netmap.full(snapshot, viewer, NEWEST_KNOWN)
    assert not complaints(response)
    tailcfg.decode_map_response(tailcfg.encode(response))


def register(rng: random.Random, edit: Edit, text: str) -> None:
    """Register with good or damaged keys, in good or damaged JSON."""
    if rng.random() < 0.3:
        text = rng.choice((mutate(rng, text.encode()).decode("latin-1"), *TEXTS))
    with contextlib.suppress(Rejected):
        prefix, _ = keys.parse_auth_key(text)
        assert len(prefix) < 200
    request = tailcfg.RegisterRequest(
        version=rng.choice((0, 49, 130, 2**31, -1)),
        node_key=node_key(rng.choice("abc")),
        old_node_key=node_key(rng.choice("abc")),
        auth=tailcfg.RegisterResponseAuth(auth_key=text),
        hostinfo=hostinfo(rng),
        ephemeral=rng.random() < 0.3,
        node_key_signature=rng.randbytes(rng.choice((0, 0, 100, 5000))),
    )
    data = tailcfg.encode(request)
    data = mutate(rng, data) if rng.random() < 0.3 else data
    with contextlib.suppress(Rejected, ProtocolError):
        request = tailcfg.decode_register_request(data)
        grant = enrolment.key_grant(request.auth)
        machine = machine_key(rng.choice("xyz"))
        enrolment.register(edit, machine, request, grant, NOON, rng=fixed_rng())


def check_in(rng: random.Random, edit: Edit) -> None:
    """Let a node describe itself, in good or damaged JSON."""
    endpoints = [f"192.0.2.{n % 256}:{n}" for n in range(rng.choice((0, 3, 500)))]
    request = tailcfg.MapRequest(
        version=rng.choice((0, 130, 2**40)),
        node_key=node_key("a"),
        disco_key=disco_key("a"),
        hostinfo=hostinfo(rng),
        endpoints=tuple(tailcfg.AddrPort.parse(each) for each in endpoints),
        endpoint_types=tuple(rng.choice((0, 1, 99)) for _ in range(rng.choice((0, 3, 500)))),
    )
    data = tailcfg.encode(request)
    data = mutate(rng, data) if rng.random() < 0.3 else data
    with contextlib.suppress(Rejected, ProtocolError):
        checkin.check_in(edit, rng.choice(sorted(edit.nodes)), tailcfg.decode_map_request(data))


def check_record(node: Node) -> None:
    """See that a node's record is small and clean."""
    data = msgspec.json.encode(
        (node.name, node.hostname, node.hostinfo, node.net_info, node.endpoints), enc_hook=str
    )
    assert b"\\u0000" not in data
    assert len(data) < MAX_RECORD_BYTES
    assert 0 <= node.capver < 2**31


if __name__ == "__main__":
    main(case)
