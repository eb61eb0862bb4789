"""What somebody who asks may do, in the words of the hosted service's OAuth scopes.

Not for who is asking (``principals``). A scope without ``:read`` is for changing and covers reading;
``all`` and ``all:read`` cover every other one. Which scopes a role has is in ``roles``.
Source: https://tailscale.com/kb/1623, "OAuth scopes"; ``ssh_checks`` is ours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from appliance.errors import Forbidden, Invalid
from appliance.identity.principals import LOCAL, Principal
from appliance.records import TailnetID, UserID

_READ = ":read"
MAX_SHOWN_CHARS = 60
"""Of a word that somebody took for a scope, in the refusal."""


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
    """Who asks, and with which scopes.

    ``user_id`` is the person, or whose program it is; None where it is nobody's. ``has_own``: what
    belongs to that user is theirs to see and change without a scope. ``tailnet`` None means every
    one. ``tags`` are all that may be given to nodes and keys; None means any.
    """

    principal: Principal
    scopes: frozenset[Scope]
    user_id: UserID | None = None
    has_own: bool = True
    tailnet: TailnetID | None = None
    tags: frozenset[str] | None = None

    def may(self, scope: Scope) -> bool:
        """Tell whether this is covered by the scopes."""
        return covers(self.scopes, scope)


OWN = frozenset({Scope.DEVICES_CORE, Scope.USERS_READ, Scope.API_KEYS})
"""What users may do without a scope, for what is theirs: a key that is wholly somebody's may, too."""

LOCAL_CALLER = Caller(LOCAL, frozenset({Scope.ALL}))
"""Whoever may open the local socket may do everything."""


def covers(held: Collection[Scope], wanted: Scope) -> bool:
    """Tell whether somebody who holds these scopes may do what ``wanted`` stands for."""
    return not _enough(wanted).isdisjoint(held)


@cache
def _enough(wanted: Scope) -> frozenset[Scope]:
    """Give the scopes of which one is enough."""
    enough = {wanted, Scope.ALL}
    if wanted.is_read:
        enough.add(Scope.ALL_READ)
        enough |= {scope for scope in Scope if scope.value + _READ == wanted.value}
    return frozenset(enough)


def common(one: Collection[Scope], other: Collection[Scope]) -> frozenset[Scope]:
    """Return the scopes that both cover: what a key may do, of what its owner may."""
    return frozenset(
        {scope for scope in one if covers(other, scope)}
        | {scope for scope in other if covers(one, scope)}
    )


def read_scopes(texts: Iterable[str]) -> frozenset[Scope]:
    """Read scopes as people write them: one by one, or several in a text. Raises Invalid."""
    words = [word for text in texts for word in text.replace(",", " ").split()]
    unknown = [word for word in words if word not in _KNOWN]
    if unknown:
        shown = unknown[0][:MAX_SHOWN_CHARS]
        raise Invalid(
            "scope-unknown",
            f"{shown!r} is no scope: scopes are {', '.join(Scope)}",
            concerns=shown,
        )
    return frozenset(map(Scope, words))


def known(texts: Iterable[str]) -> frozenset[Scope]:
    """Return those that are scopes of ours: what was stored may be a later release's."""
    return frozenset(Scope(text) for text in texts if text in _KNOWN)


_KNOWN = frozenset(scope.value for scope in Scope)


def check_grant(caller: Caller, wanted: Collection[Scope]) -> None:
    """Refuse to hand out what the caller does not have. Raises Forbidden."""
    for scope in sorted(wanted):
        if not caller.may(scope):
            raise Forbidden(
                "scope-too-wide",
                f"nobody hands out more than they have, and {scope} is not yours",
                concerns=scope,
            )
