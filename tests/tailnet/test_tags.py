"""Tags under a policy: which there are, who may claim them, and what an administrator may set."""

from __future__ import annotations

import pytest

from appliance.errors import Invalid
from appliance.records import Role
from appliance.tailnet import nodes, tags, users
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

    def test_without_a_policy_tags_are_free(self) -> None:
        ruled = Ruled()
        node = ruled.enrol("srv", owner="bob")
        assert nodes.set_tags(ruled.edit, node.id, ["tag:any"], NOON).tags == ("tag:any",)

    def test_a_refusal_names_some_tags_only(self) -> None:
        ruled = Ruled(POLICY)
        node = ruled.enrol("srv", owner="bob")
        many = [f"tag:x{number}" for number in range(60)]
        with pytest.raises(Invalid) as caught:
            nodes.set_tags(ruled.edit, node.id, many, NOON)
        assert caught.value.sentence.count("tag:x") == tags.MAX_TAGS_TOLD
