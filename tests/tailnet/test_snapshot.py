"""``Edit``: what counts as a change, what is refused, what a draft shares with its base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from appliance.errors import Conflict
from appliance.policy.engine.compile import Compiled
from appliance.records import AuthKeyID, Node, NodeID, Presence, Settings, User, UserID
from appliance.tailnet import presence
from appliance.tailnet.snapshot import Edit, Rows
from tests.support.builder import build, edit_of, key_for, node_key, node_named
from tests.support.clock import NOON

LAPTOP, PHONE = NodeID(1), NodeID(2)


@pytest.fixture
def edit() -> Edit:
    edit = edit_of(build("alice: laptop* phone"))
    key_for(edit, "alice")
    return edit_of(edit.finish()[0])


def copied(node: Node) -> Node:
    return replace(node)


def test_equal_records_keep_the_old_object(edit: Edit) -> None:
    laptop = edit.nodes[LAPTOP]
    edit.put(copied(laptop))
    edit.put(replace(edit.users[UserID(1)]))
    edit.put(replace(edit.auth_keys[AuthKeyID(1)]))
    edit.put(replace(edit.tailnet))
    assert edit.finish() == (edit.base, Rows())


def test_putting_back_is_no_change_and_keeps_the_old_object(edit: Edit) -> None:
    laptop = edit.nodes[LAPTOP]
    edit.put(replace(laptop, name="desk"))
    edit.put(copied(laptop))
    assert edit.nodes[LAPTOP] is laptop
    tailnet = edit.tailnet
    edit.put(replace(tailnet, domain="x"))
    edit.put(replace(tailnet))
    snapshot, rows = edit.finish()
    assert snapshot is edit.base
    assert rows == Rows()


def test_put_back_beside_a_real_change_is_the_same_object(edit: Edit) -> None:
    laptop, phone = edit.nodes[LAPTOP], edit.nodes[PHONE]
    edit.put(replace(laptop, name="desk"))
    edit.put(replace(phone, name="tablet"))
    edit.put(copied(laptop))
    snapshot, rows = edit.finish()
    assert snapshot.nodes[LAPTOP] is laptop
    assert rows.puts == (snapshot.nodes[PHONE],)
    assert snapshot.by_name == {"laptop": 1, "tablet": 2}


def test_base_is_never_touched(edit: Edit) -> None:
    base = edit.base
    before = {name: dict(getattr(base, name)) for name in ("nodes", "by_name", "presence", "users")}
    edit.put(replace(edit.nodes[LAPTOP], name="desk"))
    edit.drop(edit.nodes[PHONE])
    edit.set_presence(LAPTOP, Presence())
    edit.put(User(UserID(9), "bob", NOON))
    edit.finish()
    assert {name: getattr(base, name) for name in before} == before


def test_unchanged_mappings_are_shared(edit: Edit) -> None:
    edit.set_presence(PHONE, Presence(online=True))
    snapshot = edit.finish()[0]
    base = edit.base
    assert snapshot.nodes is base.nodes
    assert snapshot.by_name is base.by_name
    assert snapshot.presence is not base.presence
    assert snapshot.version == base.version + 1


def test_names_can_be_passed_on_within_one_edit(edit: Edit) -> None:
    laptop, phone = edit.nodes[LAPTOP], edit.nodes[PHONE]
    edit.put(replace(laptop, name="aside"))
    edit.put(replace(phone, name="laptop"))
    edit.put(replace(laptop, name="phone"))
    assert edit.by_name == {"laptop": PHONE, "phone": LAPTOP}


def test_taken_keys_names_and_addresses_are_refused(edit: Edit) -> None:
    laptop, phone = edit.nodes[LAPTOP], edit.nodes[PHONE]
    for changes, code in [
        ({"name": laptop.name}, "node-name-taken"),
        ({"node_key": laptop.node_key}, "node-key-taken"),
        ({"ipv4": laptop.ipv4}, "address-taken"),
        ({"ipv6": laptop.ipv6}, "address-taken"),
    ]:
        with pytest.raises(Conflict) as caught:
            edit.put(replace(phone, **changes))  # type: ignore[arg-type]  # each fits its field
        assert caught.value.code == code
    assert edit.finish()[0] is edit.base, "a refused put leaves no trace"


def test_changed_keys_leave_no_old_entry(edit: Edit) -> None:
    laptop = edit.nodes[LAPTOP]
    edit.put(replace(laptop, node_key=node_key("new"), ipv4=None))
    assert edit.node_of(laptop.node_key) is None
    assert edit.node_of(node_key("new")) is edit.nodes[LAPTOP]
    assert laptop.ipv4 not in edit.by_address
    assert laptop.ipv6 in edit.by_address


def test_auth_key_prefixes_are_unique_and_follow(edit: Edit) -> None:
    key = edit.auth_keys[AuthKeyID(1)]
    with pytest.raises(Conflict):
        edit.put(replace(key, id=AuthKeyID(7)))
    edit.put(replace(key, prefix="other"))
    assert edit.by_key_prefix == {"other": 1}
    edit.drop(key)
    assert edit.by_key_prefix == {}


def test_dropping_what_is_not_there_changes_nothing(edit: Edit) -> None:
    edit.drop(replace(edit.nodes[LAPTOP], id=NodeID(77)))
    edit.drop(User(UserID(77), "x", NOON))
    edit.drop(replace(edit.auth_keys[AuthKeyID(1)], id=AuthKeyID(77)))
    assert edit.finish() == (edit.base, Rows())


def test_drop_names_what_was_stored(edit: Edit) -> None:
    laptop = edit.nodes[LAPTOP]
    edit.put(replace(laptop, name="desk"))
    edit.drop(edit.nodes[LAPTOP])
    snapshot, rows = edit.finish()
    assert rows == Rows(drops=(laptop,))
    assert LAPTOP not in snapshot.presence


def test_a_node_that_comes_back_has_lost_its_presence(edit: Edit) -> None:
    laptop = edit.nodes[LAPTOP]
    edit.drop(laptop)
    edit.put(copied(laptop))
    snapshot, rows = edit.finish()
    assert rows == Rows()
    assert snapshot.nodes[LAPTOP] is laptop
    assert not snapshot.presence_of(LAPTOP).online


def test_presence_that_comes_back_is_no_change(edit: Edit) -> None:
    for node_id in (LAPTOP, PHONE):
        before = edit.presence_of(node_id)
        edit.set_presence(node_id, Presence(sessions=7, last_seen=NOON))
        edit.set_presence(node_id, replace(before))
    assert edit.finish() == (edit.base, Rows())


def test_presence_of_a_stranger_means_nothing(edit: Edit) -> None:
    edit.set_presence(NodeID(77), Presence(online=True))
    assert edit.finish()[0] is edit.base


def test_leaving_is_worth_a_row_but_not_a_wait(edit: Edit) -> None:
    presence.session_closed(edit, LAPTOP, NOON)
    rows = edit.finish()[1]
    assert rows.last_seen == ((LAPTOP, NOON),)
    assert not rows.is_durable


def test_settings_and_policy_are_changes_without_rows(edit: Edit) -> None:
    edit.set_settings(Settings())
    assert edit.settings is edit.base.settings
    edit.set_compiled(Compiled())
    snapshot, rows = edit.finish()
    assert snapshot is not edit.base
    assert rows == Rows()


def test_a_finished_draft_takes_nothing_more(edit: Edit) -> None:
    node = node_named(edit, "laptop")
    edit.put(replace(node, name="desk"))
    edit.finish()
    writes: list[Callable[[], None]] = [
        lambda: edit.put(node),
        lambda: edit.drop(node),
        lambda: edit.set_presence(LAPTOP, Presence()),
    ]
    for late in writes:
        with pytest.raises(RuntimeError, match="finished"):
            late()


def test_carried_over_changes_count_on(edit: Edit) -> None:
    presence.session_opened(edit, LAPTOP, NOON)
    presence.session_closed(edit, PHONE, NOON)
    edit.put(replace(edit.nodes[LAPTOP], name="desk"))
    edit.finish()
    other = edit_of(edit.base)
    presence.session_opened(other, LAPTOP, NOON)
    edit.carry_over(other)
    assert other.presence_of(LAPTOP).sessions == 3
    assert other.presence_of(PHONE) == Presence(last_seen=NOON)
    assert other.nodes[LAPTOP].name == "laptop"


def test_private_mappings_are_written_in_place_and_can_be_taken_back(edit: Edit) -> None:
    edit.put(replace(edit.nodes[LAPTOP], name="desk"))
    edit.set_presence(PHONE, Presence(online=True))
    tip = edit.finish()[0]
    assert edit.private == {"nodes", "by_name", "presence"}
    before = {name: dict(getattr(tip, name)) for name in ("nodes", "by_name", "presence")}

    draft = Edit(tip, edit.ids, private=edit.private)
    draft.put(replace(draft.nodes[PHONE], name="tablet"))
    draft.drop(draft.nodes[LAPTOP])
    assert tip.by_name == {"tablet": PHONE}, "written in place"
    assert edit.base.by_name == {"laptop": LAPTOP, "phone": PHONE}
    draft.abandon()
    assert {name: dict(getattr(tip, name)) for name in before} == before
    with pytest.raises(RuntimeError):
        draft.drop(tip.nodes[PHONE])

    draft = Edit(tip, edit.ids, private=edit.private)
    draft.put(replace(draft.nodes[PHONE], name="tablet"))
    snapshot, rows = draft.finish()
    assert snapshot.nodes is tip.nodes
    assert rows.puts == (snapshot.nodes[PHONE],)
    assert snapshot.version == tip.version + 1


def test_a_finished_draft_can_be_repeated(edit: Edit) -> None:
    edit.put(replace(edit.nodes[LAPTOP], name="desk"))
    edit.drop(edit.nodes[PHONE])
    presence.session_closed(edit, LAPTOP, NOON)
    snapshot, rows = edit.finish()
    other = edit_of(edit.base)
    edit.replay(other)
    again, rows_again = other.finish()
    assert rows_again == rows
    assert (again.nodes, again.presence) == (snapshot.nodes, snapshot.presence)
