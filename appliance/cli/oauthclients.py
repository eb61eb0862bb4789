"""``headwater oauth-clients``: programs that get short-lived tokens for a secret."""

from __future__ import annotations

from typing import cast

import click

from appliance.cli.client import Plain
from appliance.cli.output import emit, moment, table
from appliance.cli.preauthkeys import split
from appliance.cli.root import Group, Invocation

_KEYS = "/api/v2/tailnet/-/keys"


@click.group(cls=Group, name="oauth-clients")
def oauthclients() -> None:
    """Manage programs that get short-lived tokens for a secret.

    \b
    Example:
      headwater oauth-clients create --scope auth_keys --tags tag:ci
      tailscale up --login-server https://your.host --advertise-tags tag:ci \\
        --auth-key 'tskey-client-…?baseURL=https://your.host&preauthorized=true'
    """


@oauthclients.verb("create", "c", "new")
@click.option("--scope", "scopes", multiple=True, required=True, help="What it may do.")
@click.option("--tags", multiple=True, help="Tags that it may give to nodes and keys.")
@click.option("--description", default="", help="What it is for.")
@click.pass_obj
def create(
    invocation: Invocation, scopes: tuple[str, ...], tags: tuple[str, ...], description: str
) -> None:
    """Make a client and print its secret; it cannot be shown again.

    \b
    Example:
      headwater oauth-clients create --scope auth_keys --tags tag:ci --description "build machines"
    """
    body: Plain = {
        "keyType": "client",
        "scopes": split(scopes),
        "tags": split(tags),
        "description": description,
    }
    client = invocation.client().post(_KEYS, body)
    emit(invocation.output, client, str(client["key"]))


@oauthclients.verb("list", "ls", "show")
@click.pass_obj
def show(invocation: Invocation) -> None:
    """List clients, without their secrets."""
    keys = cast(list[Plain], invocation.client().get(_KEYS)["keys"])
    clients = [key for key in keys if key["keyType"] == "client"]
    emit(invocation.output, clients, lambda: table(_COLUMNS, map(_row, clients)))


@oauthclients.verb("delete", "remove", "del", "rm")
@click.option("-i", "--id", "client_id", required=True, help="Id of the client.")
@click.pass_obj
def delete(invocation: Invocation, client_id: str) -> None:
    """Remove a client; its tokens are worth nothing from now on."""
    from urllib.parse import quote

    answer = invocation.client().delete(f"{_KEYS}/{quote(client_id, safe='')}")
    emit(invocation.output, answer, "Client deleted")


_COLUMNS = ("ID", "Scopes", "Tags", "Created", "Last used", "For")


def _row(client: Plain) -> tuple[object, ...]:
    return (
        client["id"],
        ", ".join(cast(list[str], client["scopes"])),
        ", ".join(cast(list[str], client["tags"])) or "-",
        moment(client["created"]),
        moment(client["lastUsed"], "never"),
        client["description"],
    )
