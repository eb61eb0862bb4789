"""The sockets of a process: bound first, accepting last; the same for the server and a lone relay.

Between the two everything is made that a connection may meet, with the ports that are bound. Not
for what is spoken on the sockets (``front``, ``relay``), nor for the local socket (``localsocket``).
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from appliance.config import Settings, resolved
from appliance.config.reader import Endpoint
from appliance.front import stream
from appliance.front.dispatch import Front
from appliance.front.proxy import is_trusted
from appliance.front.proxystream import ProxiedTlsStream
from appliance.front.stream import Listener, MakeTls, TlsSource, TlsStream
from appliance.relay import stun
from appliance.serve import systemd
from appliance.tls.challenges import Challenges

log = logging.getLogger(__name__)

NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""The errors of binding ``::`` on a machine without IPv6."""
EVERY_IPV4 = "0.0.0.0"  # noqa: S104  # asked for by an endpoint without a host


@dataclass(frozen=True, slots=True)
class Bound:
    """One address of the settings, or one socket of systemd's: bound, accepting nothing yet."""

    place: str
    sockets: tuple[socket.socket, ...]

    @property
    def port(self) -> int:
        """The port of the first socket."""
        port: int = self.sockets[0].getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Sockets:
    """All network sockets of a process."""

    listen: tuple[Bound, ...]
    plain: tuple[Bound, ...]
    metrics: tuple[Bound, ...]
    stun: tuple[socket.socket, ...]


async def bind_all(
    places: resolved.Places, given: systemd.Inherited, ending: AsyncExitStack
) -> Sockets:
    """Bind every address of a process, or take systemd's sockets. Raises OSError."""
    return Sockets(
        listen=await bind("listen", places.listen, given.get("listen", ()), ending),
        plain=await bind("plain", places.plain, given.get("plain", ()), ending),
        metrics=await bind("metrics", places.metrics, given.get("metrics", ()), ending),
        stun=bind_stun(places.stun, given.get("stun", ()), ending),
    )


async def bind(
    purpose: str,
    wanted: Sequence[Endpoint],
    given: Sequence[socket.socket],
    ending: AsyncExitStack,
) -> tuple[Bound, ...]:
    """Bind TCP addresses, or take the sockets that systemd has made for them.

    A machine without IPv6 lacks ``::``, which is only worth a warning. Raises OSError, naming the
    address.
    """
    if given:
        _compare(wanted, given)
        return tuple(Bound(purpose, (sock,)) for sock in given)
    found: list[Bound] = []
    for place in wanted:
        try:
            sockets = await stream.bind(place.host or None, place.port)
        except OSError as error:
            if is_missing_ipv6(place, error):
                continue
            raise OSError(error.errno, f"cannot listen on {place}: {error.strerror}") from error
        for sock in sockets:
            ending.callback(sock.close)
        found.append(Bound(str(place), tuple(sockets)))
    return tuple(found)


def bind_stun(
    wanted: Sequence[Endpoint], given: Sequence[socket.socket], ending: AsyncExitStack
) -> tuple[socket.socket, ...]:
    """Bind the UDP addresses of STUN, or take systemd's sockets. Raises OSError."""
    if given:
        return tuple(given)
    found: list[socket.socket] = []
    for place in wanted:
        try:
            sock = stun.bind(place.host or EVERY_IPV4, place.port)
        except OSError as error:
            if is_missing_ipv6(place, error):
                continue
            raise OSError(
                error.errno, f"cannot answer STUN on {place}: {error.strerror}"
            ) from error
        ending.callback(sock.close)
        found.append(sock)
    return tuple(found)


async def accept(
    bound: Bound,
    front: Front,
    ending: AsyncExitStack,
    *,
    tls: TlsSource | None = None,
    make_tls: MakeTls = TlsStream,
) -> Listener:
    """Accept connections from now on. Raises OSError, naming the address."""
    try:
        listener = await stream.accept(
            front.sink,
            bound.sockets,
            tls=tls,
            make_tls=make_tls,
            exempt=partial(is_trusted, trusted=front.trusted),
        )
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {bound.place}: {error.strerror}") from error
    ending.callback(listener.abort_streams)
    ending.callback(listener.close)
    return listener


def tls_streams(settings: Settings, challenges: Challenges) -> MakeTls:
    """Return what makes TLS streams: with the PROXY protocol, its header comes before TLS."""
    if not settings.proxy_protocol:
        return partial(TlsStream, challenges=challenges)
    return partial(ProxiedTlsStream, trusted=settings.trusted_proxies, challenges=challenges)


def is_missing_ipv6(place: Endpoint, error: OSError) -> bool:
    """Return whether binding failed for lack of IPv6 on this machine, and log that."""
    if place.host != "::" or error.errno not in NO_IPV6:
        return False
    log.warning("this machine has no IPv6", extra={"remote": str(place)})
    return True


def _compare(wanted: Sequence[Endpoint], given: Sequence[socket.socket]) -> None:
    """Warn of sockets of systemd's that are not those of the settings."""
    other = resolved.other_addresses(wanted, [sock.getsockname()[:2] for sock in given])
    if other:
        log.warning(
            "systemd's sockets are not those of the settings; renew and restart their units",
            extra={"reason": ", ".join(other)},
        )
