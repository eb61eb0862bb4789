"""``headwater nodes``: the devices of the tailnet."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import cast

import click

from appliance.cli.attributes import attributes
from appliance.cli.auth import tell_registered, user_option
from appliance.cli.client import Plain
from appliance.cli.nodenames import find_node, find_nodes, path_of
from appliance.cli.output import confirm, emit, moment, parse_time, table
from appliance.cli.preauthkeys import split, user_id
from appliance.cli.root import Group, Invocation
from appliance.cli.users import segment

identifier_option = click.option(
    "-i", "--identifier", required=True, help="Id or name of the node."
)


@click.group(cls=Group)
def nodes() -> None:
    """Manage the devices of the tailnet.

    \b
    Example:
      headwater nodes list
      headwater nodes rename -i 3 build-server
      headwater nodes approve-routes -i 3 -r 10.1.0.0/16
      headwater nodes attributes set build-server custom:level=4
    """


nodes.add_command(attributes)
nodes.aliases |= {"attribute": "attributes", "attrs": "attributes"}


@nodes.verb("list", "ls", "show")
@click.option("-u", "--user", default="", help="Only the nodes of this user.")
@click.pass_obj
def show(invocation: Invocation, user: str) -> None:
    """List nodes."""
    client = invocation.client()
    found = find_nodes(client, user)
    invocation.tell(client, found, lambda: table(_COLUMNS, map(_row, found)))


@nodes.verb("register")
@user_option
@click.option("-k", "--key", required=True, help="Id of the login, or the whole link.")
@click.pass_obj
def register(invocation: Invocation, user: str, key: str) -> None:
    """Let a device in that asks to join; auth register is the newer spelling."""
    client = invocation.client()
    answer = client.post("/api/v1/node/register", {"user": user, "key": key})
    tell_registered(invocation, client, answer)


@nodes.verb("list-routes", "lsr", "routes")
@click.option("-i", "--identifier", default="", help="Only this node.")
@click.pass_obj
def list_routes(invocation: Invocation, identifier: str) -> None:
    """List the routes that nodes offer, and which of them are approved and serving."""
    client = invocation.client()
    found = [find_node(client, identifier)] if identifier else find_nodes(client)
    found = [n for n in found if n["availableRoutes"] or n["approvedRoutes"]]
    invocation.tell(
        client,
        found,
        lambda: table(
            ("ID", "Hostname", "Approved", "Available", "Serving (Primary)"),
            (
                (
                    n["id"],
                    n["givenName"],
                    _join(n["approvedRoutes"]),
                    _join(n["availableRoutes"]),
                    _join(n["subnetRoutes"]),
                )
                for n in found
            ),
        ),
    )


@nodes.verb("expire", "logout", "exp", "e")
@identifier_option
@click.option("-e", "--expiry", default="", help="When, as RFC 3339; empty means now.")
@click.option("-d", "--disable", is_flag=True, help="Let the node's key never expire.")
@click.pass_obj
def expire(invocation: Invocation, identifier: str, expiry: str, *, disable: bool) -> None:
    """Make a node log in again, now or at a time; or never."""
    if disable and expiry:
        raise click.UsageError("--expiry and --disable contradict each other")
    body: Plain = {}
    if disable:
        body = {"disableExpiry": True}
    elif expiry:
        try:
            body = {"expiry": parse_time(expiry).isoformat()}
        except ValueError as error:
            hint = "a time like 2030-01-31T12:00:00Z"
            raise click.BadParameter(hint, param_hint="--expiry") from error
    client = invocation.client()
    node = client.post(f"{path_of(client, identifier)}/expire", body)["node"]
    said = "Node expiry disabled" if disable else "Node expired"
    if expiry and parse_time(expiry) > datetime.now(UTC):
        said = "Node expiration updated"
    invocation.tell(client, node, said)


@nodes.verb("rename")
@identifier_option
@click.argument("new_name", required=False, default="")
@click.pass_obj
def rename(invocation: Invocation, identifier: str, new_name: str) -> None:
    """Give a node the MagicDNS name NEW_NAME."""
    client = invocation.client()
    path = f"{path_of(client, identifier)}/rename/{segment(new_name)}"
    invocation.tell(client, client.post(path)["node"], "Node renamed")


@nodes.verb("delete", "del")
@identifier_option
@click.pass_obj
def delete(invocation: Invocation, identifier: str) -> None:
    """Remove a node from the tailnet."""
    client = invocation.client()
    node = find_node(client, identifier)
    said = "Node not deleted"
    if confirm(f"Remove the node {node['givenName']!r}?", force=invocation.force):
        client.delete(f"/api/v1/node/{node['id']}")
        said = "Node deleted"
    emit(invocation.output, {"Result": said}, said)


@nodes.verb("tag", "tags", "t")
@identifier_option
@click.option("-t", "--tags", multiple=True, required=True, help="tag:a,tag:b.")
@click.pass_obj
def tag(invocation: Invocation, identifier: str, tags: tuple[str, ...]) -> None:
    """Set a node's tags; the node then belongs to them, not to a user."""
    client = invocation.client()
    path = f"{path_of(client, identifier)}/tags"
    node = client.post(path, {"tags": split(tags)})["node"]
    invocation.tell(client, node, "Node updated")


