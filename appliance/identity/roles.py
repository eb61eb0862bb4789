"""Which scopes each role has: what its holder may do through the API, the console and keys of theirs.

Not for what a role means in policies (``autogroup:admin`` and the like). Every role but "member" sees
everything; only owners and administrators hand out access. What a user owns is a matter of the routes.
Source: https://tailscale.com/kb/1138, "User roles", its permission matrix.
"""

from __future__ import annotations

from collections.abc import Collection

from appliance.errors import Forbidden
from appliance.identity.scopes import Caller, Scope
from appliance.records import Role, UserID
from appliance.tailnet.snapshot import Edit

_SEES = Scope.ALL_READ

SCOPES: dict[Role, frozenset[Scope]] = {
    Role.OWNER: frozenset({Scope.ALL}),
    Role.ADMIN: frozenset({Scope.ALL}),
    # The network: policy, DNS, subnets. Users and devices are only looked at, even their own.
    Role.NETWORK_ADMIN: frozenset({_SEES, Scope.POLICY_FILE, Scope.DEVICES_ROUTES}),
    # Users and devices, and what lets them in. The policy and routes are only looked at.
    Role.IT_ADMIN: frozenset(
        {
            _SEES,
            Scope.USERS,
            Scope.DEVICES_CORE,
            Scope.POSTURE_ATTRIBUTES,
            Scope.AUTH_KEYS,
            Scope.FEATURE_SETTINGS,
            Scope.SSH_CHECKS,
        }
    ),
    # There is nothing to bill here, so this is an auditor who may be named so in policies.
    Role.BILLING_ADMIN: frozenset({_SEES}),
    Role.AUDITOR: frozenset({_SEES}),
    Role.MEMBER: frozenset(),
}


def scopes_of(role: Role) -> frozenset[Scope]:
    """Return the scopes of a role."""
    return SCOPES[role]


def check_rank(
    caller: Caller, edit: Edit, user_id: UserID | None, wanted: Role | None = None
) -> None:
    """Refuse what would give somebody more than the caller has, or touches somebody who has more.

    ``user_id`` is who is to be changed (None: a new user), ``wanted`` the role that they are to get.
    Nobody changes their own role, but for an owner, who may hand it over; only the owner, or a program
    of nobody's that may do everything, touches the owner. Raises Forbidden.
    """
    user = None if user_id is None else edit.users.get(user_id)
    touched = {role for role in (wanted, None if user is None else user.role) if role is not None}
    for role in touched:
        for scope in scopes_of(role):
            if not caller.may(scope):
                raise Forbidden(
                    "role-too-high",
                    f"the role {role} may do what you may not ({scope}): only who may do as much"
                    " changes its holders",
                    concerns=role,
                )
    if caller.user_id is None:
        return
    if wanted is not None and user_id == caller.user_id:
        raise Forbidden("role-own", "nobody changes their own role: ask somebody else")
    if Role.OWNER in touched and not _is_owner(caller, edit):
        raise Forbidden("role-of-owner", "only the owner changes who the owner is")


def check_programs(caller: Caller, edit: Edit, held: Collection[Scope]) -> None:
    """Refuse a program of nobody's that may do everything, the owner's things too. Raises Forbidden.

    Only the owner hands one out, or another such program.
    """
    if Scope.ALL in held and caller.user_id is not None and not _is_owner(caller, edit):
        raise Forbidden(
            "key-above-owner",
            "this key is nobody's and may change who the owner is: only the owner may, too",
        )


def _is_owner(caller: Caller, edit: Edit) -> bool:
    me = None if caller.user_id is None else edit.users.get(caller.user_id)
    return me is not None and me.role is Role.OWNER
