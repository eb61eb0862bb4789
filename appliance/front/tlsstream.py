"""TLS streams over ``ssl.MemoryBIO``, and the bound on handshakes that nobody finishes.

For both ends of TLS on an asyncio or uvloop transport; not for certificates (``tls`` makes the
contexts). Sits on ``plainstream``. Compared with asyncio's own TLS an idle connection costs 18 KB
instead of 277, because the read buffers are shared, and a packet costs a third less.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from typing import TYPE_CHECKING, Protocol, cast

from appliance.front.clienthello import decode_hello, gather
from appliance.front.plainstream import (
    MAX_BUFFERED_BYTES,
    PLAIN,
    PLAIN_VIEW,
    RECEIVED,
    WRITE_PIECE_BYTES,
    Owner,
    SocketStream,
)
from appliance.front.source import Crowd, source_of
from appliance.wire.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

# -- our own limits --

HANDSHAKE_TIMEOUT_S = 10.0
"""From the first byte of TCP to the end of the TLS handshake."""

MAX_UNFINISHED = 4096
"""Unfinished handshakes of one listener: the reconnect storm of thousands of nodes fits. One that
has sent nothing yet costs about 2 KB."""

MAX_UNFINISHED_PER_SOURCE = 2048
"""The same for one source: a large site behind one NAT fits."""

STALE_S = 2.0
"""When a bound is reached and everybody has said hello, an unfinished handshake older than this makes
room for a new one. A younger one does not: in a storm all work would be for nothing."""

_READ_BYTES = 64 * 1024

ASKED_NAME = "asked_name"
"""The attribute of a server's ``ssl.SSLObject`` that holds the name from the client's hello."""


def note_server_name(tls_object: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
    """Keep the name that the client asked for; a context's own ``sni_callback`` may call this."""
    setattr(tls_object, ASKED_NAME, name)


def tune(context: ssl.SSLContext) -> None:
    """Set on a server's context what streams rely on; harmless when done twice.

    The client's order of ciphers wins: Go puts AES-128 first where it is fast, which is 7 to 10 %
    of a packet. Tickets are off: stock clients keep none, and each costs a write per connection.
    """
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    if context.sni_callback is None:
        context.sni_callback = note_server_name


class _TlsCore(Protocol):
    """The part of ``ssl.SSLObject`` that moves bytes."""

    def read(self, size: int, buffer: memoryview, /) -> int: ...

    def write(self, data: bytes | bytearray | memoryview, /) -> int: ...


class HandshakeCounters:
    """How TLS handshakes went."""

    __slots__ = ("evicted", "failed", "finished", "refused", "timed_out")

    def __init__(self) -> None:
        self.finished = 0
        self.failed = 0
        self.timed_out = 0
        self.refused = 0
        self.evicted = 0


class HandshakeGate:
    """The unfinished handshakes of one listener: bounded in number, by source and in time.

    When there is no room for a new one, a silent one goes: the oldest of the source that is full, or
    of the one with most of them. A true client says hello at once, so thousands of silent connections
    cost one another's places and nobody else's.
    """

    def __init__(
        self,
        *,
        limit: int = MAX_UNFINISHED,
        per_source: int = MAX_UNFINISHED_PER_SOURCE,
        timeout_s: float = HANDSHAKE_TIMEOUT_S,
    ) -> None:
        self.counters = HandshakeCounters()
        self._limit = limit
        self._per_source = per_source
        self._timeout_s = timeout_s
        self._started: dict[TlsStream, float] = {}  # in order of time
        self._silent: Crowd[TlsStream] = Crowd()
        self._greeted: Crowd[TlsStream] = Crowd()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def unfinished(self) -> int:
        """How many handshakes are under way."""
        return len(self._started)

    def enter(self, stream: TlsStream) -> bool:
        """Count a new handshake; False when there is no room for it."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        source = source_of(stream.peer)
        is_full = self._silent.count(source) + self._greeted.count(source) >= self._per_source
        if is_full or len(self._started) >= self._limit:
            victim = self._victim_of(source, now) if is_full else self._victim(now)
            if victim is None:
                self.counters.refused += 1
                return False
            self.counters.evicted += 1
            self.leave(victim)
            victim.abort()
        self._started[stream] = now
        self._silent.add(stream, source)
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_s, self._expire)
        return True

    def greeted(self, stream: TlsStream) -> None:
        """Take note that a whole hello has come."""
        if self._silent.remove(stream):
            self._greeted.add(stream, source_of(stream.peer))

    def leave(self, stream: TlsStream) -> bool:
        """Forget a handshake that is over; False if it was forgotten already."""
        if self._started.pop(stream, None) is None:
            return False
        if not self._silent.remove(stream):
            self._greeted.remove(stream)
        if not self._started and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return True

    def _victim(self, now: float) -> TlsStream | None:
        return self._silent.oldest_of_the_largest() or self._stale(self._greeted.oldest(), now)

    def _victim_of(self, source: str | None, now: float) -> TlsStream | None:
        silent = self._silent.oldest_of(source)
        return silent or self._stale(self._greeted.oldest_of(source), now)

    def _stale(self, stream: TlsStream | None, now: float) -> TlsStream | None:
        return stream if stream is not None and now - self._started[stream] >= STALE_S else None

    def close(self) -> None:
        """End all unfinished handshakes."""
        for stream in list(self._started):
            self.leave(stream)
            stream.abort()

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for stream, started in list(self._started.items()):
            due = started + self._timeout_s
            if due > loop.time():
                self._timer = loop.call_at(due, self._expire)
                return
            self.counters.timed_out += 1
            self.leave(stream)
            stream.abort()


ACME_PROTOCOL = b"acme-tls/1"
"""What an authority offers, and nothing else, when it validates. Source: RFC 8737 section 6.2."""


class Challenges(Protocol):
    """The certificates that answer an authority's questions, while some are open."""

    @property
    def is_pending(self) -> bool:
        """Whether any question is open; if not, no hello is looked into."""

    def context_for(self, server_name: str | None) -> ssl.SSLContext | None:
        """Give the answer for a name; None if there is none."""


