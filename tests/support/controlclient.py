"""A node's side of ts2021 without sockets: upgrade, Noise, HTTP/2 by the ``h2`` library.

For tests of the nodes' door. It speaks what the stock client speaks, and, where a test asks, what
it never would.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable

import h2.config
import h2.connection
import h2.events

from appliance.wire.controlbase import Session
from appliance.wire.keys import MachineKey, PrivateKey
from appliance.wire.tailcfg import EarlyNoise
from tests.support.handshake import ClientHandshake, split_early_payload

VERSION = 142


class Answer:
    """What came back on one stream."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.ended = False
        self.reset: int | None = None


class ControlClient:
    """Feed it what the server writes (``receive``), send what it gives (``take``)."""

    def __init__(
        self,
        server_key: MachineKey,
        *,
        machine: PrivateKey | None = None,
        version: int = VERSION,
        acknowledge: bool = True,
    ) -> None:
        self.machine = machine or PrivateKey.generate(os.urandom)
        self.handshake = ClientHandshake(self.machine, server_key, version, os.urandom)
        self.session: Session | None = None
        self.early: EarlyNoise | None = None
        self.http = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        )
        self.answers: dict[int, Answer] = {}
        self.goaway: int | None = None
        self.acknowledge = acknowledge
        self._head = b""
        self._plain: bytes | None = b""
        self._switched = False

    # -- opening --

    def upgrade(self, *, extra: str = "", path: str = "/ts2021") -> bytes:
        """Give the upgrade request."""
        text = base64.b64encode(self.handshake.initiation).decode()
        return (
            f"POST {path} HTTP/1.1\r\nHost: control.test\r\nUser-Agent: Go-http-client/1.1\r\n"
            "Content-Length: 0\r\nConnection: upgrade\r\n"
            f"Upgrade: tailscale-control-protocol\r\n{extra}"
            f"X-Tailscale-Handshake: {text}\r\n\r\n"
        ).encode()

    def receive(self, data: bytes) -> None:
        """Take what the server wrote, from the 101 on."""
        if not self._switched:
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            assert head.startswith(b"HTTP/1.1 101 "), head
            self._switched = True
        self.receive_noise(data)

    def receive_noise(self, data: bytes) -> None:
        """Take what the server wrote behind the 101."""
        if self.session is None:
            opened = self.handshake.feed(data)
            if opened is None:
                return
            self.session, data = opened
            self.http.initiate_connection()
        if data:
            self._receive_plain(self.session.feed(data))

    def _receive_plain(self, plain: bytes) -> None:
        if self._plain is not None:
            self._plain += plain
            split = split_early_payload(self._plain)
            if split is None:
                return
            self.early, plain = split
            self._plain = None
        for event in self.http.receive_data(plain) if plain else ():
            self._note(event)

    def _note(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = int(event.error_code or 0)
            return
        stream_id = getattr(event, "stream_id", None)
        if not stream_id:
            return
        answer = self.answers.setdefault(stream_id, Answer())
        if isinstance(event, h2.events.ResponseReceived):
            answer.headers = {str(name): str(value) for name, value in event.headers}
            answer.status = int(answer.headers[":status"])
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data
            if self.acknowledge:
                self.http.acknowledge_received_data(event.flow_controlled_length, stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            answer.ended = True
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = int(event.error_code or 0)

    # -- asking --

    def request(
        self,
        path: str,
        body: bytes = b"",
        *,
        method: str = "POST",
        headers: Iterable[tuple[str, str]] = (),
        end: bool = True,
    ) -> int:
        """Queue a request; give its stream."""
        stream_id = self.http.get_next_available_stream_id()
        fields = [
            (":method", method),
            (":scheme", "https"),
            (":authority", "unused"),
            (":path", path),
            ("user-agent", "Go-http-client/2.0"),
            *headers,
        ]
        self.http.send_headers(stream_id, fields, end_stream=end and not body)
        for at in range(0, len(body), 16_384):
            piece = body[at : at + 16_384]
            self.http.send_data(stream_id, piece, end_stream=end and at + 16_384 >= len(body))
        self.answers[stream_id] = Answer()
        return stream_id

    def take(self) -> bytes:
        """Give what must be sent, sealed."""
        return self.seal(self.http.data_to_send())

    def seal(self, plain: bytes) -> bytes:
        """Seal any plain bytes."""
        assert self.session is not None
        return self.session.seal(plain)
