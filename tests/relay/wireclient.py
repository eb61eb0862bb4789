"""A small DERP client for tests, on real sockets or on a memory stream; speaks through our codecs."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from typing import ClassVar

from appliance.front.stream import Stream, dial
from appliance.wire import derp
from appliance.wire.derp import ClientInfo, Frame, FrameReader, FrameType, LoginBox
from appliance.wire.keys import NodeKey, PrivateKey
from tests.support import derpframes
from tests.support.memorystream import MemoryStream
from tests.support.polling import until

HEAD = b"GET /derp HTTP/1.1\r\nHost: relay.test\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n"
DISCO = derp.DISCO_MAGIC + bytes(80)


def new_key() -> PrivateKey:
    return PrivateKey.generate(os.urandom)


def login_frame(own: PrivateKey, server_raw: bytes, info: ClientInfo | None = None) -> bytes:
    """Make the ClientInfo frame of a client."""
    box = LoginBox(own, server_raw)
    return derp.encode_client_info(own.public_raw, box, info or ClientInfo(), os.urandom(24))


class MemoryClient:
    """The far side of a memory stream: writes frames, reads what the relay wrote."""

    def __init__(self, stream: MemoryStream, own: PrivateKey) -> None:
        self.stream = stream
        self.own = own
        self.key = own.public_raw
        self.frames: list[Frame] = []
        self._reader = FrameReader()

    def take(self) -> list[Frame]:
        """Give the frames that came since the last call."""
        return self._reader.feed(self.stream.take())

    def send(self, to: bytes, data: bytes) -> None:
        self.stream.deliver(derpframes.encode_send_packet(to, data))

    def packets(self) -> list[tuple[bytes, bytes]]:
        """Give source and data of the packets that came; other frames are dropped."""
        return [
            derpframes.decode_recv_packet(frame.payload)
            for frame in self.take()
            if frame.kind == FrameType.RECV_PACKET
        ]


class SocketClient:
    """A client on a socket: collects frames, says when something came."""

    open: ClassVar[set[SocketClient]] = set()
    """Clients whose connection is not over; tests end them all."""

    def __init__(self, own: PrivateKey | None = None) -> None:
        self.own = own or new_key()
        self.key = self.own.public_raw
        self.server_raw = b""
        self.frames: list[Frame] = []
        self.lost_for: str | None = None
        self.stream: Stream
        self._reader = FrameReader()
        self._head = b""
        self._in_http = True
        self._changed = asyncio.Event()

    async def connect(
        self,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        info: ClientInfo | None = None,
        head: bytes = HEAD,
        login: bool = True,
    ) -> SocketClient:
        """Dial, upgrade and log in."""
        self.stream = await dial(self, "127.0.0.1", port, tls=tls, server_hostname="localhost")
        self.stream.write(head + b"\r\n")
        await self.until(lambda: bool(self.frames))
        self.server_raw = derp.decode_server_key(self.frames.pop(0).payload)
        if login:
            self.stream.write(login_frame(self.own, self.server_raw, info))
            await self.until(lambda: bool(self.frames))
            assert self.frames.pop(0).kind == FrameType.SERVER_INFO
        return self

    @property
    def node_key(self) -> NodeKey:
        return NodeKey(self.key)

    def send(self, to: bytes, data: bytes) -> None:
        self.stream.write(derpframes.encode_send_packet(to, data))

    async def frame(self, kind: FrameType) -> bytes:
        """Wait for a frame of this kind and take it; others before it are dropped."""
        await self.until(lambda: any(frame.kind == kind for frame in self.frames))
        while True:
            frame = self.frames.pop(0)
            if frame.kind == kind:
                return frame.payload

    async def packet(self) -> tuple[bytes, bytes]:
        return derpframes.decode_recv_packet(await self.frame(FrameType.RECV_PACKET))

    async def gone(self) -> None:
        """Wait until the relay has ended the connection."""
        await self.until(lambda: self.lost_for is not None)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._changed.clear()
                if self.lost_for is not None and not condition():
                    raise ConnectionError(self.lost_for)
                await self._changed.wait()

    @classmethod
    async def end_all(cls) -> None:
        """End every connection and wait until they are over."""
        for client in list(cls.open):
            client.stream.abort()
        await until(lambda: not cls.open)

    # -- the sink --

    def connected(self, stream: Stream) -> None:
        self.stream = stream
        self.open.add(self)

    def received(self, _buffer: bytearray, view: memoryview, end: int) -> int:
        data = bytes(view[:end])
        if self._in_http:
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                return end
            self._in_http = False
            self._head = head
        self.frames += self._reader.feed(data)
        self._changed.set()
        return end

    @property
    def answer(self) -> bytes:
        """The relay's HTTP answer so far."""
        return self._head

    def ended(self) -> None:
        self.stream.close()

    def paused(self) -> None:
        pass

    def resumed(self) -> None:
        pass

    def lost(self, error: Exception | None) -> None:
        self.lost_for = str(error)
        self.open.discard(self)
        self._changed.set()
