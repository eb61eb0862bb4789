"""Presence, and what the passing of time does to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from appliance.records import Attribute, NodeID, Presence
from appliance.tailnet import attributes, expiry, presence
from appliance.tailnet.snapshot import Edit
from tests.support.builder import build, edit_of, node_named
from tests.support.clock import NOON

FIRST = NodeID(1)
SECOND = timedelta(seconds=1)


@pytest.fixture
def edit() -> Edit:
    return edit_of(build("alice: laptop"))


def tick(edit: Edit, after: timedelta) -> Edit:
    """Let time pass in a fresh draft of what is there."""
    snapshot = edit.finish()[0]
    due = expiry.is_due(snapshot, NOON + after)
    fresh = edit_of(snapshot)
    expiry.tick(fresh, NOON + after)
    again = fresh.finish()[0]
    assert due == (again is not snapshot)
    return edit_of(again)


def test_online_while_a_session_is_open(edit: Edit) -> None:
    presence.session_opened(edit, FIRST, NOON)
    presence.session_opened(edit, FIRST, NOON)
    presence.session_closed(edit, FIRST, NOON)
    assert edit.presence_of(FIRST) == Presence(online=True, sessions=1, online_since=NOON)
    edit = tick(edit, timedelta(days=1))
    assert edit.presence_of(FIRST).online


def test_offline_after_the_grace_time(edit: Edit) -> None:
    presence.session_opened(edit, FIRST, NOON)
    presence.session_closed(edit, FIRST, NOON)
    assert edit.presence_of(FIRST) == Presence(online=True, last_seen=NOON, online_since=NOON)
    edit = tick(edit, expiry.OFFLINE_GRACE - SECOND)
    assert edit.presence_of(FIRST).online
    edit = tick(edit, expiry.OFFLINE_GRACE)
    assert edit.presence_of(FIRST) == Presence(last_seen=NOON)


def test_coming_back_within_the_grace_time_is_not_seen(edit: Edit) -> None:
    presence.session_opened(edit, FIRST, NOON)
    presence.session_closed(edit, FIRST, NOON + SECOND)
    presence.session_opened(edit, FIRST, NOON + 2 * SECOND)
    edit = tick(edit, timedelta(minutes=1))
    assert edit.presence_of(FIRST) == Presence(
        online=True, sessions=1, last_seen=NOON + SECOND, online_since=NOON
    )


def test_leaving_once_too_often_does_no_harm(edit: Edit) -> None:
    presence.session_closed(edit, FIRST, NOON)
    assert edit.presence_of(FIRST).sessions == 0


def test_presence_of_a_deleted_node_is_ignored(edit: Edit) -> None:
    edit.drop(edit.nodes[FIRST])
    presence.session_opened(edit, FIRST, NOON)
    presence.session_closed(edit, FIRST, NOON)
    assert edit.finish()[0].presence == {}


def test_keys_expire_and_come_back(edit: Edit) -> None:
    laptop = replace(node_named(edit, "laptop"), expires_at=NOON + SECOND)
    edit.put(laptop)
    edit = tick(edit, timedelta())
    assert not edit.presence_of(FIRST).expired
    edit = tick(edit, SECOND)
    assert edit.presence_of(FIRST).expired
    edit.put(replace(laptop, expires_at=None))
    edit = tick(edit, SECOND)
    assert not edit.presence_of(FIRST).expired


def test_attributes_go_when_their_time_is_over(edit: Edit) -> None:
    later = NOON + timedelta(hours=1)
    attributes.put(edit, FIRST, "custom:level", 4, NOON, expires_at=NOON + SECOND)
    attributes.put(edit, FIRST, "custom:oncall", True, NOON, expires_at=later)
    attributes.put(edit, FIRST, "custom:team", "ops", NOON)
    edit = tick(edit, timedelta())
    assert len(edit.nodes[FIRST].attributes) == 3
    edit = tick(edit, SECOND)
    assert [each.name for each in edit.nodes[FIRST].attributes] == ["custom:oncall", "custom:team"]
    edit = tick(edit, timedelta(days=365))
    assert edit.nodes[FIRST].attributes == (Attribute("custom:team", "ops"),)


def test_attributes_and_presence_end_in_one_tick(edit: Edit) -> None:
    attributes.put(edit, FIRST, "custom:level", 4, NOON, expires_at=NOON + SECOND)
    edit.put(replace(edit.nodes[FIRST], expires_at=NOON + SECOND))
    edit = tick(edit, SECOND)
    assert edit.presence_of(FIRST).expired
    assert edit.nodes[FIRST].attributes == ()


def test_expiry_is_noted_at_once_where_it_is_decided(edit: Edit) -> None:
    laptop = replace(node_named(edit, "laptop"), expires_at=NOON)
    edit.put(laptop)
    presence.note_expiry(edit, laptop, NOON - SECOND)
    assert not edit.presence_of(FIRST).expired
    presence.note_expiry(edit, laptop, NOON)
    assert edit.presence_of(FIRST).expired


class TestEphemeral:
    """Ephemeral nodes go when they stay away."""

    timeout = timedelta(minutes=30)

    @pytest.fixture
    def edit(self) -> Edit:
        return edit_of(build("alice: job~ laptop"))

    def test_after_the_last_session(self, edit: Edit) -> None:
        presence.session_opened(edit, FIRST, NOON)
        edit = tick(edit, timedelta(days=1))
        assert FIRST in edit.nodes, "still connected"
        presence.session_closed(edit, FIRST, NOON)
        edit = tick(edit, self.timeout - SECOND)
        assert FIRST in edit.nodes
        edit = tick(edit, self.timeout)
        assert set(edit.nodes) == {2}

    def test_that_never_connected(self, edit: Edit) -> None:
        assert FIRST in tick(edit, self.timeout - SECOND).nodes

    def test_are_not_blamed_for_our_absence(self, edit: Edit) -> None:
        started = NOON + timedelta(days=1)
        expiry.tick(edit, started, since=started)
        assert FIRST in edit.nodes
        expiry.tick(edit, started + self.timeout, since=started)
        assert FIRST not in edit.nodes
