"""What an edit did, as entries: one per record, with what people care about and nothing secret."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network

from appliance.records import Attribute, AuditEntry, PolicyText, PolicyTextID
from appliance.tailnet import audit, checkin, expiry, keys, nodes, policies, presence, users
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
from appliance.wire import tailcfg
from tests.support.builder import build, node_named, sequences_after
from tests.support.clock import NOON


def entries(edit: Edit, act: str = "test.change", reason: str = "") -> tuple[AuditEntry, ...]:
    """Finish a draft, and give what it did."""
    edit.finish()
    return audit.entries(edit, at=NOON, door="local", by="socket", act=act, reason=reason)


def draft(text: str = "alice: laptop phone") -> Edit:
    snapshot = build(text)
    return Edit(snapshot, sequences_after(snapshot))


def test_a_change_names_who_what_before_and_after() -> None:
    """A2: the entry of a rename."""
    edit = draft()
    node = node_named(edit, "laptop")
    nodes.rename(edit, node.id, "desk")
    (entry,) = entries(edit, "node.rename", "ticket 7")
    assert (entry.at, entry.door, entry.by) == (NOON, "local", "socket")
    assert (entry.act, entry.kind, entry.target, entry.name) == (
        "node.rename", "node", node.id, "desk",
    )  # fmt: skip
    assert json.loads(entry.before) == {"name": "laptop"}
    assert json.loads(entry.after) == {"name": "desk"}
    assert entry.reason == "ticket 7"
    assert audit.message(entry) == "node renamed"
    assert list(audit.differences(entry)) == [("name", "laptop", "desk")]


def test_a_new_record_has_no_before_and_a_gone_one_no_after() -> None:
    edit = draft()
    users.create(edit, "bob", NOON)
    edit.drop(node_named(edit, "phone"))
    gone, new = entries(edit)
    assert (gone.kind, gone.name, gone.after) == ("node", "phone", "")
    assert json.loads(gone.before)["user"] == "alice"
    assert (new.kind, new.name, new.before) == ("user", "bob", "")
    assert json.loads(new.after)["role"] == "member"
    assert [audit.message(entry) for entry in (gone, new)] == ["node removed", "user made"]


def test_what_a_node_reports_all_day_is_no_entry() -> None:
    """A storm of check-ins must not fill the disk."""
    edit = draft()
    node = node_named(edit, "laptop")
    endpoints = (tailcfg.AddrPort.parse("192.0.2.1:41641"),)
    checkin.check_in(edit, node.id, tailcfg.MapRequest(version=120, endpoints=endpoints))
    assert edit.nodes[node.id] != node
    assert entries(edit) == ()


def test_a_draft_that_changes_nothing_in_the_end_is_no_entry() -> None:
    edit = draft()
    node = node_named(edit, "laptop")
    nodes.rename(edit, node.id, "desk")
    nodes.rename(edit, node.id, "laptop")
    edit.put(node)
    assert entries(edit) == ()


def test_a_draft_in_place_knows_what_was_before() -> None:
    """In a round of commits a draft may write into what nobody has seen yet."""
    first = draft()
    nodes.rename(first, node_named(first, "laptop").id, "desk")
    snapshot, _ = first.finish()
    second = Edit(snapshot, Sequences(), private=first.private)
    nodes.rename(second, node_named(second, "desk").id, "table")
    (entry,) = entries(second)
    assert list(audit.differences(entry)) == [("name", "desk", "table")]


def test_no_secret_is_in_an_entry() -> None:
    """Neither the secret of a key nor its hash."""
    edit = draft()
    key, text = keys.create_auth_key(
        edit, user_id=node_named(edit, "laptop").user_id, now=NOON, random_bytes=bytes
    )
    (entry,) = entries(edit, "preauthkey.create")
    told = repr(entry)
    assert key.secret_hash not in told
    assert text.rpartition("-")[2] not in told
    assert entry.name == key.prefix
    edit = Edit(_with(key), Sequences())
    edit.put(replace(key, used_at=NOON))
    assert entries(edit) == ()


def _with(key: object) -> Snapshot:
    edit = draft()
    edit.put(key)  # type: ignore[arg-type]  # an auth key
    return edit.finish()[0]


def test_an_entry_is_bounded() -> None:
    edit = draft()
    node = node_named(edit, "laptop")
    routes = tuple(ip_network(f"10.{n // 256}.{n % 256}.0/24") for n in range(2000))
    edit.put(replace(node, approved_routes=routes))
    (entry,) = entries(edit)
    assert len(entry.after) < 2 * audit.MAX_VALUE_CHARS


def test_a_policy_is_told_by_its_sum() -> None:
    edit = draft()
    edit.put(PolicyText(PolicyTextID(1), '{"acls": []}', NOON))
    (entry,) = entries(edit, "policy.set")
    assert json.loads(entry.after)["bytes"] == 12
    assert audit.message(entry) == "policy set"


def test_time_ends_with_a_reason() -> None:
    """B5: ephemeral removal, an attribute's end and a key's, by the system, each with its why."""
    edit = draft("alice: laptop phone tablet")
    laptop, phone, tablet = (node_named(edit, name) for name in ("laptop", "phone", "tablet"))
    edit.put(replace(laptop, ephemeral=True))
    edit.put(replace(phone, expires_at=NOON))
    edit.put(replace(tablet, attributes=(Attribute("custom:a", 1, NOON),)))
    snapshot, _ = edit.finish()
    edit = Edit(snapshot, Sequences())
    expiry.tick(edit, NOON + timedelta(hours=1))
    found = {entry.name: entry for entry in entries(edit, "clock.tick")}
    assert {name: entry.act for name, entry in found.items()} == {
        "laptop": "node.remove",
        "phone": "node.expired",
        "tablet": "node.remove-attribute",
    }
    assert found["laptop"].reason == "ephemeral, and away for 0:30:00"
    assert found["phone"].reason == "its key ran out at 2030-01-01T12:00:00Z"
    assert audit.message(found["laptop"]) == "ephemeral node removed"


def test_a_fail_over_is_told() -> None:
    """B5: the route, both routers, and why; nobody asked for it."""
    route = ip_network("10.0.0.0/8")
    edit = draft("alice: one two")
    for name in ("one", "two"):
        node = node_named(edit, name)
        hostinfo = tailcfg.Hostinfo(routable_ips=(route,))
        edit.put(replace(node, hostinfo=hostinfo, approved_routes=(route,)))
        presence.session_opened(edit, node.id, NOON)
    before = policies.settle(Snapshot(edit.tailnet), edit.finish()[0])
    edit = Edit(before, Sequences())
    one = node_named(edit, "one")
    edit.set_presence(one.id, replace(edit.presence_of(one.id), online=False, sessions=0))
    after = policies.settle(before, edit.finish()[0])
    (entry,) = audit.moved_routes(before, after, at=NOON)
    assert (entry.door, entry.act, entry.name, entry.reason) == (
        "system", "node.move-route", "two", "one is offline",
    )  # fmt: skip
    assert list(audit.differences(entry)) == [
        ("route", "10.0.0.0/8", "10.0.0.0/8"),
        ("router", "one", "two"),
    ]
    assert audit.moved_routes(after, after, at=NOON) == ()
