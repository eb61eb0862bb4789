"""Routes that the policy approves: who, when, which, and what becomes of an approval."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from appliance.records import Role
from appliance.tailnet import nodes, routes, users
from tests.support.clock import NOON
from tests.tailnet.ruling import Ruled, networks

EXITS = ("0.0.0.0/0", "::/0")
OWNERS = {"tag": "tag:router", "user": "alice", "group": "alice"}
APPROVERS = {"tag": "tag:router", "user": "alice@example.com", "group": "group:ops"}
TAGS = {"tag:router": ["alice@example.com"], "tag:plain": ["alice@example.com"]}


def policy(
    approver: str = "tag:router", *, exit_node: bool = False, **rest: list[str]
) -> dict[str, Any]:
    approvers: dict[str, Any] = {"routes": {"10.0.0.0/8": [approver], "fd00:1::/32": [approver]}}
    if exit_node:
        approvers["exitNode"] = [approver]
    return {
        "tagOwners": TAGS,
        "groups": {"group:ops": ["alice@example.com"]},
        "autoApprovers": approvers,
        **rest,
    }


class TestMatrix:
    """Acceptance G08: whoever the approver is, and whatever comes first."""

    @pytest.mark.parametrize(
        ("approver", "before", "route"),
        list(product(APPROVERS, ("policy", "offer"), ("10.0.0.0/8", "10.5.0.0/16", "exit"))),
    )
    def test_matrix(self, approver: str, before: str, route: str) -> None:
        ruled = Ruled()
        offered = EXITS if route == "exit" else (route,)
        rule = policy(APPROVERS[approver], exit_node=route == "exit")
        if before == "policy":
            ruled.rule(rule)
        node = ruled.enrol("router", owner=OWNERS[approver], routes=offered)
        assert node.approved_routes == (networks(*offered) if before == "policy" else ())
        if before == "offer":
            ruled.rule(rule)
        assert ruled.edit.nodes[node.id].approved_routes == networks(*offered)
        # Bob's node gets none of it.
        other = ruled.enrol("other", owner="bob", routes=offered)
        assert other.approved_routes == ()
        # The rule goes: the approval stays.
        ruled.rule({"tagOwners": TAGS})
        assert ruled.edit.nodes[node.id].approved_routes == networks(*offered)
        # Withdrawn, the route is not served; offered again, it is.
        assert routes.served(ruled.offer(node.id)) == ()
        assert routes.served(ruled.offer(node.id, *offered)) == networks(*offered)

    def test_a_prefix_never_approves_an_exit_node(self) -> None:
        rule = policy()
        rule["autoApprovers"] = {"routes": {"0.0.0.0/0": ["tag:router"], "::/0": ["tag:router"]}}
        ruled = Ruled(rule)
        node = ruled.enrol("router", owner="tag:router", routes=(*EXITS, "10.1.0.0/16"))
        assert node.approved_routes == networks("10.1.0.0/16")

    def test_an_exit_rule_approves_no_subnet(self) -> None:
        rule = policy()
        rule["autoApprovers"] = {"exitNode": ["tag:router"]}
        node = Ruled(rule).enrol("router", owner="tag:router", routes=(*EXITS, "10.1.0.0/16"))
        assert node.approved_routes == networks(*EXITS)

    def test_a_supernet_of_the_prefix_is_not_approved(self) -> None:
        node = Ruled(policy()).enrol("r", owner="tag:router", routes=("10.0.0.0/7", "10.1.0.0/16"))
        assert node.approved_routes == networks("10.1.0.0/16")


class TestMoments:
    """Wherever offered routes, tags or owner change."""

    def test_check_in_with_new_routes(self) -> None:
        ruled = Ruled(policy())
        node = ruled.enrol("router", owner="tag:router")
        assert ruled.offer(node.id, "10.1.0.0/16", "192.168.0.0/24").approved_routes == networks(
            "10.1.0.0/16"
        )
        both = networks("10.1.0.0/16", "10.2.0.0/16")
        assert ruled.offer(node.id, "10.1.0.0/16", "10.2.0.0/16").approved_routes == both

    def test_what_an_administrator_took_back_stays_so_until_the_offer_changes(self) -> None:
        ruled = Ruled(policy())
        node = ruled.enrol("router", owner="tag:router", routes=("10.1.0.0/16", "10.2.0.0/16"))
        nodes.approve_routes(ruled.edit, node.id, [])
        ruled.offer(node.id, "10.2.0.0/16", "10.1.0.0/16", endpoint="192.0.2.1:1")
        assert ruled.edit.nodes[node.id].approved_routes == ()
        ruled.enrol("router", routes=("10.1.0.0/16", "10.2.0.0/16"))  # a restart of the client
        assert ruled.edit.nodes[node.id].approved_routes == ()
        assert ruled.offer(node.id, "10.1.0.0/16").approved_routes == networks("10.1.0.0/16")

    def test_restart_with_other_routes(self) -> None:
        ruled = Ruled(policy())
        ruled.enrol("router", owner="tag:router")
        node = ruled.enrol("router", routes=("10.1.0.0/16",))
        assert node.approved_routes == networks("10.1.0.0/16")

    def test_login_again_keeps_and_adds(self) -> None:
        ruled = Ruled(policy())
        auth = ruled.key("tag:router", reusable=True)
        node = ruled.enrol("router", auth=auth, routes=("10.1.0.0/16",))
        again = ruled.enrol(
            "router", auth=auth, key="second", old="router", routes=("10.2.0.0/16",)
        )
        assert again.id == node.id
        assert again.approved_routes == networks("10.1.0.0/16", "10.2.0.0/16")

    def test_a_tagged_key_that_converts_a_users_node(self) -> None:
        ruled = Ruled(policy())
        node = ruled.enrol("router", owner="bob", routes=("10.1.0.0/16",))
        assert node.approved_routes == ()
        node = ruled.enrol("router", owner="tag:router", routes=("10.1.0.0/16",))
        assert node.approved_routes == networks("10.1.0.0/16")

    def test_tags_set_by_an_administrator(self) -> None:
        ruled = Ruled(policy())
        node = ruled.enrol("router", owner="bob", routes=("10.1.0.0/16",))
        tagged = nodes.set_tags(ruled.edit, node.id, ["tag:router"], NOON)
        assert tagged.approved_routes == networks("10.1.0.0/16")
        # Other tags take nothing back.
        plain = nodes.set_tags(ruled.edit, node.id, ["tag:plain"], NOON)
        assert plain.approved_routes == networks("10.1.0.0/16")

    def test_moved_to_another_user(self) -> None:
        ruled = Ruled(policy("alice@example.com"))
        node = ruled.enrol("router", owner="bob", routes=("10.1.0.0/16",))
        alice = users.find_one(ruled.edit, name="alice")
        moved = nodes.move(ruled.edit, node.id, alice.id)
        assert moved.approved_routes == networks("10.1.0.0/16")

    def test_a_user_whom_the_policy_means_by_a_new_name_or_role(self) -> None:
        ruled = Ruled(policy("carol@"))
        node = ruled.enrol("router", owner="bob", routes=("10.1.0.0/16",))
        bob = users.find_one(ruled.edit, name="bob")
        users.rename(ruled.edit, bob.id, "carol")
        assert ruled.edit.nodes[node.id].approved_routes == networks("10.1.0.0/16")
        ruled = Ruled(policy("autogroup:network-admin"))
        node = ruled.enrol("router", owner="bob", routes=("10.1.0.0/16",))
        assert users.set_role(ruled.edit, bob.id, Role.NETWORK_ADMIN).role is Role.NETWORK_ADMIN
        assert ruled.edit.nodes[node.id].approved_routes == networks("10.1.0.0/16")

    def test_without_approvers_nothing_is_approved(self) -> None:
        node = Ruled().enrol("router", owner="alice", routes=("10.1.0.0/16", *EXITS))
        assert node.approved_routes == ()


def test_ever_new_offers_push_out_approvals_that_are_no_longer_offered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routes, "MAX_APPROVED_ROUTES", 6)
    ruled = Ruled(policy(exit_node=True))
    node = ruled.enrol("connector", owner="tag:router", routes=EXITS)
    for number in range(10):
        offered = (*EXITS, f"10.{number}.0.0/16", f"10.{number}.1.0/24")
        node = ruled.offer(node.id, *offered)
        assert set(routes.served(node)) == set(networks(*offered))
        assert len(node.approved_routes) <= 6
