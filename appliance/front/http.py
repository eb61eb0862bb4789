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

from appliance.front.proxy import Networks, client_address, forwarded_scheme

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from appliance.front.stream import Stream

log = logging.getLogger(__name__)

KEEPALIVE_S = 75.0
"""Longer than the 60 s after which common proxies drop an idle connection themselves."""
SHUTDOWN_S = 5.0
"""What requests in flight are granted when the server stops."""


async def start_web(app: web.Application, *, shutdown_s: float = SHUTDOWN_S) -> web.AppRunner:
    """Start an application without listeners; its ``server`` is what the dispatcher feeds.

    The application's own ``client_max_size`` (1 MiB unless told) bounds what handlers read. Stop it by ``await runner.cleanup()``.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=log,
        handle_signals=False,
        keepalive_timeout=KEEPALIVE_S,
        shutdown_timeout=shutdown_s,
        handler_cancellation=True,
    )
    await runner.setup()
    return runner


def _is_bug(record: logging.LogRecord) -> bool:
    """Tell whether what aiohttp logs is a failure of ours: peers that leave or lie are none."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, ConnectionError | http_exceptions.HttpProcessingError)


log.addFilter(_is_bug)


class WebTransport(asyncio.Transport):
    """What aiohttp believes to be its socket: a stream, and the dispatcher that feeds it."""

    __slots__ = ("_blocked", "_closing", "_protocol", "_reading", "_stream", "wrote")

    def __init__(self, stream: Stream, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._stream: Stream | None = stream
        self._protocol: asyncio.BaseProtocol = protocol
        self._blocked = False
        self._closing = False
        self._reading = True
        self.wrote = True
        """Something was written since the dispatcher last cleared this."""

    def detach(self) -> None:
        """Give the stream up: what aiohttp still does has no effect on it."""
        self._closing = True
        self._stream = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Give what aiohttp asks for: the peer, and whether there is TLS."""
        if self._stream is not None and name == "peername":
            return self._stream.peer
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
        return self._reading and not self._blocked

    def block(self) -> None:
        """Take nothing more while the peer does not read its answers."""
        self._blocked = True
        if self._stream is not None:
            self._stream.pause_reading()

    def unblock(self) -> None:
        """Go on, unless aiohttp itself wants nothing now."""
        self._blocked = False
        if self._reading and self._stream is not None:
            self._stream.resume_reading()

    def pause_reading(self) -> None:
        """Let the peer feel back-pressure."""
        self._reading = False
        if self._stream is not None:
            self._stream.pause_reading()

    def resume_reading(self) -> None:
        """Take bytes again."""
        self._reading = True
        if not self._blocked and self._stream is not None:
            self._stream.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Keep the stream's own marks: they are the same for all."""

    def get_write_buffer_size(self) -> int:
        """Count what the kernel has not taken yet."""
        return self._stream.buffered() if self._stream is not None else 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        if data and self._stream is not None and not self._closing:
            self.wrote = True
            self._stream.write(data)

    def writelines(self, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send all parts."""
        if self._stream is not None and not self._closing:
            self.wrote = True
            self._stream.write_many([bytes(part) for part in parts])

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
