"""The verbs for nodes, their routes, and the settings that they depend on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import pytest

from appliance.errors import Conflict, Invalid, NotFound, Rejected
from appliance.records import TAGGED_USER_ID, NodeID, Settings, UserID
from appliance.tailnet import nodes, routes
from appliance.tailnet import settings as site
from appliance.tailnet.snapshot import Edit
from tests.support.builder import build, define_tags, edit_of, node_named
from tests.support.clock import NOON

LAPTOP, PHONE, SRV = NodeID(1), NodeID(2), NodeID(3)
HOUR = timedelta(hours=1)


@pytest.fixture
def edit() -> Edit:
    return edit_of(build("alice: laptop phone(on=laptop); tag:web: srv; bob:"))


VERBS: list[tuple[str, tuple[Any, ...]]] = [
    ("get", ()),
    ("rename", ("x",)),
    ("expire", (NOON,)),
    ("never_expire", (NOON,)),
    ("delete", ()),
    ("set_tags", (["tag:web"], NOON)),
    ("approve_routes", ([],)),
    ("move", (UserID(1),)),
]


@pytest.mark.parametrize(("verb", "rest"), VERBS)
def test_unknown_node_is_not_found(edit: Edit, verb: str, rest: tuple[Any, ...]) -> None:
    with pytest.raises(NotFound) as caught:
        getattr(nodes, verb)(edit, NodeID(99), *rest)
    assert caught.value.code == "node-unknown"


def test_list_is_by_id_and_may_be_of_one_owner(edit: Edit) -> None:
    assert [n.id for n in nodes.find(edit)] == [1, 2, 3]
    assert [n.id for n in nodes.find(edit, user_id=UserID(1))] == [1, 2]
    assert [n.id for n in nodes.find(edit, user_id=TAGGED_USER_ID)] == [3]
    assert nodes.find(edit, user_id=UserID(2)) == []


def test_rename_pins_the_name(edit: Edit) -> None:
    node = nodes.rename(edit, LAPTOP, "Tower")
    assert (node.name, node.hostname, node.name_pinned) == ("tower", "laptop", True)
    assert edit.by_name["tower"] == LAPTOP
    assert "laptop" not in edit.by_name
    assert nodes.rename(edit, PHONE, "laptop").name == "laptop"


def test_rename_refuses(edit: Edit) -> None:
    with pytest.raises(Conflict):
        nodes.rename(edit, LAPTOP, "phone")
    with pytest.raises(Invalid):
        nodes.rename(edit, LAPTOP, "x" * 64)
    assert node_named(edit, "laptop").id == LAPTOP


class TestExpiry:
    """Keys run out when an administrator says so."""

    def test_now(self, edit: Edit) -> None:
        assert nodes.expire(edit, LAPTOP, NOON).expires_at == NOON
        assert edit.presence_of(LAPTOP).expired
        assert nodes.expire(edit, LAPTOP, NOON + HOUR).expires_at == NOON, "it has already"

    def test_later_and_even_later(self, edit: Edit) -> None:
        assert nodes.expire(edit, LAPTOP, NOON, at=NOON + HOUR).expires_at == NOON + HOUR
        assert not edit.presence_of(LAPTOP).expired
        assert nodes.expire(edit, LAPTOP, NOON, at=NOON + 2 * HOUR).expires_at == NOON + 2 * HOUR

    def test_a_time_in_the_past_is_now(self, edit: Edit) -> None:
        assert nodes.expire(edit, LAPTOP, NOON, at=NOON - HOUR).expires_at == NOON

    def test_extending_revives(self, edit: Edit) -> None:
        nodes.expire(edit, LAPTOP, NOON)
        nodes.expire(edit, LAPTOP, NOON, at=NOON + HOUR)
        assert not edit.presence_of(LAPTOP).expired

    def test_never(self, edit: Edit) -> None:
        nodes.expire(edit, LAPTOP, NOON)
        assert nodes.never_expire(edit, LAPTOP, NOON).expires_at is None
        assert not edit.presence_of(LAPTOP).expired


def test_delete_forgets_everything(edit: Edit) -> None:
    nodes.delete(edit, LAPTOP)
    assert set(edit.nodes) == {PHONE, SRV}
    assert "laptop" not in edit.by_name
    assert edit.by_machine_key[edit.nodes[PHONE].machine_key] == {PHONE}


class TestTags:
    """Tagging turns a user's node into the tags'."""

    def test_a_users_node_becomes_tagged(self, edit: Edit) -> None:
        define_tags(edit, "tag:web", "tag:db")
        nodes.expire(edit, LAPTOP, NOON, at=NOON + HOUR)
        node = nodes.set_tags(edit, LAPTOP, ["tag:web", "tag:db", "tag:web"], NOON)
        assert (node.tags, node.user_id) == (("tag:db", "tag:web"), None)
        assert node.expires_at is None

    def test_an_expired_node_stays_expired(self, edit: Edit) -> None:
        define_tags(edit, "tag:web")
        nodes.expire(edit, LAPTOP, NOON)
        assert nodes.set_tags(edit, LAPTOP, ["tag:web"], NOON).expires_at == NOON

    def test_a_tagged_node_keeps_its_expiry(self, edit: Edit) -> None:
        define_tags(edit, "tag:db")
        nodes.expire(edit, SRV, NOON, at=NOON + HOUR)
        node = nodes.set_tags(edit, SRV, ["tag:db"], NOON)
        assert (node.tags, node.expires_at) == (("tag:db",), NOON + HOUR)

    @pytest.mark.parametrize(
        ("tags", "code"),
        [
            ([], "tags-missing"),
            (["web"], "tag-invalid"),
            (["tag:web", "tag:W"], "tag-invalid"),
            ([f"tag:t{n}" for n in range(65)], "tags-too-many"),
        ],
    )
    def test_refusals(self, edit: Edit, tags: list[str], code: str) -> None:
        with pytest.raises(Rejected) as caught:
            nodes.set_tags(edit, SRV, tags, NOON)
        assert caught.value.code == code


class TestMove:
    """A node goes to another user."""

    def test_to_another_user(self, edit: Edit) -> None:
        assert nodes.move(edit, LAPTOP, UserID(2)).user_id == 2

    def test_tagged_node_loses_its_tags(self, edit: Edit) -> None:
        node = nodes.move(edit, SRV, UserID(2))
        assert (node.user_id, node.tags) == (2, ())

    def test_not_to_a_user_who_has_a_node_on_the_machine(self, edit: Edit) -> None:
        nodes.move(edit, LAPTOP, UserID(2))
        with pytest.raises(Conflict) as caught:
            nodes.move(edit, PHONE, UserID(2))
        assert caught.value.code == "user-has-node-there"

    def test_not_to_nobody(self, edit: Edit) -> None:
        with pytest.raises(NotFound):
            nodes.move(edit, LAPTOP, UserID(9))


class TestRoutes:
    """Approval and what follows from it."""

    def test_approval_replaces_all(self, edit: Edit) -> None:
        first = [ip_network("10.1.0.0/16"), ip_network("10.0.0.0/16"), ip_network("10.1.0.0/16")]
        node = nodes.approve_routes(edit, LAPTOP, first)
        assert [str(r) for r in node.approved_routes] == ["10.0.0.0/16", "10.1.0.0/16"]
        assert nodes.approve_routes(edit, LAPTOP, []).approved_routes == ()

    @pytest.mark.parametrize("half", ["0.0.0.0/0", "::/0"])
    def test_half_an_exit_node_is_a_whole_one(self, edit: Edit, half: str) -> None:
        node = nodes.approve_routes(edit, LAPTOP, [ip_network(half), ip_network("fd00::/8")])
        assert [str(r) for r in node.approved_routes] == ["0.0.0.0/0", "::/0", "fd00::/8"]

    def test_too_many_are_refused(self, edit: Edit) -> None:
        many = [ip_network(f"10.{n // 250}.{n % 250}.0/24") for n in range(5000)]
        with pytest.raises(Invalid):
            nodes.approve_routes(edit, LAPTOP, many)

    def test_only_what_is_offered_and_approved_is_served(self) -> None:
        edit = edit_of(build("alice: r(offers=10.1.0.0/16+10.0.0.0/16)"))
        router = nodes.approve_routes(
            edit, LAPTOP, [ip_network("10.1.0.0/16"), ip_network("10.9.0.0/16")]
        )
        assert [str(r) for r in routes.offered(router)] == ["10.0.0.0/16", "10.1.0.0/16"]
        assert [str(r) for r in routes.served(router)] == ["10.1.0.0/16"]
        assert routes.served(replace(router, approved_routes=())) == ()

    def test_exit_routes_are_known(self) -> None:
        assert routes.is_exit(ip_network("::/0"))
        assert not routes.is_exit(ip_network("10.0.0.0/8"))


class TestSettings:
    """What the configuration says."""

    def test_taken_over_with_the_domain(self, edit: Edit) -> None:
        changed = Settings(magic_dns=False)
        site.take_over(edit, changed, domain=".Other.Example.")
        snapshot, rows = edit.finish()
        assert snapshot.settings is changed
        assert snapshot.tailnet.domain == "other.example"
        assert rows.puts == (snapshot.tailnet,)

    def test_the_same_again_changes_nothing(self, edit: Edit) -> None:
        site.take_over(edit, Settings(), domain="tail.example")
        assert edit.finish()[0] is edit.base

    @pytest.mark.parametrize(
        ("v4", "v6", "code"),
        [
            (None, None, "prefixes-missing"),
            (IPv4Network("100.100.100.0/24"), None, "prefix-empty"),
        ],
    )
    def test_a_tailnet_without_addresses_is_refused(
        self, edit: Edit, v4: IPv4Network | None, v6: IPv6Network | None, code: str
    ) -> None:
        with pytest.raises(Invalid) as caught:
            site.take_over(edit, Settings(prefix_v4=v4, prefix_v6=v6))
        assert caught.value.code == code