@nodes.verb("move")
@identifier_option
@click.option("-u", "--user", required=True, help="Id or name of the user who gets the node.")
@click.pass_obj
def move(invocation: Invocation, identifier: str, user: str) -> None:
    """Give a node to a user; a tagged node loses its tags, and with them what they allow.

    Name, addresses and approved routes stay, and so does the time at which its key runs out. The
    way back is 'nodes tag'.

    \b
    Example:
      headwater nodes move -i 3 -u alice
    """
    client = invocation.client()
    path = f"{path_of(client, identifier)}/user"
    node = client.post(path, {"user": user_id(client, user)})["node"]
    invocation.tell(client, node, "Node moved to another user")


@nodes.verb("approve-routes")
@identifier_option
@click.option("-r", "--routes", multiple=True, help="10.0.0.0/8,…; none approves nothing.")
@click.pass_obj
def approve_routes(invocation: Invocation, identifier: str, routes: tuple[str, ...]) -> None:
    """Set which routes of a node are approved; what is not named loses its approval."""
    client = invocation.client()
    path = f"{path_of(client, identifier)}/approve_routes"
    node = client.post(path, {"routes": split(routes)})["node"]
    invocation.tell(client, node, "Node updated")


@nodes.verb("backfillips")
@click.option("--plan", is_flag=True, help="Only say what would be done.")
@click.pass_obj
def backfillips(invocation: Invocation, *, plan: bool) -> None:
    """Make the addresses of all nodes fit the prefixes of today.

    Nodes get the addresses that they lack since a prefix was added, and lose those of a prefix that
    was changed or removed. Connections over an address that goes break. Without --force the plan is
    shown and asked about first.

    \b
    Example:
      headwater nodes backfillips --plan
    """
    client = invocation.client()
    path = "/api/v1/node/backfillips"
    if plan or not invocation.force:
        answer = client.post(path, query={"plan": "true"})
        planned = cast(list[str], answer["changes"])
        if plan or not planned:
            invocation.tell(client, answer, "\n".join(planned) or _FITTING)
            return
        click.echo("\n".join(planned), err=True)
        if not confirm(f"Do this ({len(planned)} change(s))?", force=False):
            said = "Addresses not changed"
            emit(invocation.output, {"Result": said}, said)
            return
    answer = client.post(path, query={"confirmed": "true"})
    invocation.tell(client, answer, "\n".join(cast(list[str], answer["changes"])) or _FITTING)


_FITTING = "Every node has its addresses"
_COLUMNS = (
    "ID",
    "Hostname",
    "Name",
    "MachineKey",
    "NodeKey",
    "User",
    "Tags",
    "IP addresses",
    "Ephemeral",
    "Last seen",
    "Expiration",
    "Connected",
    "Expired",
)


def _row(node: Plain) -> tuple[object, ...]:
    user = cast(Plain, node["user"] or {})
    key = cast(Plain, node["preAuthKey"] or {})
    expiry = node["expiry"]
    expired = isinstance(expiry, str) and parse_time(expiry) <= datetime.now(UTC)
    tags = cast(list[str], node["tags"])
    return (
        node["id"],
        node["name"],
        node["givenName"],
        _short(node["machineKey"]),
        _short(node["nodeKey"]),
        user.get("name", ""),
        _join(tags),
        _join(node["ipAddresses"]),
        str(bool(node.get("ephemeral") or key.get("ephemeral"))).lower(),
        moment(node["lastSeen"]),
        moment(expiry),
        "online" if node["online"] else "offline",
        "yes" if expired else "no",
    )


def _short(key: object) -> str:
    """Show a key as the logs do: five characters of base64."""
    raw = bytes.fromhex(str(key).partition(":")[2])
    return f"[{base64.b64encode(raw).decode()[:5]}]"


def _join(values: object) -> str:
    return ", ".join(cast(list[str], values))
