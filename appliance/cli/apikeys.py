"""``headwater apikeys``: keys with which programs, and people from elsewhere, use the API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

import click

from appliance.cli.client import Client, Plain
from appliance.cli.output import emit, moment, table
from appliance.cli.preauthkeys import split, user_id
from appliance.cli.root import Group, Invocation


@click.group(cls=Group)
def apikeys() -> None:
    """Manage keys for programs, and for this command from elsewhere.

    \b
    Example:
      headwater apikeys create -e 90d > key; chmod 600 key
      headwater --url https://your.host --api-key-file key nodes list
      headwater apikeys create --scope devices:core:read --description "wall display"
    """


@apikeys.verb("create", "c", "new")
@click.option("-e", "--expiration", default="90d", show_default=True, help="How long it is valid.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="What it may do: devices:core:read, policy_file, … (default: everything, or all that its"
    " user may).",
)
@click.option("-u", "--user", default="", help="Id or name of the user whose key it is.")
@click.option("--description", default="", help="What it is for.")
@click.pass_obj
def create(
    invocation: Invocation, expiration: str, scopes: tuple[str, ...], user: str, description: str
) -> None:
    """Make a key and print it; it cannot be shown again.

    Scopes are named as docs/api.md has them at each call; one that is not known is answered with all.

    \b
    Example:
      headwater apikeys create --scope devices:core:read --scope policy_file -e 30d
      headwater apikeys create -u alice --description "Alice's laptop"
    """
    client = invocation.client()
    body: Plain = {
        "expiration": _until(expiration),
        "scopes": split(scopes),
        "user": user_id(client, user) if user else "",
        "description": description,
    }
    _tell_key(invocation, client.post("/api/v1/apikey", body))


@apikeys.verb("list", "ls", "show")
@click.pass_obj
def show(invocation: Invocation) -> None:
    """List keys, without their secrets."""
    client = invocation.client()
    keys = cast(list[Plain], client.get("/api/v1/apikey")["apiKeys"])
    invocation.tell(client, keys, lambda: _table(client, keys))


@apikeys.verb("expire", "revoke", "exp", "e")
@click.option("-i", "--id", "key_id", default="", help="Id of the key.")
@click.option("-p", "--prefix", default="", help="Prefix of the key, as lists show it.")
@click.pass_obj
def expire(invocation: Invocation, key_id: str, prefix: str) -> None:
    """Make a key useless from now on."""
    named = _named(key_id, prefix)
    emit(invocation.output, invocation.client().post("/api/v1/apikey/expire", named), "Key expired")


@apikeys.verb("rotate")
@click.option("-i", "--id", "key_id", default="", help="Id of the key.")
@click.option("-p", "--prefix", default="", help="Prefix of the key, as lists show it.")
@click.option("-e", "--expiration", default="", help="How long the new one is valid.")
@click.option("--grace", default="1h", show_default=True, help="How long the old one works on.")
@click.pass_obj
def rotate(invocation: Invocation, key_id: str, prefix: str, expiration: str, grace: str) -> None:
    """Make a key that may do the same and print it; the old one ends after a grace time.

    \b
    Example:
      headwater apikeys rotate -i 3 --grace 10m > key.new
    """
    body = {**_named(key_id, prefix), "grace": grace}
    if expiration:
        body["expiration"] = _until(expiration)
    _tell_key(invocation, invocation.client().post("/api/v1/apikey/rotate", body))


@apikeys.verb("delete", "remove", "del")
@click.option("-i", "--id", "key_id", default="", help="Id of the key.")
@click.option("-p", "--prefix", default="", help="Prefix of the key, as lists show it.")
@click.pass_obj
def delete(invocation: Invocation, key_id: str, prefix: str) -> None:
    """Remove a key."""
    from urllib.parse import quote

    named = _named(key_id, prefix)
    place = quote(prefix, safe="") if prefix else "-"
    query = {"id": str(named["id"])} if key_id else None
    emit(
        invocation.output,
        invocation.client().delete(f"/api/v1/apikey/{place}", query),
        "Key deleted",
    )


def _named(key_id: str, prefix: str) -> Plain:
    if not key_id and not prefix:
        raise click.UsageError(
            "say which key: --id ID or --prefix PREFIX ('apikeys list' has both)"
        )
    if key_id and prefix:
        raise click.UsageError("give --id or --prefix, not both")
    return {"id": key_id} if key_id else {"prefix": prefix}


def _until(text: str) -> str:
    from appliance import durations

    try:
        return (datetime.now(UTC) + durations.parse(text)).isoformat()
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--expiration") from error


def _tell_key(invocation: Invocation, answer: Plain) -> None:
    emit(invocation.output, answer["apiKey"], str(answer["apiKey"]))


def _table(client: Client, keys: list[Plain]) -> str:
    """Lay out keys; what only ours have stands behind Headscale's columns."""
    users = (
        {str(user["id"]): str(user["name"]) for user in _users(client)}
        if any("user" in key for key in keys)
        else {}
    )
    return table(_COLUMNS, [_row(key, users) for key in keys])


def _users(client: Client) -> list[Plain]:
    return cast(list[Plain], client.get("/api/v1/user")["users"])


_COLUMNS = ("ID", "Prefix", "Expiration", "Created", "Last used", "Owner", "May", "For")


def _row(key: Plain, users: dict[str, str]) -> tuple[object, ...]:
    owner = str(key.get("user", ""))
    all_of = "all" if not owner else "all of the owner's"
    return (
        key["id"],
        key["prefix"],
        moment(key["expiration"], "-"),
        moment(key["createdAt"]),
        moment(key["lastSeen"], "never"),
        users.get(owner, owner) or "-",
        ", ".join(cast(list[str], key.get("scopes", []))) or all_of,
        key.get("description", ""),
    )
