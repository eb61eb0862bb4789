"""``headwater audit``: who changed what, and what it was before."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import cast

import click

from appliance.cli.client import Client, Plain
from appliance.cli.nodenames import find_node
from appliance.cli.output import emit, moment, parse_time, table
from appliance.cli.preauthkeys import user_id
from appliance.cli.root import Command, Invocation

PAGE = 1000
"""Entries that one call gives; more are asked for in pages."""
_DOORS = ("system:", "local:", "node:", "user:", "api-key:", "oauth-client:")
"""Of ``identity.principals.PrincipalKind``, written out so that --help need not import it."""
MAX_CELL_CHARS = 120
"""Of what differs, in one row of the table; -o json has it whole."""


@click.command(cls=Command)
@click.option(
    "--act", default="", help="Only this: node.rename, or all that was done to a noun: node."
)
@click.option("--by", default="", help="Only what this one did, as By has it.")
@click.option("--node", default="", help="Only what was done to this node, by id or name.")
@click.option("--user", default="", help="Only what was done to this user, by id or name.")
@click.option("--key", default="", help="Only what was done to the pre-auth key with this id.")
@click.option("--since", default="", help="Only what is younger: 2h, 30d, or an RFC 3339 time.")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=50, show_default=True)
@click.pass_obj
def audit(
    invocation: Invocation,
    act: str,
    by: str,
    node: str,
    user: str,
    key: str,
    since: str,
    limit: int,
) -> None:
    """List the changes that were made, newest first: when, by whom, what it was before.

    What the server did by itself (keys that ran out, routes that moved) has system:headwater under
    By. Nodes and users that are gone are found by their ids.

    \b
    Example:
      headwater audit --since 7d
      headwater audit --node 3
      headwater audit --act node.delete -o json
    """
    if sum(map(bool, (node, user, key))) > 1:
        raise click.UsageError("name one of --node, --user and --key")
    client = invocation.client()
    kind, target = _record(client, node, user, key)
    # The table shows the door before the name; the name is what entries are chosen by.
    by = by.partition(":")[2] if by.startswith(_DOORS) else by
    query = {"act": act, "by": by, "kind": kind, "target": target, "since": _since(since)}
    entries = _pages(client, query, limit)
    emit(invocation.output, entries, lambda: table(_COLUMNS, map(_row, entries)))


def _pages(client: Client, query: dict[str, str], limit: int) -> list[Plain]:
    found: list[Plain] = []
    before = ""
    while len(found) < limit:
        wanted = str(min(PAGE, limit - len(found)))
        answer = client.get("/api/v1/audit", {**query, "before": before, "limit": wanted})
        found += cast(list[Plain], answer["entries"])
        if answer["next"] is None:
            break
        before = str(answer["next"])
    return found


def _record(client: Client, node: str, user: str, key: str) -> tuple[str, str]:
    """Give kind and id of the record that is asked for. Raises CommandFailed."""
    if node:
        # An id may be that of a node which is gone.
        is_id = node.isascii() and node.isdigit()
        return "node", node if is_id else str(find_node(client, node)["id"])
    if user:
        is_id = user.isascii() and user.isdigit()
        return "user", user if is_id else user_id(client, user)
    return ("preauthkey", key) if key else ("", "")


def _since(text: str) -> str:
    if not text:
        return ""
    from appliance import durations

    try:
        return (datetime.now(UTC) - durations.parse(text)).isoformat()
    except ValueError:
        pass
    try:
        return parse_time(text).isoformat()
    except ValueError as error:
        hint = "a duration like 2h or 30d, or a time like 2030-01-31T12:00:00Z"
        raise click.BadParameter(hint, param_hint="--since") from error


_COLUMNS = ("Time", "By", "Act", "What", "Change", "Reason")


def _row(entry: Plain) -> tuple[object, ...]:
    return (
        moment(entry["at"]),
        _plain(f"{entry['door']}:{entry['by']}"),
        entry["act"],
        _plain(f"{entry['kind']} {entry['name']} ({entry['target']})"),
        _plain(_change(entry)),
        _plain(str(entry["reason"])),
    )


def _change(entry: Plain) -> str:
    before = cast(Plain | None, entry["before"])
    after = cast(Plain | None, entry["after"])
    if before is None or after is None:
        return "" if before is after else "made" if before is None else "removed"
    return ", ".join(
        f"{name}: {_value(before.get(name))} -> {_value(after[name])}" for name in after
    )


def _value(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(_value, value)) or "-"
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return "-" if value in ("", None) else str(value)


def _plain(text: str) -> str:
    """Leave out what could steer a terminal, and bound the rest: machines choose some of it."""
    text = "".join(c for c in text if c.isprintable())
    return text if len(text) <= MAX_CELL_CHARS else f"{text[: MAX_CELL_CHARS - 1]}…"
