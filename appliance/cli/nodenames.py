"""Which nodes a word on the command line means: an id, or a MagicDNS name.

For the commands about nodes (``nodes``, ``attributes``). Not for commands of its own.
"""

from __future__ import annotations

from typing import cast

from appliance.cli.client import Client, CommandFailed, Plain


def find_nodes(client: Client, user: str = "") -> list[Plain]:
    """List nodes: all, or those of one user."""
    return cast(list[Plain], client.get("/api/v1/node", {"user": user})["nodes"])


def find_node(client: Client, identifier: str) -> Plain:
    """Find the one node that id or name means. Raises CommandFailed."""
    if _is_id(identifier):
        return cast(Plain, client.get(f"/api/v1/node/{identifier}")["node"])
    for node in find_nodes(client):
        if node["givenName"] == identifier:
            return node
    raise CommandFailed(f"no node {identifier!r}", "see 'headwater nodes list'")


def path_of(client: Client, identifier: str) -> str:
    """Give the path of the one node that id or name means. Raises CommandFailed."""
    node_id = identifier if _is_id(identifier) else find_node(client, identifier)["id"]
    return f"/api/v1/node/{node_id}"


def _is_id(identifier: str) -> bool:
    return identifier.isascii() and identifier.isdigit()
