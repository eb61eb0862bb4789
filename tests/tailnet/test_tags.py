"""Tags under a policy: which there are, who may claim them, and what an administrator may set."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from appliance.errors import Invalid
from appliance.records import AuthKey, Node, Role
from appliance.tailnet import keys, nodes, tags, users
from tests.support.builder import node_key
from tests.support.clock import NOON
from tests.tailnet.ruling import Ruled

POLICY = {
    "groups": {"group:ops": ["alice@example.com"]},
    "tagOwners": {
        "tag:web": ["group:ops"],
        "tag:db": ["tag:web"],
        "tag:deep": ["tag:db"],
        "tag:net": ["autogroup:network-admin"],
        "tag:loop": ["tag:pool"],
        "tag:pool": ["tag:loop"],
        "tag:nobodys": [],
    },
}


def refused(ruled: Ruled, machine: str, owner: str, *wanted: str) -> Invalid:
    with pytest.raises(Invalid) as caught:
        ruled.enrol(machine, owner=owner, tags=wanted)
    assert caught.value.code == "tags-not-permitted"
    return caught.value


class TestClaims:
    """Who owns a tag."""

    @pytest.mark.parametrize(
        ("tag", "owners"),
        [
            ("tag:web", {"alice"}),
            ("tag:db", {"alice"}),
            ("tag:deep", {"alice"}),
            ("tag:net", {"bob"}),
            ("tag:loop", set()),
            ("tag:nobodys", set()),
            ("tag:unknown", set()),
        ],
    )
    def test_by_name_group_role_and_chains(self, tag: str, owners: set[str]) -> None:
        ruled = Ruled(POLICY)
        bob = users.find_one(ruled.edit, name="bob")
        users.set_role(ruled.edit, bob.id, Role.NETWORK_ADMIN)
        found = {u.name for u in users.find(ruled.edit) if tags.may_claim(ruled.edit, u, tag)}
        assert found == owners


class TestKeys:
    """An auth key gives the tags that it was made with, whoever owns others."""

    @pytest.mark.parametrize("wanted", ["tag:web", "tag:nobodys", "tag:unknown"])
    def test_a_users_key_gives_no_tag_not_even_an_owned_one(self, wanted: str) -> None:
        ruled = Ruled(POLICY)
        refusal = refused(ruled, "srv", "alice", wanted)
        assert f"requested tags [{wanted}] are invalid or not permitted" in refusal.sentence
        assert ("its user alice owns" in refusal.sentence) == (wanted == "tag:web")
        assert not ruled.edit.nodes

    @pytest.mark.parametrize("wanted", ["tag:db", "tag:nobodys", "tag:unknown"])
    def test_a_tagged_key_gives_no_other_tag_not_even_a_chained_one(self, wanted: str) -> None:
        for owner in ("tag:web", "alice+tag:web"):
            refused(Ruled(POLICY), "srv", owner, "tag:web", wanted)

    def test_a_key_keeps_giving_a_tag_that_no_policy_defines(self) -> None:
        ruled = Ruled(POLICY)
        node = ruled.enrol("srv", owner="tag:old", tags=("tag:old",))
        assert node.tags == ("tag:old",)

    def test_a_running_node_neither_adds_nor_drops_tags(self) -> None:
        ruled = Ruled(POLICY)
        mine = ruled.enrol("laptop", owner="alice")
        assert ruled.enrol("laptop", tags=("tag:web",)) == ruled.edit.nodes[mine.id]
        assert ruled.edit.nodes[mine.id].tags == ()
        tagged = nodes.set_tags(ruled.edit, mine.id, ["tag:web", "tag:db"], NOON)
        for said in ((), ("tag:web",), ("tag:deep",)):
            assert ruled.enrol("laptop", tags=said).tags == tagged.tags

    def test_what_an_administrator_set_survives_the_same_key(self) -> None:
        ruled = Ruled(POLICY)
        auth = ruled.key("tag:web", reusable=True)
        node = ruled.enrol("srv", auth=auth)
        nodes.set_tags(ruled.edit, node.id, ["tag:db"], NOON)
        assert ruled.enrol("srv", auth=auth, key="next", old="srv").tags == ("tag:db",)


class TestUserKeyOnATaggedNode:
    """X3: the machine of a tagged node comes with a user's key. A key never takes tags away."""

    def tagged(self, ruled: Ruled, by: str) -> tuple[Node, tuple[AuthKey, str]]:
        """Enrol a server and have an administrator tag it."""
        auth = ruled.key(by, reusable=True)
        node = ruled.enrol("srv", auth=auth)
        nodes.rename(ruled.edit, node.id, "files")
        return nodes.set_tags(ruled.edit, node.id, ["tag:db"], NOON), auth

    @pytest.mark.parametrize("by", ["alice", "bob", "tag:web"])
    @pytest.mark.parametrize("ephemeral", [False, True])
    def test_valid_node_stays_what_it_is_but_for_its_key(self, by: str, ephemeral: bool) -> None:
        ruled = Ruled(POLICY)
        node, _ = self.tagged(ruled, by)
        nodes.expire(ruled.edit, node.id, NOON, at=NOON + timedelta(days=9))
        node = ruled.edit.nodes[node.id]
        auth = ruled.key("bob", ephemeral=ephemeral)
        again = ruled.enrol("srv", auth=auth, key="n2", old="srv")
        lasting = ("id", "stable_id", "name", "ipv4", "ipv6", "tags", "user_id", "created_at")
        assert all(getattr(again, each) == getattr(node, each) for each in lasting)
        assert again.node_key == node_key("n2")
        assert list(ruled.edit.nodes) == [node.id]
        assert ruled.edit.auth_keys[auth[0].id].used_at == NOON
        if by != "bob":
            assert again == replace(node, node_key=node_key("n2")), "and no longer life"

    @pytest.mark.parametrize("how", ["same key", "another key"])
    @pytest.mark.parametrize("old", ["srv", ""])
    def test_user_who_enrolled_it_brings_it_back_after_a_log_out(self, how: str, old: str) -> None:
        ruled = Ruled(POLICY)
        node, auth = self.tagged(ruled, "alice")
        nodes.expire(ruled.edit, node.id, NOON)
        auth = auth if how == "same key" else ruled.key("alice")
        back = ruled.enrol("srv", auth=auth, key="n2", old=old)
        assert (back.id, back.name, back.tags, back.expires_at) == (
            node.id,
            "files",
            ("tag:db",),
            None,
        )

    @pytest.mark.parametrize("by", ["alice", "tag:web", "alice, whose key is deleted"])
    def test_nobody_else_brings_back_a_node_that_was_locked_out(self, by: str) -> None:
        """Else ``nodes expire`` would be undone by whoever has any user's key for the machine."""
        ruled = Ruled(POLICY)
        name = by.partition(",")[0]
        node, auth = self.tagged(ruled, name)
        nodes.expire(ruled.edit, node.id, NOON)
        owner = "bob"
        if name != by:
            keys.delete(ruled.edit, auth[0].id)
            owner = "alice"
        other = ruled.enrol("srv", owner=owner, key="n2", old="srv")
        assert (other.id != node.id, other.tags, other.user_id is None) == (True, (), False)
        assert ruled.edit.nodes[node.id].is_expired(NOON)

    def test_other_user_may_still_switch_on_the_machine(self) -> None:
        """A second profile of the client says nothing of the node that the first one has."""
        ruled = Ruled(POLICY)
        node, _ = self.tagged(ruled, "alice")
        bobs = ruled.enrol("srv", owner="bob", key="n2")
        assert (bobs.id != node.id, bobs.tags) == (True, ())
        assert ruled.enrol("srv", owner="bob", key="n3", old="n2").id == bobs.id
        assert ruled.enrol("srv", owner="bob", key="n4", old="srv").id == node.id

    def test_user_key_asks_for_no_tags_not_even_for_those_that_are_there(self) -> None:
        ruled = Ruled(POLICY)
        self.tagged(ruled, "alice")
        with pytest.raises(Invalid):
            ruled.enrol("srv", owner="alice", key="n2", old="srv", tags=("tag:db",))


