"""``headwater auth``: machines that ask to join, decided as Headscale spells it; and links to sign in."""

from __future__ import annotations

from typing import cast

import click

from appliance.cli.client import Client, Plain
from appliance.cli.output import emit, moment, table
from appliance.cli.root import Group, Invocation

auth_id_option = click.option(
    "--auth-id", required=True, metavar="ID", help="Id of the login, or the whole link."
)
user_option = click.option(
    "-u", "--user", required=True, help="Name of the user that the device is to belong to."
)


@click.group(cls=Group)
def auth() -> None:
    """Decide about devices that ask to join, and about SSH logins that wait.

    A device that is logged in without a key shows a link; the id is at its end.

    \b
    Example:
      headwater auth pending
      headwater auth register --user alice --auth-id hskey-authreq-k7m2p9xq4tk7m2p9xq4tabcd
      headwater auth reject --auth-id hskey-authreq-k7m2p9xq4tk7m2p9xq4tabcd
    """


@auth.verb("pending", "list", "ls", "show")
@click.pass_obj
def pending(invocation: Invocation) -> None:
    """List the devices that wait to be let in."""
    found = cast(list[Plain], invocation.client().get("/api/v1/login")["logins"])
    emit(invocation.output, found, lambda: table(_COLUMNS, map(_row, found)))


@auth.verb("register")
@user_option
@auth_id_option
@click.pass_obj
def register(invocation: Invocation, user: str, auth_id: str) -> None:
    """Let a device in, as a device of a user.

    \b
    Example:
      headwater auth register --user alice --auth-id hskey-authreq-k7m2p9xq4tk7m2p9xq4tabcd
    """
    client = invocation.client()
    body: Plain = {"user": user, "authId": auth_id}
    answer = client.post("/api/v1/auth/register", body)
    tell_registered(invocation, client, answer)


@auth.verb("approve")
@auth_id_option
@click.pass_obj
def approve(invocation: Invocation, auth_id: str) -> None:
    """Let an SSH login in."""
    answer = invocation.client().post("/api/v1/auth/approve", {"authId": auth_id})
    emit(invocation.output, answer, "Login approved")


@auth.verb("reject")
@auth_id_option
@click.pass_obj
def reject(invocation: Invocation, auth_id: str) -> None:
    """Turn a device or an SSH login away."""
    answer = invocation.client().post("/api/v1/auth/reject", {"authId": auth_id})
    emit(invocation.output, answer, "Login rejected")


def tell_registered(invocation: Invocation, client: Client, answer: Plain) -> None:
    """Print which device is in."""
    node = cast(Plain, answer["node"])
    invocation.tell(client, node, f"Node {node['givenName']} registered")


@click.command("sign-in-link")
@click.option("-u", "--user", default="", help="Whom it signs in; without it, the owner.")
@click.pass_obj
def sign_in_link(invocation: Invocation, user: str) -> None:
    """Make a link that signs somebody in once, within 15 minutes.

    Only on the server itself. The first one makes the owner of the tailnet: name that person. It works
    with every identity provider down; whoever has the link is that user, so open it at once.

    \b
    Example:
      headwater sign-in-link --user alice
    """
    answer = invocation.client().post("/api/v1/signin/link", {"user": user})
    emit(invocation.output, answer, told_link(answer))


def told_link(answer: Plain) -> str:
    """Format a link, and for whom and how long it is good."""
    name = cast(Plain, answer["user"])["name"]
    return f"{answer['url']}\nGood once, until {moment(answer['expiresAt'])}, for {name}"


_COLUMNS = ("ID", "Hostname", "System", "Client", "From", "Asked", "Until")


def _row(login: Plain) -> tuple[object, ...]:
    return (
        login["authId"],
        login["hostname"],
        login["os"],
        login["clientVersion"],
        login["source"],
        moment(login["askedAt"]),
        moment(login["expiresAt"]),
    )
