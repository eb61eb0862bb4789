"""The relay inside the server: made from the settings, admitting the nodes of our tailnets.

Not for relaying (``relay``) nor for a relay of its own host (``relay.alone``). A part of ``server``.
"""

from __future__ import annotations

import asyncio
import secrets

from appliance import config, statedir
from appliance.api.public import may_relay
from appliance.config import Settings
from appliance.live import LiveTailnet, LiveTailnets
from appliance.relay.door import RelayDoor, RelayLimits
from appliance.tailnet.snapshot import Snapshot
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import MeshKey, NodeKey

REVOKE_PAUSE_S = 0.25
"""Between two looks for keys that are gone: a look costs some 0.1 ms per thousand nodes, and in a
storm there are hundreds of publications a second."""


def make(settings: Settings, tailnets: LiveTailnets) -> RelayDoor:
    """Make the relay; its key is made at the first start."""
    server = settings.derp.server

    def admit(key: NodeKey, _source: str) -> bool:
        return may_relay(tailnets, key)

    return RelayDoor(
        statedir.private_key(settings.state_dir / "derp.key", secrets.token_bytes),
        admit=admit if server.verify_clients else None,
        mesh_key=read_mesh_key(settings),
        limits=RelayLimits(bytes_per_second=server.bytes_per_second),
    )


def read_mesh_key(settings: Settings) -> MeshKey | None:
    """Read the key that the relays of our region share, if there is one. Raises StateError."""
    path = settings.derp.server.mesh.key_file
    if path is None:
        return None
    try:
        return MeshKey.parse(config.read_secret(path))
    except (OSError, ProtocolError) as error:
        raise statedir.StateError(
            f"the mesh key {path} cannot be used: {error}; headwater generate mesh-key makes one"
        ) from error


def own_names(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Give our own names with the addresses that a client without DNS may be told."""
    server = settings.derp.server
    found = tuple(str(address) for address in (server.ipv4, server.ipv6) if address)
    return {name: found for name in (settings.host, server.host) if name and found}


async def revoke(live: LiveTailnet, relay: RelayDoor) -> None:
    """Put nodes off the relay as soon as they are removed, expire or change their key; for ever."""
    seen = live.snapshot
    while True:
        new = await live.newer(than=seen)
        for key in gone_keys(seen, new):
            relay.server.close_peer(key)
        seen = new
        await asyncio.sleep(REVOKE_PAUSE_S)


def gone_keys(old: Snapshot, new: Snapshot) -> list[NodeKey]:
    """Name the node keys that stopped being good between two snapshots; cheap if none changed."""
    gone: list[NodeKey] = []
    if new.by_node_key is not old.by_node_key:
        gone += old.by_node_key.keys() - new.by_node_key.keys()
    if new.presence is not old.presence:
        gone += [
            new.nodes[node_id].node_key
            for node_id, presence in new.presence.items()
            if presence.expired and not old.presence_of(node_id).expired
        ]
    return gone
