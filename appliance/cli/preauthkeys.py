"""``headwater preauthkeys``: keys that enrol nodes unattended."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

import click

from appliance.cli.client import Client, Plain
from appliance.cli.output import emit, moment, table
from appliance.cli.root import Group, Invocation
from appliance.cli.users import one_user


@click.group(cls=Group)
def preauthkeys() -> None:
    """Manage keys that enrol nodes unattended.

    \b
    Example:
      headwater preauthkeys create -u alice --reusable -e 24h
      headwater preauthkeys create --tags tag:server
    """


@preauthkeys.verb("create", "c", "new")
@click.option("-u", "--user", default="", help="Id or name of the user who will own the nodes.")
@click.option("--reusable", is_flag=True, help="May enrol more than one node.")
@click.option("--ephemeral", is_flag=True, help="Nodes are removed when they stay away.")
@click.option("-e", "--expiration", default="1h", show_default=True, help="How long it is valid.")
@click.option("--tags", multiple=True, help="Tags of the nodes: tag:a,tag:b.")
@click.pass_obj
def create(
    invocation: Invocation,
    user: str,
    *,
    reusable: bool,
    ephemeral: bool,
    expiration: str,
    tags: tuple[str, ...],
) -> None:
    """Make a key and print it; it cannot be shown again."""
    from appliance import durations

    wanted = split(tags)
    if not user and not wanted:
        raise click.UsageError("say who owns the nodes: --user NAME, or --tags tag:NAME")
    try:
        expires_at = datetime.now(UTC) + durations.parse(expiration)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--expiration") from error
    client = invocation.client()
    body: Plain = {
        "user": user_id(client, user) if user else "",
        "reusable": reusable,
        "ephemeral": ephemeral,
        "expiration": expires_at.isoformat(),
        "aclTags": wanted,
    }
    key = cast(Plain, client.post("/api/v1/preauthkey", body)["preAuthKey"])
    invocation.tell(client, key, str(key["key"]))


@preauthkeys.verb("list", "ls", "show")
@click.option("-u", "--user", default="", help="Only the keys of this user.")
@click.pass_obj
def show(invocation: Invocation, user: str) -> None:
    """List keys, without their secrets."""
    client = invocation.client()
    keys = cast(list[Plain], client.get("/api/v1/preauthkey")["preAuthKeys"])
    if user:
        wanted = user_id(client, user)
        keys = [key for key in keys if _owner(key).get("id") == wanted]
    invocation.tell(client, keys, lambda: table(_COLUMNS, map(_row, keys)))


@preauthkeys.verb("expire", "revoke", "exp", "e")
@click.option("-i", "--id", "key_id", required=True, help="Id of the key.")
@click.pass_obj
def expire(invocation: Invocation, key_id: str) -> None:
    """Make a key useless from now on; nodes that it enrolled stay."""
    answer = invocation.client().post("/api/v1/preauthkey/expire", {"id": key_id})
    emit(invocation.output, answer, "Key expired")


@preauthkeys.verb("delete", "del", "rm", "d")
@click.option("-i", "--id", "key_id", required=True, help="Id of the key.")
@click.pass_obj
def delete(invocation: Invocation, key_id: str) -> None:
    """Remove a key; nodes that it enrolled stay. Asks nothing, as Headscale does."""
    answer = invocation.client().delete("/api/v1/preauthkey", {"id": key_id})
    emit(invocation.output, answer, "Key deleted")


def split(values: tuple[str, ...]) -> list[str]:
    """Take a list option apart: repeated, comma-separated, or both."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def user_id(client: Client, user: str) -> str:
    """Give the id of a user who was named by id or by name."""
    by_id = user.isascii() and user.isdigit()
    return str(one_user(client, user if by_id else "", "" if by_id else user)["id"])


_COLUMNS = (
    "ID",
    "Key/Prefix",
    "Reusable",
    "Ephemeral",
    "Used",
    "Expiration",
    "Created",
    "Owner",
)


def _owner(key: Plain) -> Plain:
    return cast(Plain, key["user"] or {})


def _row(key: Plain) -> tuple[object, ...]:
    owner = ", ".join(cast(list[str], key["aclTags"])) or str(_owner(key).get("name", "-"))
    flags = (str(key[name]).lower() for name in ("reusable", "ephemeral", "used"))
    return (
        key["id"],
        key["key"],
        *flags,
        moment(key["expiration"], "never"),
        moment(key["createdAt"]),
        owner,
    )
