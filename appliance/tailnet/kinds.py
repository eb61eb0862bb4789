"""The kinds of records that need no rules of their own in a snapshot: one row each.

A kind here is a mapping by id, with at most one index over a key that no two records share. Nodes,
the tailnet and its policy are more than that (``snapshot``). To add a kind: the record and its place
in ``records.Kept``, its mapping (and index) in ``Snapshot``, a row here, one in ``audit``, one in
``store.kinds`` with its table. Tests say which of them is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from appliance.records import ApiKey, AuthKey, Credential, Kept, OAuthClient, Session, User


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: ``records`` and ``index`` name the mappings of ``Snapshot``, and ``key`` gives what is unique.

    ``noun`` and ``key_noun`` are for the sentence that refuses a key that is taken.
    """

    of: type[Kept]
    records: str
    noun: str
    index: str = ""
    key: Callable[[Any], Hashable] = attrgetter("id")
    key_noun: str = "id"

    @property
    def taken(self) -> str:
        """The code of that refusal."""
        return f"{self.noun.lower().replace(' ', '-')}-taken"


KINDS = (
    Kind(User, "users", "user"),
    Kind(AuthKey, "auth_keys", "auth key", "by_key_prefix", attrgetter("prefix"), "prefix"),
    Kind(ApiKey, "api_keys", "API key", "by_api_key_prefix", attrgetter("prefix"), "prefix"),
    Kind(OAuthClient, "oauth_clients", "OAuth client", "by_client_id", attrgetter("prefix"), "id"),
    Kind(Session, "sessions", "session", "by_session_hash", attrgetter("secret_hash"), "hash"),
    Kind(Credential, "credentials", "credential", "by_credential", attrgetter("lookup"), "hash"),
)
KIND_OF: dict[type, Kind] = {kind.of: kind for kind in KINDS}
