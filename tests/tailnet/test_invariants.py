"""Whatever machines and administrators do, in any order: what must always hold of a tailnet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from appliance.errors import Rejected
from appliance.records import AuthKey, Node, NodeID, Settings, User
from appliance.tailnet import (
    addresses,
    attributes,
    checkin,
    enrolment,
    expiry,
    keys,
    names,
    nodes,
    presence,
    users,
)
from appliance.tailnet.snapshot import Edit, Rows, Sequences, Snapshot
from appliance.wire import tailcfg
from appliance.wire.keys import NodeKey
from tests.support.builder import define_tags, disco_key, empty, key_for, machine_key, node_key
from tests.support.clock import NOON, fixed_rng

SETTINGS = Settings(
    prefix_v4=IPv4Network("100.64.0.0/28"),
    prefix_v6=IPv6Network("fd7a:115c:a1e0::/120"),
    key_expiry=timedelta(days=1),
)
"""Small prefixes, so that they run full and wrap around."""

LOGOUT = datetime(1970, 1, 1, 0, 2, 3, tzinfo=UTC)
OWNERS = ("alice", "bob", "tag:web", "tag:db,tag:web", "alice+tag:web")

machines = st.sampled_from([f"machine{n}" for n in range(4)])
node_keys = st.sampled_from([f"key{n}" for n in range(8)])
hostnames = st.sampled_from(["pc", "pc", "PC.local", "Zoë's Mac", "", "x" * 80, "x" * 63])
indexes = st.integers(0, 20)


class Tailnet(RuleBasedStateMachine):
    """Each rule is one edit, as a door would make it; a refusal throws the draft away."""

    def __init__(self) -> None:
        super().__init__()
        self.ids = Sequences()
        edit = Edit(empty(SETTINGS), self.ids)
        define_tags(edit, "tag:web")
        self.snapshot: Snapshot = edit.finish()[0]
        self.now = NOON
        self.rng = fixed_rng()
        self.texts: list[tuple[AuthKey, str]] = []
        self.stored: dict[tuple[type, int], object] = {}

    @initialize()
    def have_keys(self) -> None:
        edit = self._edit()
        for seed, owner in enumerate(OWNERS):
            self.texts.append(
                key_for(edit, owner, reusable=seed % 2 == 0, ephemeral=seed == 3, seed=seed)
            )
        self._publish(edit)

    @rule(machine=machines, key=node_keys, old=node_keys, auth=indexes, hostname=hostnames)
    def register(self, machine: str, key: str, old: str, auth: int, hostname: str) -> None:
        _record, text = self.texts[auth % len(self.texts)]
        self._register(
            machine,
            tailcfg.RegisterRequest(
                version=130,
                node_key=node_key(key),
                old_node_key=node_key(old) if auth % 3 else NodeKey.zero(),
                auth=tailcfg.RegisterResponseAuth(auth_key=text),
                hostinfo=tailcfg.Hostinfo(hostname=hostname),
                ephemeral=auth % 7 == 0,
            ),
        )

    @rule(machine=machines, key=node_keys)
    def log_out(self, machine: str, key: str) -> None:
        request = tailcfg.RegisterRequest(version=130, node_key=node_key(key), expiry=LOGOUT)
        self._register(machine, request)

    def _register(self, machine: str, request: tailcfg.RegisterRequest) -> None:
        edit = self._edit()
        try:
            grant = enrolment.key_grant(request.auth)
            result = enrolment.register(
                edit, machine_key(machine), request, grant, self.now, rng=self.rng
            )
        except Rejected:
            return
        self._publish(edit)
        node = result.node
        if result.response.machine_authorized:
            assert node is not None
            assert self.snapshot.node_of(request.node_key) is node
            assert not node.is_expired(self.now)
            assert node.machine_key == machine_key(machine)

    @rule(index=indexes, hostname=hostnames, port=st.integers(1, 3), home=st.integers(0, 2))
    def check_in(self, index: int, hostname: str, port: int, home: int) -> None:
        node = self._some_node(index)
        if node is None:
            return
        request = tailcfg.MapRequest(
            version=130,
            disco_key=disco_key(str(port)),
            endpoints=(tailcfg.AddrPort.parse(f"192.0.2.1:{port}"),),
            hostinfo=tailcfg.Hostinfo(
                hostname=hostname, net_info=tailcfg.NetInfo(preferred_derp=home)
            ),
        )
        edit = self._edit()
        checkin.check_in(edit, node.id, request)
        self._publish(edit)
        before = self.snapshot
        edit = self._edit()
        checkin.check_in(edit, node.id, request)
        self._publish(edit)
        assert self.snapshot is before, "saying the same again changes nothing"

    @rule(index=indexes, leave=st.booleans())
    def come_and_go(self, index: int, leave: bool) -> None:
        node = self._some_node(index)
        if node is not None:
            edit = self._edit()
            presence.session_opened(edit, node.id, self.now)
            if leave:
                presence.session_closed(edit, node.id, self.now)
            self._publish(edit)

    @rule(minutes=st.sampled_from([1, 40, 1500]))
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)
        due = expiry.is_due(self.snapshot, self.now)
        before = self.snapshot
        edit = self._edit()
        expiry.tick(edit, self.now)
        self._publish(edit)
        assert due == (self.snapshot is not before)
        assert not expiry.is_due(self.snapshot, self.now)
        for node in self.snapshot.nodes.values():
            assert self.snapshot.presence_of(node.id).expired == node.is_expired(self.now)
            assert not any(attributes.has_expired(each, self.now) for each in node.attributes)

    @rule(index=indexes, verb=st.integers(0, 11), text=hostnames)
    def administer(self, index: int, verb: int, text: str) -> None:
        node = self._some_node(index)
        if node is None:
            return
        edit = self._edit()
        half_an_hour = timedelta(minutes=30)
        verbs: list[Callable[[], object]] = [
            lambda: nodes.rename(edit, node.id, names.sanitise(text)),
            lambda: nodes.expire(edit, node.id, self.now),
            lambda: nodes.expire(edit, node.id, self.now, at=self.now + timedelta(hours=1)),
            lambda: nodes.never_expire(edit, node.id, self.now),
            lambda: nodes.delete(edit, node.id),
            lambda: nodes.set_tags(edit, node.id, ["tag:web"], self.now),
            lambda: nodes.move(edit, node.id, users.find_one(edit, name="bob").id),
            lambda: nodes.approve_routes(edit, node.id, [ip_network(f"10.{index}.0.0/16")]),
            lambda: addresses.backfill(edit, self.rng),
            lambda: attributes.put(edit, node.id, f"custom:{index}", text, self.now),
            lambda: attributes.put(
                edit, node.id, "ip:country", text, self.now, expires_at=self.now + half_an_hour
            ),
            lambda: attributes.remove(edit, node.id, "ip:country"),
        ]
        try:
            verbs[verb]()
        except Rejected:
            return
        self._publish(edit)

    @rule(index=indexes, delete=st.booleans())
    def revoke(self, index: int, delete: bool) -> None:
        edit = self._edit()
        record, _text = self.texts[index % len(self.texts)]
        if record.id not in edit.auth_keys:
            return
        if delete:
            keys.delete(edit, record.id)
            owner = OWNERS[index % len(OWNERS)]
            self.texts.append(key_for(edit, owner, reusable=True, seed=1000 + len(self.texts)))
        else:
            keys.expire(edit, record.id, self.now)
        self._publish(edit)

    @rule()
    def destroy_bob(self) -> None:
        edit = self._edit()
        try:
            users.destroy(edit, users.find_one(edit, name="bob").id)
        except Rejected:
            return
        self._publish(edit)

    @rule(name=st.sampled_from(["bob", "carol", "ALICE"]))
    def create_user(self, name: str) -> None:
        edit = self._edit()
        try:
            users.create(edit, name, self.now)
        except Rejected:
            return
        self._publish(edit)

    @invariant()
    def indexes_agree_with_records(self) -> None:
        s = self.snapshot
        assert s.by_node_key == {n.node_key: n.id for n in s.nodes.values()}
        assert s.by_name == {n.name: n.id for n in s.nodes.values()}
        assert s.by_address == {a: n.id for n in s.nodes.values() for a in n.addresses}
        assert s.by_key_prefix == {k.prefix: k.id for k in s.auth_keys.values()}
        by_machine: dict[object, set[NodeID]] = {}
        for node in s.nodes.values():
            by_machine.setdefault(node.machine_key, set()).add(node.id)
        assert s.by_machine_key == by_machine
        assert all(s.nodes[i].id == i for i in s.nodes)
        assert set(s.presence) <= set(s.nodes)
        assert s.expired == {i for i, presence in s.presence.items() if presence.expired}

    @invariant()
    def keys_names_and_addresses_are_unique(self) -> None:
        found = list(self.snapshot.nodes.values())
        for what in ("node_key", "name", "stable_id", "id"):
            assert len({getattr(n, what) for n in found}) == len(found), what
        given = Counter(a for n in found for a in n.addresses)
        assert not given or max(given.values()) == 1
        for node in found:
            assert node.ipv4 in SETTINGS.prefix_v4  # type: ignore[operator]  # both are set
            assert node.ipv6 in SETTINGS.prefix_v6  # type: ignore[operator]  # both are set

    @invariant()
    def every_node_is_tagged_or_owned(self) -> None:
        for node in self.snapshot.nodes.values():
            assert node.is_tagged != (node.user_id is not None)
            assert node.user_id is None or node.user_id in self.snapshot.users
            assert users.profile(self.snapshot, node.owner_id).id == node.owner_id

    @invariant()
    def a_user_has_one_node_per_machine(self) -> None:
        owned = Counter(
            (n.machine_key, n.user_id) for n in self.snapshot.nodes.values() if not n.is_tagged
        )
        assert not owned or max(owned.values()) == 1

    @invariant()
    def names_are_labels(self) -> None:
        for node in self.snapshot.nodes.values():
            assert names.check_label(node.name) == node.name

    @invariant()
    def an_untouched_draft_is_the_base(self) -> None:
        edit = self._edit()
        assert edit.finish() == (self.snapshot, Rows())
        edit = self._edit()
        for record in _records(self.snapshot):
            edit.put(record)
        assert edit.finish()[0] is self.snapshot

    @invariant()
    def what_was_written_is_what_there_is(self) -> None:
        assert self.stored == {_key(record): record for record in _records(self.snapshot)}

    def _some_node(self, index: int) -> Node | None:
        found = list(self.snapshot.nodes.values())
        return found[index % len(found)] if found else None

    def _edit(self) -> Edit:
        return Edit(self.snapshot, self.ids)

    def _publish(self, edit: Edit) -> None:
        """Publish, and hold what must be true of every step from one version to the next."""
        old = self.snapshot
        new, rows = edit.finish()
        assert new.version == old.version + (new is not old)
        puts, drops = set(map(_key, rows.puts)), set(map(_key, rows.drops))
        assert not puts & drops
        for what in ("nodes", "users", "auth_keys"):
            before, after = getattr(old, what), getattr(new, what)
            for record_id, record in after.items():
                unchanged = before.get(record_id) is record
                assert unchanged == (_key(record) not in puts)
                assert unchanged or before.get(record_id) != record
            gone = {_key(r) for i, r in before.items() if i not in after}
            assert gone == {key for key in drops if key in set(map(_key, before.values()))}
        for key in drops:
            self.stored.pop(key, None)
        self.stored |= {_key(r): r for r in rows.puts}
        self.snapshot = new


def _records(snapshot: Snapshot) -> list[Node | User | AuthKey]:
    return [*snapshot.nodes.values(), *snapshot.users.values(), *snapshot.auth_keys.values()]


def _key(record: object) -> tuple[type, int]:
    assert isinstance(record, Node | User | AuthKey)
    return type(record), record.id


TestTailnet = Tailnet.TestCase
TestTailnet.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("seed", range(10))
def test_a_long_life_breaks_nothing(seed: int) -> None:
    """Hypothesis prefers short lives; these are long, and mostly registrations."""
    rng = Random(seed)
    tailnet = Tailnet()
    tailnet.have_keys()
    names_used = ["pc", "PC.local", "Zoë's Mac", "", "x" * 80, "x" * 63]

    def register() -> None:
        tailnet.register(
            f"machine{rng.randrange(24)}",
            f"key{rng.randrange(40)}",
            f"key{rng.randrange(40)}",
            rng.randrange(60),
            rng.choice(names_used),
        )

    steps: list[Callable[[], None]] = [
        *[register] * 9,
        lambda: tailnet.log_out(f"machine{rng.randrange(24)}", f"key{rng.randrange(40)}"),
        lambda: tailnet.check_in(
            rng.randrange(20), rng.choice(names_used), rng.randrange(1, 4), rng.randrange(3)
        ),
        lambda: tailnet.come_and_go(rng.randrange(20), rng.random() < 0.5),
        lambda: tailnet.time_passes(rng.choice([1, 1, 1, 40, 1500])),
        lambda: tailnet.administer(rng.randrange(20), rng.randrange(10), rng.choice(names_used)),
        lambda: tailnet.revoke(rng.randrange(20), rng.random() < 0.5),
        lambda: tailnet.create_user(rng.choice(["bob", "carol", "ALICE"])),
        tailnet.destroy_bob,
    ]
    held = [
        tailnet.indexes_agree_with_records,
        tailnet.keys_names_and_addresses_are_unique,
        tailnet.every_node_is_tagged_or_owned,
        tailnet.a_user_has_one_node_per_machine,
        tailnet.names_are_labels,
        tailnet.an_untouched_draft_is_the_base,
        tailnet.what_was_written_is_what_there_is,
    ]
    most = 0
    for _ in range(300):
        rng.choice(steps)()
        for holds in held:
            holds()
        most = max(most, len(tailnet.snapshot.nodes))
    assert most >= 10, "the tailnet stayed too small to prove anything"
