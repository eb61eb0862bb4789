"""The relay inside the server: made from the settings, admitting the nodes of our tailnets.

Not for relaying (``relay``) nor for a relay of its own host (``relay.alone``). A part of ``server``.
"""

from __future__ import annotations

import logging
import secrets
import ssl
from collections.abc import Callable

from appliance import config
from appliance.api.public import may_relay
from appliance.config import Settings
from appliance.live import LiveTailnet, LiveTailnets
from appliance.loops import Loop
from appliance.relay import alone
from appliance.relay.door import RelayDoor, RelayLimits
from appliance.relay.mesh import Mesh, MeshPeer
from appliance.serve import statedir, systemd
from appliance.serve.certificates import open_certificate
from appliance.serve.supervise import Supervisor
from appliance.tailnet.differences import differing
from appliance.tailnet.snapshot import Snapshot
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import MeshKey, NodeKey

log = logging.getLogger(__name__)

REVOKE_PAUSE_S = 0.25
"""Between two looks for keys that are gone: a look costs some 60 us per thousand nodes, and in a
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


def make_mesh(settings: Settings, relay: RelayDoor) -> Mesh | None:
    """Make the links to the other relays of our region, if there are any. Raises StateError."""
    mesh, key = settings.derp.server.mesh, read_mesh_key(settings)
    if key is None or not mesh.peers:
        return None
    context = None
    if mesh.ca_file is not None:
        try:
            context = ssl.create_default_context(cafile=str(mesh.ca_file))
        except OSError as error:
            raise statedir.StateError(f"{mesh.ca_file} cannot be used: {error}") from error
    return Mesh(relay, key, tuple(MeshPeer(url) for url in mesh.peers), tls=context)


async def run_alone(
    settings: Settings, ready: Callable[[], None], inherited: systemd.Inherited | None = None
) -> None:
    """Run a relay by itself until cancelled: ``headwater relay``."""
    server = settings.derp.server
    statedir.prepare(settings.state_dir)
    names = tuple(dict.fromkeys(name for name in (server.host, settings.host) if name))
    certificates = await open_certificate(settings, names)
    mesh = server.mesh
    plain = alone.RelaySettings(
        private_key=statedir.private_key(settings.state_dir / "derp.key", secrets.token_bytes),
        listen=tuple(
            alone.RelayListen(each.host, each.port, tls=certificates is not None)
            for each in server.listen or settings.listen
        ),
        stun_listen=tuple((each.host or "0.0.0.0", each.port) for each in server.stun_listen),  # noqa: S104  # asked for
        mesh_key=read_mesh_key(settings),
        mesh_peers=tuple(MeshPeer(url) for url in mesh.peers),
        mesh_ca_file=None if mesh.ca_file is None else str(mesh.ca_file),
        verify_url=_verify_url(settings) if server.verify_clients else None,
        verify_socket=str(settings.socket.path) if server.separate else None,
        verify_fail_open=server.verify_fail_open,
        limits=RelayLimits(bytes_per_second=server.bytes_per_second),
        names=own_names(settings),
    )

    async with Supervisor() as supervisor:
        if certificates is not None:
            supervisor.start(*certificates.loops())
        supervisor.start(*systemd.loops())
        await alone.run(
            plain,
            tls=None if certificates is None else certificates.context,
            ready=lambda _: ready(),
            inherited=inherited or {},
        )


def _verify_url(settings: Settings) -> str:
    """Give the URL that says whom to admit: the server's own socket, or the server's address."""
    if settings.derp.server.separate:
        return "http://headwater/verify"
    return settings.server_url.rstrip("/") + "/verify"


def own_names(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Give our own names with the addresses that a client without DNS may be told."""
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
