"""When API keys and OAuth clients were last used: noted in memory, written in bulk.

A key that polls every second must not cost a commit a second. What is not written when the server dies
is lost, which nobody misses. Not for who may do what (``scopes``) nor for writing (``live``).
"""

from __future__ import annotations

from datetime import datetime

from appliance.records import ApiKey, OAuthClient, TailnetID

WRITE_EVERY_S = 60.0
"""How often what was noted is written, and by how much the times on disk may lag."""

Used = tuple[type[ApiKey] | type[OAuthClient], int]
"""Which record: its kind and its id."""


class KeyUses:
    """The uses that were not written yet; bounded by the number of keys that there are."""

    def __init__(self) -> None:
        self._seen: dict[TailnetID, dict[Used, datetime]] = {}

    def note(self, tailnet: TailnetID, record: ApiKey | OAuthClient, at: datetime) -> None:
        """Take note of a use."""
        self._seen.setdefault(tailnet, {})[(type(record), record.id)] = at

    def last(self, tailnet: TailnetID, record: ApiKey | OAuthClient) -> datetime | None:
        """Return when a key was last used, written or not."""
        noted = self._seen.get(tailnet, {}).get((type(record), record.id))
        return noted or record.last_used_at

    def take(self, tailnet: TailnetID) -> dict[Used, datetime]:
        """Return what is to be written, and forget it."""
        return self._seen.pop(tailnet, {})
