"""Whatever a stranger's machine sends: an answer or a refusal, and a record that can be stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import event, given, settings
from hypothesis import strategies as st

from appliance.errors import Rejected
from appliance.records import NodeID, TailnetID
from appliance.store.rows import node_to_row
from appliance.tailnet import checkin, enrolment
from appliance.tailnet.snapshot import Edit
from appliance.wire import tailcfg
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import LockKey, MachineKey, NodeKey
from tests.support.builder import build, edit_of, key_for, machine_key, node_key
from tests.support.clock import NOON, fixed_rng

texts = st.text(max_size=700) | st.sampled_from(["", "x" * 99_999, "a\0b", "\x1b]0;x\x07"])
numbers = st.integers(-(2**63), 2**63 - 1)
zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(timezones=zones) | st.sampled_from([NOON, NOON + timedelta(days=1)])
prefixes = st.sampled_from(["10.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/8", "10.1.2.0/24"]).map(
    tailcfg.parse_prefix
)
endpoints = st.builds(tailcfg.AddrPort, st.ip_addresses(), st.integers(0, 65535) | st.just(0))
net_infos = st.builds(
    tailcfg.NetInfo,
    preferred_derp=numbers | st.integers(0, 5),
    link_type=texts,
    derp_latency=st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False)),
)
hostinfos = st.builds(
    tailcfg.Hostinfo,
    hostname=texts,
    os=texts,
    device_model=texts,
    request_tags=st.lists(texts | st.just("tag:web"), max_size=3).map(tuple),
    routable_ips=st.lists(prefixes, max_size=3).map(tuple),
    services=st.lists(
        st.builds(tailcfg.Service, proto=texts, port=st.integers(0, 65535), description=texts),
        max_size=3,
    ).map(tuple),
    ssh_host_keys=st.lists(texts, max_size=2).map(tuple),
    net_info=st.none() | net_infos,
    tpm=st.none()
    | st.builds(tailcfg.TPMInfo, vendor=texts, firmware_version=st.integers(0, 2**64 - 1)),
    location=st.none() | st.builds(tailcfg.Location, city=texts, priority=numbers),
)
node_keys = st.sampled_from(
    [NodeKey.zero(), *map(node_key, ["laptop", "laptop", "phone", "new", "newer", "newest"])]
)
registers = st.builds(
    tailcfg.RegisterRequest,
    version=numbers,
    node_key=node_keys,
    old_node_key=node_keys,
    nl_key=st.just(LockKey.zero()) | st.binary(min_size=32, max_size=32).map(LockKey),
    expiry=st.none() | moments,
    followup=texts,
    hostinfo=st.none() | hostinfos,
    ephemeral=st.booleans(),
    node_key_signature=st.binary(max_size=100),
    tailnet=texts,
)
map_requests = st.builds(
    tailcfg.MapRequest,
    version=numbers,
    hostinfo=st.none() | hostinfos,
    endpoints=st.lists(endpoints, max_size=5).map(tuple),
    endpoint_types=st.lists(numbers | st.integers(0, 5), max_size=7).map(tuple),
)

BASE = build("alice: laptop* phone!")
MACHINES = st.sampled_from(["laptop", "laptop", "phone", "new"]).map(machine_key)


def check_storable(edit: Edit) -> None:
    """Make the rows as the store does, and the text of them as a database would take it."""
    for node in edit.finish()[0].nodes.values():
        row = node_to_row(TailnetID(1), node)
        for value in row.values():
            if isinstance(value, str):
                assert "\0" not in value
                value.encode()
                assert len(value) < 200_000
            if isinstance(value, int):
                assert abs(value) < 2**63
            if isinstance(value, datetime):
                value.astimezone(UTC)


def through_the_wire(request: tailcfg.RegisterRequest) -> tailcfg.RegisterRequest | None:
    try:
        return tailcfg.decode_register_request(tailcfg.encode(request))
    except ProtocolError:
        return None


@settings(max_examples=200, deadline=None)
@given(request=registers, machine=MACHINES, kind=st.integers(0, 5), text=texts)
def test_any_register_request_is_answered_or_refused(
    request: tailcfg.RegisterRequest, machine: MachineKey, kind: int, text: str
) -> None:
    edit = edit_of(BASE)
    owner = ["alice", "tag:web", "alice+tag:web", "bob", "tag:db", "alice"][kind]
    _key, right = key_for(edit, owner, reusable=True)
    request = tailcfg.RegisterRequest(
        **{name: getattr(request, name) for name in request.__struct_fields__ if name != "auth"},
        auth=tailcfg.RegisterResponseAuth(auth_key=text if kind == 5 else right),
    )
    arrived = through_the_wire(request)
    if arrived is None:
        event("malformed")
        return
    try:
        grant = enrolment.key_grant(arrived.auth)
        response = enrolment.register(edit, machine, arrived, grant, NOON, rng=fixed_rng()).response
    except Rejected as refusal:
        response = tailcfg.RegisterResponse(error=refusal.sentence)
        edit = edit_of(BASE)
    event(response.error[:20] or "in")
    assert len(tailcfg.encode(response)) < 3000
    check_storable(edit)


@settings(max_examples=200, deadline=None)
@given(first=map_requests, second=map_requests)
def test_any_check_in_is_taken(first: tailcfg.MapRequest, second: tailcfg.MapRequest) -> None:
    edit = edit_of(BASE)
    for request in (first, second, second):
        try:
            arrived = tailcfg.decode_map_request(tailcfg.encode(request))
        except ProtocolError:
            return
        node = checkin.check_in(edit, NodeID(1), arrived)
        assert len(tailcfg.encode(node.hostinfo)) < 200_000
    again = edit_of(edit.finish()[0])
    checkin.check_in(again, NodeID(1), arrived)
    assert again.finish()[0] is again.base, "the same again is no change"
    check_storable(again)
