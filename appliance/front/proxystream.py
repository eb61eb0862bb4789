"""TLS behind a load balancer that passes bytes on and says who the client is.

For listeners with TLS and the PROXY protocol: the header comes before the TLS hello, so nobody
above the stream can read it. Without TLS the dispatcher reads it itself. Not for deciding whom to
trust (the settings do). Sits on ``tlsstream``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from appliance.front.plainstream import RECEIVED
from appliance.front.proxy import MAX_V2_BYTES, Networks, decode_preamble, is_trusted
from appliance.front.tlsstream import Challenges, HandshakeGate, TlsStream
from appliance.wire.errors import ProtocolError

if TYPE_CHECKING:
    import asyncio
    import ssl

    from appliance.front.plainstream import Owner

log = logging.getLogger(__name__)


class ProxiedTlsStream(TlsStream):
    """A TLS stream whose first bytes are a PROXY header, if its peer is a trusted proxy."""

    __slots__ = ("_begun", "_trusted")

    def __init__(
        self,
        owner: Owner,
        context: ssl.SSLContext,
        *,
        gate: HandshakeGate | None = None,
        trusted: Networks = (),
        challenges: Challenges | None = None,
    ) -> None:
        super().__init__(owner, context, gate=gate, challenges=challenges)
        self._trusted = trusted
        self._begun: bytes | None = None
        """What has come of the header; None once it is read, or where none is due."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport from the event loop."""
        super().connection_made(transport)
        if self.peer is None or is_trusted(self.peer[0], self._trusted):
            self._begun = b""

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Lend the shared buffer; less of it while a header may still be put in front."""
        if self._begun is None:
            return super().get_buffer(_sizehint)
        return RECEIVED[: len(RECEIVED) - MAX_V2_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        """Read the header, then go on as any TLS stream."""
        if self._begun is not None:
            if self._closing:
                return
            rest = self._take_header(self._begun + bytes(RECEIVED[:nbytes]))
            nbytes = len(rest)
            if not nbytes:
                return
            RECEIVED[:nbytes] = rest
        super().buffer_updated(nbytes)

    def _take_header(self, begun: bytes) -> bytes:
        """Give what follows the header; nothing while it is incomplete."""
        try:
            preamble = decode_preamble(begun)
        except ProtocolError as error:
            log.debug("no PROXY header", extra={"reason": str(error)})
            self.abort()
            return b""
        if preamble is None:
            self._begun = begun
            return b""
        self._begun = None
        if preamble.peer is not None:
            self._rename(preamble.peer)
        return b"" if self._closing else begun[preamble.size :]

    def _rename(self, peer: tuple[str, int]) -> None:
        """Count the unfinished handshake as the client's, no longer as the proxy's."""
        gate = self._gate
        if gate is not None:
            gate.leave(self)
        self.peer = peer
        if gate is not None and not gate.enter(self):
            self.abort()
