"""Which scopes each role has: what its holder may do through the API, the console and keys of theirs.

Not for what a role means in policies (``autogroup:admin`` and the like). Every role but "member" sees
everything; only owners and administrators hand out access. What a user owns is a matter of the routes.
Source: https://tailscale.com/kb/1138, "User roles", its permission matrix.
"""

from __future__ import annotations

from appliance.identity.scopes import Scope
from appliance.records import Role

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