class TestSetting:
    """``nodes tag``: an administrator owns all tags that there are."""

    def test_every_defined_tag_whoever_owns_it(self) -> None:
        ruled = Ruled(POLICY)
        node = ruled.enrol("srv", owner="bob")
        wanted = ["tag:web", "tag:nobodys"]
        assert nodes.set_tags(ruled.edit, node.id, wanted, NOON).tags == tuple(sorted(wanted))

    @pytest.mark.parametrize("policy", [POLICY, {}])
    def test_an_undefined_one_is_refused_and_nothing_changes(
        self, policy: dict[str, object]
    ) -> None:
        ruled = Ruled(policy)
        node = ruled.enrol("srv", owner="bob")
        with pytest.raises(Invalid) as caught:
            nodes.set_tags(ruled.edit, node.id, ["tag:webb", "tag:x"], NOON)
        assert caught.value.code == "tag-undefined"
        assert "requested tags [tag:webb tag:x] are invalid" in caught.value.sentence
        assert ("did you mean tag:web?" in caught.value.sentence) == bool(policy)
        assert ruled.edit.nodes[node.id].tags == ()

    def test_without_a_policy_there_is_none_to_set(self) -> None:
        """X7: as Headscale. Only keys give tags then."""
        ruled = Ruled()
        node = ruled.enrol("srv", owner="bob")
        with pytest.raises(Invalid, match="no policy is in force") as caught:
            nodes.set_tags(ruled.edit, node.id, ["tag:any"], NOON)
        assert caught.value.code == "tag-undefined"
        assert ruled.edit.nodes[node.id].tags == ()
        assert ruled.enrol("web", owner="tag:any").tags == ("tag:any",)

    def test_a_refusal_names_some_tags_only(self) -> None:
        ruled = Ruled(POLICY)
        node = ruled.enrol("srv", owner="bob")
        many = [f"tag:x{number}" for number in range(60)]
        with pytest.raises(Invalid) as caught:
            nodes.set_tags(ruled.edit, node.id, many, NOON)
        assert caught.value.sentence.count("tag:x") == tags.MAX_TAGS_TOLD
