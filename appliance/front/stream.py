"""Listeners and dials: how streams come to be.

For accepting and opening connections, with or without TLS, and for the bounds on how many; not
for what is spoken on them (a ``Sink`` from the factory knows). Sits on ``plainstream`` and
``tlsstream``, whose faces it passes on: everybody else imports from here.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
from collections.abc import Callable, Sequence

from appliance.front.plainstream import PlainStream, Sink, SocketStream, Stream
from appliance.front.source import source_of
from appliance.front.tlsstream import (
    MAX_UNFINISHED,
    HandshakeGate,
    TlsStream,
    note_server_name,
    tune,
)
from appliance.front.websocketstream import WebSocketStream

__all__ = [
    "Exempt",
    "Listener",
    "MakeTls",
    "PlainStream",
    "Sink",
    "SinkFactory",
    "Stream",
    "TlsSource",
    "TlsStream",
    "WebSocketStream",
    "accept",
    "bind",
    "dial",
    "listen",
    "note_server_name",
    "tune",
]

log = logging.getLogger(__name__)

SinkFactory = Callable[[], Sink]
TlsSource = Callable[[], ssl.SSLContext]
"""Asked at every new connection, so that a renewed certificate is used at once."""
MakeTls = Callable[..., TlsStream]
"""Makes the server side of a TLS stream from owner, context and ``gate``; the class, or a partial
of another one (``proxystream``)."""

Exempt = Callable[[str], bool]
"""Tells of an address whether it carries the connections of many, as a trusted proxy does."""

# -- our own limits --

BACKLOG = 4096
"""Connections that the kernel may hold for us (it may cut this): a reconnect storm comes in one
burst, and uvloop takes one connection per round of the loop."""

MAX_STREAMS = 50_000
"""Open connections of one listener, where the limit of open files allows so many."""

STREAMS_PART = 2
UNFINISHED_PART = 8
"""Of the files that may be open, the half for streams of a listener and an eighth for unfinished
handshakes: the rest is for another listener, the database and what else must go on meanwhile."""

SOURCE_PART = 4
"""One source may have a quarter of a listener's streams: a site of 5,000 nodes behind one NAT fits,
with a control connection and a relay connection each, and there is room for everybody else."""

USER_TIMEOUT_MS = 30_000
"""A peer that acknowledges nothing for this long is gone; the kernel then ends the connection."""

KEEPALIVE_IDLE_S = 300
"""When TCP itself asks whether a silent peer is there; every protocol of ours asks sooner."""

DIAL_TIMEOUT_S = 10.0
"""Until a dialled connection is usable, TLS included; clients give a relay the same."""


class Listener:
    """Accepts connections on one or more sockets and keeps account of their streams."""

    def __init__(
        self,
        sink_factory: SinkFactory,
        tls: TlsSource | None,
        *,
        max_streams: int = MAX_STREAMS,
        gate: HandshakeGate | None = None,
        make_tls: MakeTls = TlsStream,
        exempt: Exempt = lambda _host: False,
    ) -> None:
        self._make_tls = make_tls
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files == resource.RLIM_INFINITY:
            files = UNFINISHED_PART * MAX_STREAMS
        self.gate = gate or HandshakeGate(limit=min(MAX_UNFINISHED, files // UNFINISHED_PART))
        self.accepted = 0
        self.refused = 0
        self.stalled = 0
        self.streams: dict[SocketStream, str | None] = {}
        """Every open stream with its source; None for those that no source is charged for."""
        self._sink_factory = sink_factory
        self._tls = tls
        self._tuned: ssl.SSLContext | None = None
        self._max_streams = min(max_streams, files // STREAMS_PART)
        self._max_per_source = max(1, self._max_streams // SOURCE_PART)
        self._by_source: dict[str, int] = {}
        self._exempt = exempt
        self._servers: list[asyncio.AbstractServer] = []
        self._sockets: list[socket.socket] = []

    async def start(self, sockets: list[socket.socket]) -> None:
        """Accept on these sockets, which are bound already."""
        loop = asyncio.get_running_loop()
        for sock in sockets:
            if sock.family == socket.AF_UNIX:
                server: asyncio.AbstractServer = await loop.create_unix_server(
                    self._make, sock=sock, backlog=BACKLOG
                )
            else:
                server = await loop.create_server(self._make, sock=sock, backlog=BACKLOG)
            self._servers.append(server)
            self._sockets.append(sock)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens, one entry a TCP socket."""
        return [sock.getsockname()[:2] for sock in self._sockets if sock.family != socket.AF_UNIX]

    @property
    def port(self) -> int:
        """The TCP port of the first socket."""
        return self.addresses[0][1]

    def close(self) -> None:
        """Stop accepting and end what has not become a stream yet; open streams live on."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        self.gate.close()

    def abort_streams(self) -> None:
        """End every open stream."""
        for stream in list(self.streams):
            stream.abort()

    # -- for the streams (``plainstream.Owner``) --

    def stream_opened(self, stream: SocketStream) -> Sink | None:
        """Count a usable stream and make its sink."""
        if len(self.streams) >= self._max_streams or not self._charge(stream):
            self.refused += 1
            return None
        self.accepted += 1
        return self._sink_factory()

    def stream_renamed(self, stream: SocketStream) -> bool:
        """Charge the stream to the source that its PROXY header names."""
        self._discharge(stream)
        if self._charge(stream):
            return True
        self.refused += 1
        return False

    def stream_closed(self, stream: SocketStream, _error: Exception | None) -> None:
        """Forget a stream."""
        self._discharge(stream)

    def _charge(self, stream: SocketStream) -> bool:
        """Count the stream for its source; False if that has its share already.

        Trusted proxies are exempt: they carry everybody's connections.
        """
        source = source_of(stream.peer)
        if source is not None and stream.peer and self._exempt(stream.peer[0]):
            source = None
        if source is not None:
            count = self._by_source.get(source, 0)
            if count >= self._max_per_source:
                return False
            self._by_source[source] = count + 1
        self.streams[stream] = source
        return True

    def _discharge(self, stream: SocketStream) -> None:
        source = self.streams.pop(stream, None)
        if source is None:
            return
        left = self._by_source[source] - 1
        if left:
            self._by_source[source] = left
        else:
            del self._by_source[source]

    def write_stalled(self) -> None:
        """Count a peer that did not read."""
        self.stalled += 1

    def _make(self) -> SocketStream:
        if self._tls is None:
            return PlainStream(self)
        context = self._tls()
        if context is not self._tuned:
            tune(context)
            self._tuned = context
        return self._make_tls(self, context, gate=self.gate)


async def listen(
    sink_factory: SinkFactory,
    host: str | None,
    port: int,
    *,
    tls: TlsSource | None = None,
    sock: socket.socket | None = None,
    max_streams: int = MAX_STREAMS,
    gate: HandshakeGate | None = None,
    make_tls: MakeTls = TlsStream,
    exempt: Exempt = lambda _host: False,
) -> Listener:
    """Listen at ``host`` (None: every address of both families) or on a socket given by systemd.

    Addresses that are ``exempt``, trusted proxies, are not bounded as one source. Raises OSError when
    the address cannot be had.
    """
    sockets = [sock] if sock is not None else await bind(host, port)
    return await accept(
        sink_factory,
        sockets,
        tls=tls,
        max_streams=max_streams,
        gate=gate,
        make_tls=make_tls,
        exempt=exempt,
    )


async def accept(
    sink_factory: SinkFactory,
    sockets: Sequence[socket.socket],
    *,
    tls: TlsSource | None = None,
    max_streams: int = MAX_STREAMS,
    gate: HandshakeGate | None = None,
    make_tls: MakeTls = TlsStream,
    exempt: Exempt = lambda _host: False,
) -> Listener:
    """Accept connections on sockets that are bound already. Raises OSError."""
    listener = Listener(
        sink_factory, tls, max_streams=max_streams, gate=gate, make_tls=make_tls, exempt=exempt
    )
    for sock in sockets:
        _prepare(sock)
    await listener.start(list(sockets))
    return listener


async def dial(
    sink: Sink,
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    timeout_s: float = DIAL_TIMEOUT_S,
) -> Stream:
    """Open a connection; the sink has heard ``connected`` when this returns.

    ``server_hostname`` is the name for the certificate where it is not ``host``.
    Raises OSError (``ssl.SSLError`` included) or TimeoutError; the sink then heard nothing.
    """
    loop = asyncio.get_running_loop()
    owner = _Dial(sink, loop.create_future())

    def make() -> SocketStream:
        if tls is None:
            return PlainStream(owner)
        return TlsStream(owner, tls, server_hostname=server_hostname or host)

    async with asyncio.timeout(timeout_s):
        transport, _ = await loop.create_connection(make, host, port)
        try:
            _prepare(transport.get_extra_info("socket"))
            return await owner.opened
        except BaseException:
            transport.abort()
            raise


class _Dial:
    """The owner of one dialled stream."""

    def __init__(self, sink: Sink, opened: asyncio.Future[Stream]) -> None:
        self.opened = opened
        self._sink = sink

    def stream_opened(self, stream: SocketStream) -> Sink | None:
        if self.opened.done():
            return None
        self.opened.set_result(stream)
        return self._sink

    def stream_closed(self, _stream: SocketStream, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(
                error or ConnectionResetError("closed before it could be used")
            )

    def stream_renamed(self, _stream: SocketStream) -> bool:
        return True

    def write_stalled(self) -> None:
        log.debug("dialled peer does not read", extra={"reason": "write-stall"})


async def bind(host: str | None, port: int) -> list[socket.socket]:
    """Bind ``host`` (None: every address of both families), and accept nothing yet.

    Raises OSError when an address cannot be had.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, proto, _, (address, _port, *scope) in dict.fromkeys(found):
            try:
                sock = socket.socket(family, kind, proto)
            except OSError:
                if len(found) > 1:
                    continue  # a machine without IPv6 still lists the address
                raise
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address, port, *scope))
            port = port or sock.getsockname()[1]  # every family at the port that the first one got
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _prepare(sock: socket.socket) -> None:
    """Set the options that connections need; accepted ones inherit them from their listener.

    Without TCP_NODELAY, which event loops set only on sockets that name their protocol, a relay
    moves 800 packets a second instead of 70,000.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
