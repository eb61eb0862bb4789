"""``/api/v1/audit``: who changed what; see ``routes``.

Read from the database, page by page. Not for writing entries (``live``) nor for keeping them
(``store.auditlog``). The hosted service's counterpart is its configuration log.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from appliance.api.routes import Context, Route, number, optional_number, parse_moment
from appliance.api.shapes import Moment
from appliance.errors import Invalid
from appliance.identity.scopes import Scope
from appliance.records import AuditEntry
from appliance.tailnet.audit import TOLD

MAX_ENTRIES = 1000
"""Entries of one answer; the store's bound, too."""
KINDS = tuple(told.noun for told in TOLD.values())


class ListEntries(Struct, frozen=True, kw_only=True):
    """Which entries, newest first: all that is given must hold.

    ``act`` is an act ("node.rename") or a noun ("node"); ``kind`` and ``target`` name one record
    ("node", 7); ``before`` is the ``next`` of the page before.
    """

    act: str = ""
    by: str = ""
    kind: str = ""
    target: str | int = ""
    since: str = ""
    before: str | int = ""
    limit: int = 100


class Entry(Struct, frozen=True, kw_only=True):
    """One change of one record: what differs, as it was and as it is."""

    id: str
    at: Moment
    door: str
    by: str
    act: str
    kind: str
    target: str
    name: str
    before: dict[str, object] | None
    after: dict[str, object] | None
    reason: str


class Entries(Struct, frozen=True, kw_only=True):
    """A page; ``next`` is null where nothing older is there."""

    entries: tuple[Entry, ...]
    next: str | None


async def show(ctx: Context, body: ListEntries) -> Entries:
    """List the changes that were made, newest first."""
    if not 1 <= body.limit <= MAX_ENTRIES:
        raise Invalid("limit-invalid", f"limit is a number from 1 to {MAX_ENTRIES}")
    if body.kind and body.kind not in KINDS:
        raise Invalid("kind-invalid", f"kind is one of {', '.join(KINDS)}", concerns=body.kind)
    found = await ctx.door.audit(
        ctx.live.id,
        before=optional_number(body.before, "entry"),
        limit=body.limit,
        act=body.act,
        by=body.by,
        kind=body.kind,
        target=None if body.target == "" else number(str(body.target), "record"),
        since=parse_moment(body.since, "since"),
    )
    return Entries(
        entries=tuple(_entry(entry_id, entry) for entry_id, entry in found),
        next=str(found[-1][0]) if len(found) == body.limit else None,
    )


def _entry(entry_id: int, entry: AuditEntry) -> Entry:
    return Entry(
        id=str(entry_id),
        at=entry.at,
        door=entry.door,
        by=entry.by,
        act=entry.act,
        kind=entry.kind,
        target=str(entry.target),
        name=entry.name,
        before=_differing(entry.before),
        after=_differing(entry.after),
        reason=entry.reason,
    )


def _differing(text: str) -> dict[str, object] | None:
    return msgspec.json.decode(text, type=dict[str, object]) if text else None


ROUTES = (Route("GET", "/api/v1/audit", Scope.AUDIT_LOG_READ, ListEntries, Entries, show),)
