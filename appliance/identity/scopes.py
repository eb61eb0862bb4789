"""What somebody who asks may do, in the words of the hosted service's OAuth scopes.

Not for who is asking (``principals``). A scope without ``:read`` is for changing and covers reading;
``all`` and ``all:read`` cover every other one. Which scopes a role has is in ``roles``.
Source: https://tailscale.com/kb/1623, "OAuth scopes"; ``ssh_checks`` is ours.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from appliance.identity.principals import LOCAL, Principal
from appliance.records import UserID

_READ = ":read"


class Scope(StrEnum):
    """One kind of thing that may be read or changed."""

    ALL = "all"
    ALL_READ = "all:read"
    DEVICES_CORE = "devices:core"
    DEVICES_CORE_READ = "devices:core:read"
    DEVICES_ROUTES = "devices:routes"
    DEVICES_ROUTES_READ = "devices:routes:read"
    POSTURE_ATTRIBUTES = "devices:posture_attributes"
    POSTURE_ATTRIBUTES_READ = "devices:posture_attributes:read"
    USERS = "users"
    USERS_READ = "users:read"
    AUTH_KEYS = "auth_keys"
    AUTH_KEYS_READ = "auth_keys:read"
    API_KEYS = "api_access_tokens"
    API_KEYS_READ = "api_access_tokens:read"
    OAUTH_KEYS = "oauth_keys"
    OAUTH_KEYS_READ = "oauth_keys:read"
    POLICY_FILE = "policy_file"
    POLICY_FILE_READ = "policy_file:read"
    FEATURE_SETTINGS = "feature_settings"
    FEATURE_SETTINGS_READ = "feature_settings:read"
    AUDIT_LOG_READ = "logs:configuration:read"
    SSH_CHECKS = "ssh_checks"
    SSH_CHECKS_READ = "ssh_checks:read"

    @property
    def is_read(self) -> bool:
        """Tell whether the scope lets its holder look only."""
        return self.value.endswith(_READ)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and with which scopes; ``user_id`` where a person asks, or a program of theirs."""

    principal: Principal
    scopes: frozenset[Scope]
    user_id: UserID | None = None


LOCAL_CALLER = Caller(LOCAL, frozenset({Scope.ALL}))
"""Whoever may open the local socket may do everything."""


def covers(held: Collection[Scope], wanted: Scope) -> bool:
    """Tell whether somebody who holds these scopes may do what ``wanted`` stands for."""
    enough = {wanted, Scope.ALL}
    if wanted.is_read:
        enough.add(Scope.ALL_READ)
        enough |= {scope for scope in Scope if scope.value + _READ == wanted.value}
    return not enough.isdisjoint(held)
