"""A relay on sockets with what a test wants of it: listeners of any kind, STUN, admission.

The program's own is ``serve.relayhost``, made from a site file.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from appliance.front.dispatch import Front
from appliance.front.stream import Listener, TlsSource, listen
from appliance.relay.admission import Verifier
from appliance.relay.door import Admit, RelayDoor, RelayLimits
from appliance.relay.pages import routes
from appliance.relay.stun import StunServer
from appliance.relay.stun import bind as stun_bind
from appliance.wire.keys import MeshKey, PrivateKey


@dataclass(frozen=True, slots=True)
class RelayListen:
    """One TCP address; an empty host means every address of both families."""

    host: str
    port: int
    tls: bool = True


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """Everything that a relay needs, as plain values."""

    private_key: PrivateKey
    listen: tuple[RelayListen, ...]
    stun_listen: tuple[tuple[str, int], ...] = ()
    mesh_key: MeshKey | None = None
    verify_url: str | None = None
    """Ask here whether a node may come; None admits everybody unless ``run`` gets an ``admit``."""
    verify_socket: str | None = None
    """Unix socket to ask over, with an ``http://`` URL."""
    verify_fail_open: bool = True
    limits: RelayLimits = field(default_factory=RelayLimits)
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Our own lower-case names and their addresses, for clients without DNS."""


@dataclass(frozen=True, slots=True)
class RunningRelay:
    """The parts of a relay that is up, for who waits for it."""

    door: RelayDoor
    listeners: tuple[Listener, ...]
    stun: StunServer
    stun_ports: tuple[int, ...]


async def run(
    settings: RelaySettings,
    *,
    tls: TlsSource | None = None,
    admit: Admit | None = None,
    ready: Callable[[RunningRelay], None] | None = None,
) -> None:
    """Run until cancelled; ``ready`` is called once everything accepts.

    Raises OSError when an address cannot be had, ValueError when TLS is asked for without ``tls``.
    """
    async with contextlib.AsyncExitStack() as stack:
        if admit is None and settings.verify_url is not None:
            verifier = Verifier(
                settings.verify_url,
                socket_path=settings.verify_socket,
                fail_open=settings.verify_fail_open,
            )
            stack.push_async_callback(verifier.close)
            admit = verifier.admit
        door = RelayDoor(
            settings.private_key, admit=admit, mesh_key=settings.mesh_key, limits=settings.limits
        )
        stack.callback(door.close)
        door.start()
        front = Front({"/derp": door.route, **routes(settings.names)})
        listeners: list[Listener] = []
        for each in settings.listen:
            if each.tls and tls is None:
                raise ValueError(f"{each.host}:{each.port} asks for TLS without a certificate")
            listener = await listen(
                front.sink, each.host or None, each.port, tls=tls if each.tls else None
            )
            stack.callback(_end, listener)
            listeners.append(listener)
        stun = StunServer()
        stack.callback(stun.close)
        stun_ports = tuple(stun.serve(stun_bind(host, port)) for host, port in settings.stun_listen)
        if ready is not None:
            ready(RunningRelay(door, tuple(listeners), stun, stun_ports))
        await asyncio.Event().wait()


def _end(listener: Listener) -> None:
    listener.close()
    listener.abort_streams()
