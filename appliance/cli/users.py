"""``headwater users``: the people who own nodes."""

from __future__ import annotations

from typing import cast

import click

from appliance.cli.auth import told_link
from appliance.cli.client import Client, CommandFailed, Plain
from appliance.cli.output import confirm, emit, moment, table
from appliance.cli.root import Group, Invocation

ROLES = ("owner", "admin", "it-admin", "network-admin", "billing-admin", "auditor", "member")
"""Those of ``records.Role``, written out so that --help need not import it."""


@click.group(cls=Group)
def users() -> None:
    """Manage the people who own nodes.

    \b
    Example:
      headwater users create alice --email alice@example.com
      headwater users set-role alice admin
      headwater users list
    """


@users.verb("create", "c", "new")
@click.argument("name")
@click.option("-d", "--display-name", default="", help="Name for people.")
@click.option("-e", "--email", default="", help="E-mail address; the login name where given.")
@click.option("-p", "--picture-url", default="", help="URL of a picture.")
@click.option("--role", type=click.Choice(ROLES), default="member", help="Default: member.")
@click.pass_obj
def create(
    invocation: Invocation, name: str, display_name: str, email: str, picture_url: str, role: str
) -> None:
    """Add the user NAME."""
    body: Plain = {
        "name": name,
        "displayName": display_name,
        "email": email,
        "pictureUrl": picture_url,
        "role": role,
    }
    client = invocation.client()
    invocation.tell(client, client.post("/api/v1/user", body)["user"], "User created")


@users.verb("list", "ls", "show")
@click.option("-i", "--identifier", default="", help="Only the user with this id.")
@click.option("-n", "--name", default="", help="Only the user with this name.")
@click.option("-e", "--email", default="", help="Only users with this e-mail address.")
@click.pass_obj
def show(invocation: Invocation, identifier: str, name: str, email: str) -> None:
    """List users."""
    query = {"id": identifier, "name": name, "email": email}
    client = invocation.client()
    found = cast(list[Plain], client.get("/api/v1/user", query)["users"])
    invocation.tell(
        client,
        found,
        lambda: table(
            ("ID", "Name", "Username", "Email", "Created", "Role"),
            (
                (
                    u["id"],
                    u["displayName"],
                    u["name"],
                    u["email"],
                    moment(u["createdAt"]),
                    u.get("role", "member"),
                )
                for u in found
            ),
        ),
    )


@users.verb("destroy", "delete")
@click.argument("user", required=False, default="", metavar="[NAME]")
@click.option("-i", "--identifier", default="", help="Id of the user.")
@click.option("-n", "--name", default="", help="The same as NAME.")
@click.pass_obj
def destroy(invocation: Invocation, user: str, identifier: str, name: str) -> None:
    """Remove the user NAME, who owns no nodes, and the user's auth keys."""
    if user and name:
        raise click.UsageError("name one user")
    client = invocation.client()
    found = one_user(client, identifier, name or user)
    question = f"Remove the user {found['name']!r} ({found['id']}) and all auth keys of it?"
    if not confirm(question, force=invocation.force):
        said = "User not destroyed"
        emit(invocation.output, {"Result": said}, said)
        return
    answer = client.delete(f"/api/v1/user/{found['id']}")
    emit(invocation.output, answer, "User destroyed")


@users.verb("rename", "mv")
@click.option("-i", "--identifier", default="", help="Id of the user.")
@click.option("-n", "--name", default="", help="Name of the user.")
@click.option("-r", "--new-name", required=True, help="The new name.")
@click.pass_obj
def rename(invocation: Invocation, identifier: str, name: str, new_name: str) -> None:
    """Give a user another name."""
    client = invocation.client()
    user = one_user(client, identifier, name)
    path = f"/api/v1/user/{user['id']}/rename/{segment(new_name)}"
    invocation.tell(client, client.post(path)["user"], "User renamed")


@users.verb("set-role", "role")
@click.argument("name")
@click.argument("role", type=click.Choice(ROLES))
@click.pass_obj
def set_role(invocation: Invocation, name: str, role: str) -> None:
    """Give the user NAME (or id) another role, as policies name it: autogroup:admin and so on.

    Roles are owner, admin, it-admin, network-admin, billing-admin, auditor and member. A tailnet
    has one owner at most: the one before becomes an admin.

    \b
    Example:
      headwater users set-role alice owner
      headwater users set-role 2 network-admin
    """
    client, user = _named(invocation, name)
    answer = client.post(f"/api/v1/user/{user['id']}/role", {"role": role})
    former = cast(Plain | None, answer["formerOwner"])
    said = f"Role set; {former['name']} is an admin now" if former else "Role set"
    invocation.tell(client, answer["user"], said)


@users.verb("link")
@click.argument("name")
@click.option("--provider", required=True, help="Name of the provider in the site file.")
@click.option("--subject", required=True, help="The provider's own name of the account (sub).")
@click.pass_obj
def link(invocation: Invocation, name: str, provider: str, subject: str) -> None:
    """Let an account of an identity provider log in as the user NAME (or id).

    For a user who was there before: an e-mail address or a name alone links nobody, since providers
    let people choose those. The page that refused the login shows the subject.

    \b
    Example:
      headwater users link alice --provider company --subject 248289761001
    """
    client, user = _named(invocation, name)
    body: Plain = {"provider": provider, "subject": subject}
    answer = client.post(f"/api/v1/user/{user['id']}/link", body)
    invocation.tell(client, answer["user"], "Account linked")


@users.verb("unlink")
@click.argument("name")
@click.pass_obj
def unlink(invocation: Invocation, name: str) -> None:
    """Take away the account at an identity provider from the user NAME (or id).

    The groups that came from there go too, and the user is signed out of all browsers. With the next
    login the account becomes a user of its own.
    """
    client, user = _named(invocation, name)
    answer = client.post(f"/api/v1/user/{user['id']}/unlink", {})
    invocation.tell(client, answer["user"], "Account unlinked")


@users.verb("invite")
@click.argument("name")
@click.option("-d", "--display-name", default="", help="Name for people.")
@click.option("-e", "--email", default="", help="E-mail address; the login name where given.")
@click.option("--role", type=click.Choice(ROLES), default="member", help="Default: member.")
@click.pass_obj
def invite(invocation: Invocation, name: str, display_name: str, email: str, role: str) -> None:
    """Make a link by which the person NAME signs in for the first time, within 7 days.

    The user is made if there is none. Whoever opens the link is that user, so send it to nobody else;
    they register a passkey then, and need no identity provider.

    \b
    Example:
      headwater users invite bob --email bob@example.com
    """
    body: Plain = {"name": name, "displayName": display_name, "email": email, "role": role}
    answer = invocation.client().post("/api/v1/invitation", body)
    emit(invocation.output, answer, told_link(answer))


def _named(invocation: Invocation, name: str) -> tuple[Client, Plain]:
    client = invocation.client()
    is_id = name.isascii() and name.isdigit()  # no name is digits only
    return client, one_user(client, name if is_id else "", "" if is_id else name)


def one_user(client: Client, identifier: str, name: str) -> Plain:
    """Find the one user that id or name means. Raises CommandFailed."""
    if bool(identifier) == bool(name):
        raise click.UsageError("say which user: --identifier ID or --name NAME")
    found = cast(list[Plain], client.get("/api/v1/user", {"id": identifier, "name": name})["users"])
    if len(found) != 1:
        who = identifier or name
        raise CommandFailed(f"no user {who!r}", "see 'headwater users list'")
    return found[0]


def segment(text: str) -> str:
    """Escape text as one segment of a path."""
    from urllib.parse import quote

    return quote(text, safe="")
