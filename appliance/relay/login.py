"""The login: from an upgraded connection to a link, or to its end.

Sends ServerKey, waits for ClientInfo, asks whether the client may come, answers ServerInfo and
hands the stream to a ``RelayLink``. Deadlines and bounds of unfinished logins are the door's. Sits
between ``door`` and ``link``.
Source: tailscale v1.104.5 derp/derpserver/derpserver.go accept.
"""

from __future__ import annotations

import logging
import struct
from typing import Protocol

from appliance.front.stream import Stream
from appliance.relay.counters import Refusal
from appliance.relay.link import RelayLink
from appliance.wire import derp
from appliance.wire.derp import (
    HEADER_BYTES,
    MAX_CLIENT_INFO_BYTES,
    ClientInfo,
    FrameType,
    LoginBox,
)
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import NodeKey, PrivateKey

log = logging.getLogger(__name__)

_header_at = struct.Struct(">BI").unpack_from


class Doorkeeper(Protocol):
    """What a login needs of the door."""

    private: PrivateKey
    greeting: bytes
    """ServerKey, encoded once."""

    def began(self, login: Login, /) -> bool:
        """Count an unfinished login; False when the relay takes no more."""

    def over(self, login: Login, refusal: Refusal | None, /) -> None:
        """Count the end of a login: None when it became a link or the peer left."""

    def ask(self, login: Login, key: NodeKey, info: ClientInfo, /) -> None:
        """Decide whether the client may come and call ``admitted``, now or later."""

    def repeated(self, key: NodeKey, reason: str, /) -> int | None:
        """Count that this key was not admitted; how often since the last line, None: write none."""

    def make_link(self, key: NodeKey, info: ClientInfo, login: Login, /) -> RelayLink:
        """Make the link of an admitted client."""

    def nonce(self) -> bytes:
        """Give 24 fresh random bytes."""


class Login:
    """The sink of a connection that has not proved who it is."""

    __slots__ = ("_box", "_door", "_info", "_key", "_over", "_stream", "greeted", "not_ideal")

    def __init__(self, door: Doorkeeper, answer: bytes, *, not_ideal: bool) -> None:
        self._door = door
        self._box: LoginBox | None = None
        self._over = False
        self._stream: Stream
        self.greeted = answer
        self.not_ideal = not_ideal

    @property
    def source(self) -> str:
        """The client's address as text; empty when it is not known."""
        return self._stream.peer[0] if self._stream.peer else ""

    def connected(self, stream: Stream) -> None:
        """Greet: the HTTP answer, if one is due, and ServerKey in one write."""
        self._stream = stream
        if not self._door.began(self):
            self.refuse(Refusal.CROWDED)
            return
        stream.write(self.greeted + self._door.greeting)
        self.greeted = b""

    def received(self, _buffer: bytearray, view: memoryview, end: int) -> int:
        """Wait for the whole of ClientInfo; what comes behind it is for the link."""
        if self._over:
            return end
        if self._box is not None or end < HEADER_BYTES:
            return 0  # the answer about the client is still out, or the header is incomplete
        kind, size = _header_at(view)
        if kind != FrameType.CLIENT_INFO or size > MAX_CLIENT_INFO_BYTES:
            log.debug("relay login refused", extra={"reason": f"frame {kind:#x}, {size} bytes"})
            self.refuse(Refusal.LOGIN)
            return end
        total: int = HEADER_BYTES + size
        if end < total:
            return 0
        try:
            key, info, self._box = derp.decode_client_info(
                bytes(view[HEADER_BYTES:total]), self._door.private
            )
        except ProtocolError as error:
            log.debug("relay login refused", extra={"reason": str(error)})
            self.refuse(Refusal.LOGIN)
            return end
        self._key, self._info = key, info
        self._door.ask(self, key, info)
        if self._box is not None:
            self._stream.pause_reading()  # until the answer: nothing more is to be collected
        return total

    def admitted(self, *, admit: bool | None) -> None:
        """Go on after the decision; None: nobody could be asked, which is no yes."""
        if self._over or self._box is None:
            return
        if not admit:
            reason = "nobody could be asked" if admit is None else "not a node"
            repeated = self._door.repeated(self._key, reason)
            if repeated is not None:
                log.info(
                    "relay client not admitted",
                    extra={
                        "node": self._key.short,
                        "remote": self.source,
                        "reason": reason,
                        "repeated": repeated,
                    },
                )
            self.refuse(Refusal.UNVERIFIED if admit is None else Refusal.NOT_ADMITTED)
            return
        box, self._box = self._box, None
        self._over = True
        self._door.over(self, None)
        link = self._door.make_link(self._key, self._info, self)
        stream = self._stream
        stream.write(derp.encode_server_info(box, derp.ServerInfo(), self._door.nonce()))
        stream.hand_over(link)
        stream.resume_reading()

    def refuse(self, refusal: Refusal) -> None:
        """End the connection and count why."""
        if not self._over:
            self._over = True
            self._door.over(self, refusal)
            self._stream.close()

    def ended(self) -> None:
        """Close with the peer."""
        self.lost(None)
        self._stream.close()

    def paused(self) -> None:
        """Nothing to hold back: a login writes two frames."""

    def resumed(self) -> None:
        """Nothing was held back."""

    def lost(self, error: Exception | None) -> None:
        """Forget the login."""
        if not self._over:
            self._over = True
            self._door.over(self, Refusal.PROTOCOL if isinstance(error, ProtocolError) else None)
