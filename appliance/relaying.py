"""The relay inside the server: made from the settings, admitting the nodes of our tailnets.

Not for relaying (``relay``) nor for a relay of its own host (``relay.alone``). A part of ``server``.
"""

from __future__ import annotations

import secrets

from appliance import config, statedir
from appliance.api.public import may_relay
from appliance.config import Settings
from appliance.live import LiveTailnet, LiveTailnets
from appliance.relay.door import RelayDoor, RelayLimits
from appliance.tailnet.snapshot import Snapshot
from appliance.wire.keys import MeshKey, NodeKey


def make(settings: Settings, tailnets: LiveTailnets) -> RelayDoor:
    """Make the relay; its key is made at the first start."""
    server = settings.derp.server

    def admit(key: NodeKey, _source: str) -> bool:
        return may_relay(tailnets, key)

    mesh_key = None
    if server.mesh.key_file is not None:
        mesh_key = MeshKey.parse(config.read_secret(server.mesh.key_file))
    return RelayDoor(
        statedir.private_key(settings.state_dir / "derp.key", secrets.token_bytes),
        admit=admit if server.verify_clients else None,
        mesh_key=mesh_key,
        limits=RelayLimits(bytes_per_second=server.bytes_per_second),
    )


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