class TlsStream(SocketStream):
    """A connection with TLS, as server or as client."""

    __slots__ = (
        "_challenges",
        "_context",
        "_gate",
        "_hello",
        "_inb",
        "_is_challenge",
        "_named",
        "_object",
        "_outb",
        "_read_tls",
        "_ready",
        "_shut",
        "_straight",
        "_take_out",
        "_write_tls",
    )

    def __init__(
        self,
        owner: Owner,
        context: ssl.SSLContext,
        *,
        gate: HandshakeGate | None = None,
        server_hostname: str | None = None,
        challenges: Challenges | None = None,
    ) -> None:
        super().__init__(owner)
        self.tls = True
        self._challenges = challenges
        self._is_challenge = False
        self._context: ssl.SSLContext | None = context
        self._gate = gate
        self._hello = b""
        """What has come of the client's hello while it is not whole."""
        self._named = server_hostname
        self._object: ssl.SSLObject | None = None
        self._ready = False
        self._shut = False
        self._straight = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport from the event loop; a client speaks first."""
        super().connection_made(transport)
        if self._gate is None:
            self._start()
            self._shake_hands()
        elif not self._gate.enter(self):
            self.abort()

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Lend the shared buffer for one read."""
        return RECEIVED

    def buffer_updated(self, nbytes: int) -> None:
        """Decrypt what was read and show it to the sink.

        Whole records for a sink that takes all of them go straight through; everything else is in
        ``_slowly``. Asking ``pending`` saves an exception per read, which costs more than a record.
        """
        if not self._straight or self._kept or self._closing:
            self._slowly(nbytes)
            return
        inb = self._inb
        inb.write(RECEIVED[:nbytes])
        try:
            end = self._read_tls(_READ_BYTES, PLAIN_VIEW)
            if inb.pending:
                end = self._decrypt(end)
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            self._fail(error)
            return
        if end:
            self._feeding = True
            sink = self._sink
            used = sink.received(PLAIN, PLAIN_VIEW, end)
            self._feeding = False
            if used != end:
                self._leave(sink, used, end)
        if not end or self._shut:
            self._shut_down()

    def _slowly(self, nbytes: int) -> None:
        """Do the same during the handshake, behind kept bytes, and after the end."""
        if self._closing or self._ended:
            return  # after the peer's close-notify nothing may follow; do not collect it
        if self._object is None:
            if not self._take_hello(RECEIVED[:nbytes]):
                return
        else:
            self._inb.write(RECEIVED[:nbytes])
        if not self._ready and not self._shake_hands():
            return
        kept = self._kept
        start = len(kept)
        if start:
            PLAIN_VIEW[:start] = kept
        try:
            end = self._decrypt(start)
        except ssl.SSLError as error:
            self._fail(error)
            return
        if end != start:
            self._feed(end)
        if self._shut:
            self._shut_down()

    def _shut_down(self) -> None:
        self._shut = True
        self._straight = False
        self._end()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; copies (by encrypting) before returning, never blocks, silent after the end."""
        if self._closing or self._paused or not 0 < len(data) <= WRITE_PIECE_BYTES:
            self._write_slowly(data)
            return
        try:
            self._write_tls(data)
        except ssl.SSLError as error:
            self._fail(error)
        else:
            self._write_raw(self._take_out())

    def _write_slowly(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or not data:
            return
        if self._unread() > MAX_BUFFERED_BYTES:
            self._owner.write_stalled()
            self.abort()
            return
        view = memoryview(data)
        try:
            for start in range(0, len(data), WRITE_PIECE_BYTES):
                self._write_tls(view[start : start + WRITE_PIECE_BYTES])
                self._write_raw(self._take_out())
        except ssl.SSLError as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the stream: the sink hears it once."""
        if self._gate is not None and self._gate.leave(self):
            self._gate.counters.failed += 1
        super().connection_lost(exc)

    def eof_received(self) -> bool:
        """Tell the sink, which decides when to close; without a finished handshake just close."""
        return super().eof_received() and self._ready

    # -- inside --

    def _take_hello(self, data: memoryview) -> bool:
        """Start once the client's hello is whole: one that says little stays cheap."""
        if self._hello:
            data = memoryview(self._hello + data)
        try:
            message = gather(data)
        except ProtocolError as error:
            log.debug("TLS failed", extra={"reason": str(error)})
            self.abort()
            return False
        if message is None:
            self._hello = bytes(data)
            return False
        if self._gate is not None:
            self._gate.greeted(self)
        if self._challenges is not None and self._challenges.is_pending:
            self._look_for_validator(self._challenges, message)
        self._start()
        self._inb.write(data)
        self._hello = b""
        return True

    def _look_for_validator(self, challenges: Challenges, message: bytes) -> None:
        """Let an authority that validates have its own certificate; everybody else has the usual one.

        It offers exactly one protocol, so who merely lists it among others is none.
        Source: RFC 8737 section 3.
        """
        if ACME_PROTOCOL not in message:
            return
        try:
            hello = decode_hello(message)
        except ProtocolError:
            return  # OpenSSL refuses it, with the alert that fits
        if hello.protocols == (ACME_PROTOCOL,):
            context = challenges.context_for(hello.server_name)
            if context is not None:
                self._context, self._is_challenge = context, True

    def _start(self) -> None:
        context, self._context = self._context, None
        if context is None:
            raise RuntimeError("a TLS stream starts once")
        self._inb = ssl.MemoryBIO()
        self._outb = ssl.MemoryBIO()
        self._object = tls = context.wrap_bio(
            self._inb,
            self._outb,
            server_side=self._gate is not None,
            server_hostname=self._named,
        )
        # SSLObject's own methods only pass on to this object; going there directly saves a
        # Python call per record. Should it disappear one day, SSLObject has the same face.
        core = cast(_TlsCore, getattr(tls, "_sslobj", tls))
        self._read_tls: Callable[[int, memoryview], int] = core.read
        self._write_tls: Callable[[bytes | bytearray | memoryview], int] = core.write
        self._take_out: Callable[[], bytes] = self._outb.read

    def _shake_hands(self) -> bool:
        """Go on with the handshake; True once the stream is usable."""
        tls = self._object
        if tls is None:
            raise RuntimeError("a TLS stream shakes hands after its start")
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush_out()
            return False
        except ssl.SSLError as error:
            self._fail(error)
            return False
        self._flush_out()
        self._ready = self._straight = True
        self.tls_version = tls.version()
        self.server_name = getattr(tls, ASKED_NAME, None)
        if self._gate is not None:
            self._gate.counters.finished += 1
            self._gate.leave(self)
            self._gate = None
        if self._is_challenge:
            self.close()  # the answer was the certificate; nothing may be said behind it
            return False
        self._open()
        return not self._closing

    def _decrypt(self, end: int) -> int:
        """Put plaintext at ``PLAIN[end:]`` and give the new end."""
        inb = self._inb
        read = self._read_tls
        try:
            while inb.pending:
                size = read(_READ_BYTES, PLAIN_VIEW[end:])
                if not size:
                    self._shut = True
                    break
                end += size
        except ssl.SSLWantReadError:
            pass
        if self._outb.pending:
            self._flush_out()
        return end

    def _flush_out(self) -> None:
        if self._outb.pending and not self._raw.is_closing():
            self._write_raw(self._take_out())
            if self._paused and self._unread() > MAX_BUFFERED_BYTES:
                self._owner.write_stalled()
                self.abort()

    def _fail(self, error: ssl.SSLError) -> None:
        """Close after a broken record or handshake; the peer gets the alert."""
        log.debug("TLS failed", extra={"reason": str(error)})
        self._error = error
        self._closing = True
        self._flush_out()
        self._raw.close()

    def _say_goodbye(self) -> None:
        if self._object is None or not self._ready:
            return
        with contextlib.suppress(ssl.SSLError):  # it wants an answer, for which nobody waits
            self._object.unwrap()
        self._flush_out()
