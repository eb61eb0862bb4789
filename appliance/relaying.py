"""The relay inside the server: made from the settings, admitting the nodes of our tailnets.

Not for relaying (``relay``) nor for a relay of its own host (``relay.alone``). A part of ``server``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from appliance import config, statedir
from appliance.config import Settings
from appliance.live import LiveTailnets
from appliance.relay.door import RelayDoor, RelayLimits
from appliance.wire.keys import MeshKey, NodeKey


def make(settings: Settings, tailnets: LiveTailnets) -> RelayDoor:
    """Make the relay; its key is made at the first start."""
    server = settings.derp.server
    return RelayDoor(
        statedir.private_key(settings.state_dir / "derp.key", secrets.token_bytes),
        admit=is_known(tailnets) if server.verify_clients else None,
        mesh_key=None if server.mesh.key_file is None else read_mesh_key(server.mesh.key_file),
        limits=RelayLimits(bytes_per_second=server.bytes_per_second),
    )


def is_known(tailnets: LiveTailnets) -> Callable[[NodeKey, str], bool]:
    """Give the check of admission: the node is in one of our tailnets and its key has not run out."""

    def admit(key: NodeKey, _source: str) -> bool:
        found = tailnets.find_node(key)
        if found is None:
            return False
        live, node = found
        now: datetime = live.clock()
        return not node.is_expired(now)

    return admit


def read_mesh_key(path: Path) -> MeshKey:
    """Read the key that the relays of a region share. Raises ConfigError if it cannot be read."""
    return MeshKey.parse(config.read_secret(path))
