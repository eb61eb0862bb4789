"""What each role may do."""

from __future__ import annotations

import pytest

from appliance.identity.roles import scopes_of
from appliance.identity.scopes import Scope, covers
from appliance.records import Role

CHANGES = [scope for scope in Scope if not scope.is_read and scope is not Scope.ALL]
READS = [scope for scope in Scope if scope.is_read]


def changes_of(role: Role) -> set[Scope]:
    return {scope for scope in CHANGES if covers(scopes_of(role), scope)}


@pytest.mark.parametrize("role", [Role.OWNER, Role.ADMIN])
def test_owners_and_administrators_may_do_everything(role: Role) -> None:
    assert all(covers(scopes_of(role), scope) for scope in Scope)


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.MEMBER])
def test_every_role_but_member_sees_everything(role: Role) -> None:
    assert all(covers(scopes_of(role), scope) for scope in READS)


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.BILLING_ADMIN, Role.MEMBER])
def test_auditors_billing_administrators_and_members_change_nothing(role: Role) -> None:
    assert changes_of(role) == set()


def test_members_have_no_scope() -> None:
    assert scopes_of(Role.MEMBER) == frozenset()


def test_network_and_it_administrators_divide_the_work() -> None:
    """A device and the rule that lets it in take two people."""
    network, it = changes_of(Role.NETWORK_ADMIN), changes_of(Role.IT_ADMIN)
    assert network == {Scope.POLICY_FILE, Scope.DEVICES_ROUTES}
    assert Scope.POLICY_FILE not in it
    assert {Scope.USERS, Scope.DEVICES_CORE, Scope.AUTH_KEYS} <= it
    assert not network & it


def test_only_owners_and_administrators_hand_out_access() -> None:
    for role in (Role.NETWORK_ADMIN, Role.IT_ADMIN):
        assert not changes_of(role) & {Scope.API_KEYS, Scope.OAUTH_KEYS}
