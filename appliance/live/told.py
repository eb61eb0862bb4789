"""The lines of the log at ``info`` that a colleague would be told: made here and nowhere else.

From the entries of the audit log, after the commit. Not for keeping entries (``store``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from appliance.records import AuditEntry
from appliance.tailnet import audit

log = logging.getLogger(__name__)

MAX_CHANGE_CHARS = 300
"""Of what differs, in one line: the audit log has it whole."""

ATTRIBUTES = "attributes"
TOLD_BY_DOOR = "node.register"
"""The nodes' door tells a registration itself: only it knows whether that is news."""
_FIELDS = {
    "node": "node",
    "user": "user",
    "preauthkey": "key",
    "policy": "source",
    "session": "source",
    "credential": "source",
}


def tell(tailnet: str, entries: Iterable[AuditEntry]) -> None:
    """Write one line for each entry."""
    if not log.isEnabledFor(logging.INFO):
        return
    for entry in entries:
        if entry.act == TOLD_BY_DOOR:
            continue
        fields: dict[str, object] = {"tailnet": tailnet, "by": f"{entry.door}:{entry.by}"}
        if entry.kind in _FIELDS:
            fields[_FIELDS[entry.kind]] = entry.name
        if change := _change(entry):
            fields["change"] = change
        if names := _attributes(entry):
            fields["attribute"] = " ".join(names)
        if entry.reason:
            fields["reason"] = entry.reason
        log.info(audit.message(entry), extra=fields)


def _change(entry: AuditEntry) -> str:
    parts = [
        f"{key}: {_value(was)} -> {_value(now)}"
        for key, was, now in audit.differences(entry)
        if key != ATTRIBUTES
    ]
    text = ", ".join(parts)
    return text if len(text) <= MAX_CHANGE_CHARS else f"{text[:MAX_CHANGE_CHARS]}…"


def _attributes(entry: AuditEntry) -> list[str]:
    """Name the attributes that differ; what they say may be nobody's business."""
    for key, was, now in audit.differences(entry):
        if key == ATTRIBUTES and isinstance(was, list) and isinstance(now, list):
            return sorted(
                {each["name"] for each in (*was, *now) if each not in was or each not in now}
            )
    return []


def _value(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(_value, value)) or "-"
    return "-" if value in ("", None) else str(value)
