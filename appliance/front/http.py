"""Ordinary HTTP: an aiohttp server behind the dispatcher, fed through a transport of ours.

Not for routes (the applications have them) and not for upgrades (``dispatch`` takes those before
aiohttp sees them, because its parser would eat the bytes behind the head). aiohttp's public API
only: ``web.Server`` is a protocol factory, and this is the transport that its protocols write to.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NoReturn

from aiohttp import http_exceptions, web

from appliance.front.framing import AnswerFollower
from appliance.front.proxy import Networks, client_address, forwarded_scheme
from appliance.wire.http1 import MAX_HEAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from appliance.front.stream import Stream

log = logging.getLogger(__name__)

KEEPALIVE_S = 90.0
"""The dispatcher ends idle connections, and sooner; this is only never to be in its way."""
SHUTDOWN_S = 5.0
"""What requests in flight are granted when the server stops."""


async def start_web(app: web.Application, *, shutdown_s: float = SHUTDOWN_S) -> web.AppRunner:
    """Start an application without listeners; its ``server`` is what the dispatcher feeds.

    The application's own ``client_max_size`` (1 MiB unless told) bounds what handlers read. Its own
    bounds of a head are the dispatcher's: what is taken there is not refused here. Stop it by
    ``await runner.cleanup()``.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=log,
        handle_signals=False,
        keepalive_timeout=KEEPALIVE_S,
        shutdown_timeout=shutdown_s,
        handler_cancellation=True,
        max_line_size=MAX_HEAD_BYTES,
        max_field_size=MAX_HEAD_BYTES,
    )
    await runner.setup()
    return runner


_PEERS_FAULTS = (
    ConnectionError,
    http_exceptions.HttpProcessingError,
    web.RequestPayloadError,
)


def _is_bug(record: logging.LogRecord) -> bool:
    """Tell whether what aiohttp logs is a failure of ours: peers that leave or lie are none.

    aiohttp wraps a broken body in RequestPayloadError, and hides what it found below it.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, _PEERS_FAULTS)


log.addFilter(_is_bug)


class WebTransport(asyncio.Transport):
    """What aiohttp believes to be its socket: a stream, and the dispatcher that feeds it.

    Reading is not paused here: a request is whole when aiohttp gets it, and no other follows before
    its answer has been written.
    """

    __slots__ = (
        "_answer",
        "_answered",
        "_closing",
        "_keep",
        "_moved",
        "_peer",
        "_protocol",
        "_stream",
    )

    def __init__(
        self,
        stream: Stream,
        protocol: asyncio.Protocol,
        *,
        peer: tuple[str, int] | None,
        answered: Callable[[bool], None],
    ) -> None:
        super().__init__()
        self._stream: Stream | None = stream
        self._protocol: asyncio.BaseProtocol = protocol
        self._peer = peer
        self._answered = answered
        self._answer: AnswerFollower | None = None
        self._closing = False
        self._keep = True
        self._moved = False

    def expect(self, method: str, *, keep_alive: bool) -> None:
        """Follow the answer to a request of this method.

        Behind its end ``answered`` is called, and told whether the connection goes on.
        """
        self._answer = AnswerFollower(method)
        self._keep = keep_alive
        self._moved = False

    @property
    def begun(self) -> bool:
        """Whether something of the answer was written."""
        return self._answer is not None and self._answer.begun

    def has_moved(self) -> bool:
        """Return whether something was written since this was last asked."""
        moved, self._moved = self._moved, False
        return moved

    def detach(self) -> None:
        """Give the stream up: what aiohttp still does has no effect on it."""
        self._closing = True
        self._stream = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Give what aiohttp asks for: the peer, and whether there is TLS.

        aiohttp asks once a connection, so the peer is the hop itself; who asks behind it is another
        with every request, and ``trust_proxies`` says.
        """
        if name == "peername":
            return self._peer
        if self._stream is not None and name == "sslcontext":
            return self._stream.tls or default
        return default

    def is_closing(self) -> bool:
        """Tell whether the connection is going or gone."""
        return self._closing or self._stream is None or self._stream.is_closing()

    def close(self) -> None:
        """Send what is buffered, then close."""
        if self._stream is not None and not self._closing:
            self._closing = True
            self._stream.close()

    def abort(self) -> None:
        """Close at once."""
        if self._stream is not None and not self._closing:
            self._closing = True
            self._stream.abort()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Replace the protocol (nobody does)."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Give the protocol."""
        return self._protocol

    def is_reading(self) -> bool:
        """Tell whether bytes may come in."""
        return not self._closing

    def pause_reading(self) -> None:
        """Do nothing: nothing more comes before the answer."""

    def resume_reading(self) -> None:
        """Do nothing, see ``pause_reading``."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Keep the stream's own marks: they are the same for all."""

    def get_write_buffer_size(self) -> int:
        """Count what the kernel has not taken yet."""
        return self._stream.buffered() if self._stream is not None else 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        if data and self._stream is not None and not self._closing:
            self._stream.write(data)
            self._follow((data,))

    def writelines(self, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send all parts."""
        if self._stream is not None and not self._closing:
            whole = [bytes(part) for part in parts]
            self._stream.write_many(whole)
            self._follow(whole)

    def _follow(self, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        self._moved = True
        answer = self._answer
        if answer is None or answer.done:
            return
        ended = False
        for part in parts:
            ended = answer.follow(part)
        if ended:
            self._answered(self._keep and not answer.closes)

    def can_write_eof(self) -> bool:
        """Tell that a half-closed connection is not offered."""
        return False

    @property
    def _sendfile_compatible(self) -> NoReturn:
        # asyncio asks this before it would write to the socket behind our back; the error is what
        # tells aiohttp to send a file by ordinary writes.
        raise NotImplementedError


def trust_proxies(
    trusted: Networks,
) -> Callable[..., Awaitable[web.StreamResponse]]:
    """Make the middleware that puts the true client into ``request.remote`` and ``scheme``."""

    @web.middleware
    async def middleware(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.remote is None:
            return await handler(request)
        remote = client_address(
            request.remote, request.headers.getall("X-Forwarded-For", ()), trusted
        )
        scheme = forwarded_scheme(
            request.remote, request.headers.get("X-Forwarded-Proto"), trusted, request.scheme
        )
        if (remote, scheme) != (request.remote, request.scheme):
            request = request.clone(remote=remote, scheme=scheme)
        return await handler(request)

    return middleware
