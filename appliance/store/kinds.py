"""Which table keeps which kind of record, and what turns one into the other: one row each.

In the order in which rows can be written: what a row refers to comes before it. Not for SQL
(``writer``), reading (``loading``) or the columns (``schema``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table

from appliance.records import (
    ApiKey,
    AuthKey,
    Credential,
    Node,
    OAuthClient,
    PolicyText,
    Record,
    Session,
    Tailnet,
    TailnetID,
    User,
)
from appliance.store import rows, schema
from appliance.store.rows import Loaded, Row


@dataclass(frozen=True, slots=True)
class Kept:
    """How one kind of record is kept."""

    of: type[Record]
    table: Table
    to_row: Callable[[TailnetID, Any], Row]
    from_row: Callable[[Loaded], Any]


KEPT = (
    Kept(Tailnet, schema.tailnets, lambda _, it: rows.tailnet_to_row(it), rows.row_to_tailnet),
    Kept(User, schema.users, rows.user_to_row, rows.row_to_user),
    Kept(AuthKey, schema.auth_keys, rows.auth_key_to_row, rows.row_to_auth_key),
    Kept(ApiKey, schema.api_keys, rows.api_key_to_row, rows.row_to_api_key),
    Kept(OAuthClient, schema.oauth_clients, rows.oauth_client_to_row, rows.row_to_oauth_client),
    Kept(Session, schema.sessions, rows.session_to_row, rows.row_to_session),
    Kept(Credential, schema.credentials, rows.credential_to_row, rows.row_to_credential),
    Kept(Node, schema.nodes, rows.node_to_row, rows.row_to_node),
    Kept(PolicyText, schema.policies, rows.policy_to_row, rows.row_to_policy),
)
KEPT_AS: dict[type, Kept] = {kept.of: kept for kept in KEPT}
TABLES = tuple(kept.table for kept in KEPT)
