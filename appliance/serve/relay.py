"""The relay of a process: DERP, STUN and mesh, made from the settings alike for both roles.

Not for relaying (``relay``), nor for listeners (``process``). In the server it admits the nodes of
our tailnets and disconnects those that go; on a host of its own it asks the server (``relayhost``).
"""

from __future__ import annotations

import logging
import secrets
import socket
import ssl
from collections.abc import MutableMapping, Sequence

from appliance import config
from appliance.config import Settings
from appliance.front.dispatch import Route
from appliance.live import LiveTailnet
from appliance.loops import Loop
from appliance.relay import pages
from appliance.relay.door import Admit, RelayDoor, RelayLimits
from appliance.relay.mesh import Mesh, MeshPeer
from appliance.relay.stun import StunServer
from appliance.serve import statedir
from appliance.tailnet.differences import differing
from appliance.tailnet.snapshot import Snapshot
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import MeshKey, NodeKey

log = logging.getLogger(__name__)

REVOKE_PAUSE_S = 0.25
"""Between two looks for keys that are gone: a look costs some 60 us per thousand nodes, and in a
storm there are hundreds of publications a second."""


class Relay:
    """The parts of a relay. Its key is made at the first start. Raises StateError."""

    def __init__(self, settings: Settings, admit: Admit) -> None:
        server, mesh_key = settings.derp.server, read_mesh_key(settings)
        self.door = RelayDoor(
            statedir.private_key(settings.state_dir / "derp.key", secrets.token_bytes),
            admit=admit if server.verify_clients else None,
            mesh_key=mesh_key,
            limits=RelayLimits(bytes_per_second=server.bytes_per_second),
        )
        self.stun = StunServer()
        self.mesh = _mesh(settings, mesh_key, self.door)

    def start(self, sockets: Sequence[socket.socket]) -> None:
        """Answer STUN on these sockets, which are bound, and let time pass for the clients."""
        self.door.start()
        for sock in sockets:
            self.stun.serve(sock)

    def loops(self) -> tuple[Loop, ...]:
        """Return what must run for the mesh to be up."""
        return () if self.mesh is None else self.mesh.loops()

    def close(self) -> None:
        """End everything."""
        self.door.close()
        self.stun.close()

    def put_routes(self, routes: MutableMapping[str, Route], settings: Settings) -> None:
        """Put the relay's paths into a front's routes, or renew them with other settings."""
        routes.update({"/derp": self.door.route, **pages.routes(own_names(settings))})


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


def _mesh(settings: Settings, key: MeshKey | None, door: RelayDoor) -> Mesh | None:
    mesh = settings.derp.server.mesh
    if key is None or not mesh.peers:
        return None
    context = None
    if mesh.ca_file is not None:
        try:
            context = ssl.create_default_context(cafile=str(mesh.ca_file))
        except OSError as error:
            raise statedir.StateError(f"{mesh.ca_file} cannot be used: {error}") from error
    return Mesh(door, key, tuple(MeshPeer(url) for url in mesh.peers), tls=context)


def own_names(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return our own names with the addresses that a client without DNS may be told."""
    server = settings.derp.server
    found = tuple(str(address) for address in (server.ipv4, server.ipv6) if address)
    return {name: found for name in (settings.host, server.host) if name and found}


class Revocation:
    """Disconnects relay clients whose node was removed, expired or rotated its key."""

    def __init__(self, live: LiveTailnet, relay: RelayDoor) -> None:
        self._live = live
        self._relay = relay
        self._seen = live.snapshot

    def loops(self) -> tuple[Loop, ...]:
        """Return what must run."""
        name = self._live.snapshot.tailnet.name
        return (Loop("relay revocation", self._revoke, REVOKE_PAUSE_S, about=name),)

    async def _revoke(self) -> None:
        new = await self._live.newer(than=self._seen)
        old, self._seen = self._seen, new
        for key in gone_keys(old, new):
            try:
                self._relay.server.close_peer(key)
            except Exception:  # a bug; the other keys are no good all the same
                log.exception("relay client could not be disconnected", extra={"node": key.short})


def gone_keys(old: Snapshot, new: Snapshot) -> list[NodeKey]:
    """Name the node keys that stopped being good between two snapshots; cheap if none changed."""
    gone = [
        was.node_key
        for node_id in differing(old.nodes, new.nodes)
        if (was := old.nodes.get(node_id)) is not None and was.node_key not in new.by_node_key
    ]
    gone += [
        new.nodes[node_id].node_key
        for node_id in differing(old.presence, new.presence)
        if new.presence_of(node_id).expired and not old.presence_of(node_id).expired
    ]
    return gone
