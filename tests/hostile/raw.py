"""Connections as an attacker holds them: any bytes at any layer, and the server's reaction.

``Line`` is TCP or TLS; ``NoiseLine`` and ``RelayLine`` are past the handshakes and let one say
anything behind them. Nothing here is polite unless asked.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import ssl
import struct

from appliance.wire import derp
from appliance.wire.controlbase import Session
from appliance.wire.derp import FrameType, LoginBox
from appliance.wire.keys import MachineKey, NodeKey, PrivateKey
from tests.bench.simclient import Identity, identity
from tests.hostile.victim import Target, any_certificate
from tests.support import derpframes
from tests.support.handshake import ClientHandshake, split_early_payload

__all__ = [
    "Line",
    "NoiseLine",
    "RelayLine",
    "Target",
    "open_relay",
    "open_tcp",
    "open_tls",
    "request",
]

CAPVER = 130
LIMIT = 1 << 22
PATIENT_S = 20.0
"""Where the verdict is whether the server closes at all: a busy machine is no reason to say no."""
CONNECT_S = 20.0

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM, END_HEADERS = 1, 4

_ANY = any_certificate()


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Encode an HTTP/2 frame, right or wrong."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def head_block(path: str, extra: bytes = b"") -> bytes:
    """Encode the fields of a POST without compression state."""
    text = path.encode()
    return b"\x83\x87\x04" + bytes([len(text)]) + text + b"\x01\x06unused" + extra


def request(method: str, path: str, *fields: str, body: bytes = b"", close: bool = False) -> bytes:
    """Write an HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: server", *fields]
    if close:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


class Line:
    """A connection, with or without TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Send without waiting; silent when the connection is gone."""
        if not self.writer.is_closing():
            self.writer.write(data)

    async def press(self, data: bytes) -> bool:
        """Send and wait until the kernel has it; False when the connection is gone."""
        self.send(data)
        try:
            await self.writer.drain()
        except (OSError, ssl.SSLError):
            return False
        return not self.writer.is_closing() and not self.reader.at_eof()

    async def rest(self, timeout_s: float) -> bytes:
        """Read until the server closes. Raises TimeoutError."""
        got = bytearray()
        async with asyncio.timeout(timeout_s):
            with contextlib.suppress(OSError, ssl.SSLError):
                while data := await self.reader.read(1 << 16):
                    got += data[: LIMIT - len(got)]
        return bytes(got)

    async def is_closed_within(self, timeout_s: float) -> bool:
        """Tell whether the server closes in time, whatever it says until then."""
        try:
            await self.rest(timeout_s)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Go away without a word."""
        self.writer.transport.abort()


async def open_tcp(target: Target) -> Line:
    """Connect."""
    async with asyncio.timeout(CONNECT_S):
        return Line(*await asyncio.open_connection(target.host, target.port, limit=LIMIT))


async def open_tls(target: Target) -> Line:
    """Connect and shake hands."""
    async with asyncio.timeout(CONNECT_S):
        return Line(*await asyncio.open_connection(target.host, target.port, ssl=_ANY, limit=LIMIT))


class NoiseLine(Line):
    """A connection inside Noise: HTTP/2 or anything else can be said on it."""

    session: Session
    early = b""

    def say(self, plain: bytes) -> None:
        """Send plain bytes, sealed."""
        self.send(self.session.seal(plain))

    async def press_plain(self, plain: bytes) -> bool:
        """Send plain bytes, sealed; wait until the kernel has them."""
        return await self.press(self.session.seal(plain))

    async def hear(self, timeout_s: float) -> bytes:
        """Read what comes next, opened. Empty at the end. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while True:
                data = await self.reader.read(1 << 16)
                if not data:
                    return b""
                plain = self.session.feed(data)
                if plain:
                    return plain


def window_updates(plain: bytes) -> int:
    """Sum up the updates of the connection's window in whole frames."""
    total, at = 0, 0
    while at + 9 <= len(plain):
        size = int.from_bytes(plain[at : at + 3], "big")
        if plain[at + 3] == WINDOW_UPDATE and plain[at + 5 : at + 9] == bytes(4):
            total += int.from_bytes(plain[at + 9 : at + 13], "big")
        at += 9 + size
    return total


def initiation(target: Target, machine: PrivateKey, version: int = CAPVER) -> ClientHandshake:
    """Begin a Noise handshake."""
    return ClientHandshake(machine, MachineKey.parse(target.machine_key), version, os.urandom)


def upgrade(first: bytes) -> bytes:
    """Write the upgrade request around an initiation."""
    text = base64.b64encode(first).decode()
    return request(
        "POST", "/ts2021", "Content-Length: 0", "Connection: upgrade",
        "Upgrade: tailscale-control-protocol", f"X-Tailscale-Handshake: {text}",
    )  # fmt: skip


async def open_noise(target: Target, machine: PrivateKey | None = None) -> NoiseLine:
    """Connect up to the point where HTTP/2 begins; the server's greeting is read."""
    plain = await open_tls(target)
    line = NoiseLine(plain.reader, plain.writer)
    handshake = initiation(target, machine or PrivateKey.generate(os.urandom))
    line.send(upgrade(handshake.initiation))
    async with asyncio.timeout(CONNECT_S):
        head = await line.reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            line.close()
            raise ConnectionRefusedError(head[:100])
        finished = None
        while finished is None:
            data = await line.reader.read(1 << 16)
            if not data:
                raise ConnectionResetError("closed in the handshake")
            finished = handshake.feed(data)
        line.session, rest = finished
        got = line.session.feed(rest) if rest else b""
        while (split := split_early_payload(got)) is None or not got:
            got += await line.hear(CONNECT_S)
        line.early = split[1]
    return line


async def open_http2(target: Target, machine: PrivateKey | None = None) -> NoiseLine:
    """Connect up to the point where requests may be sent."""
    line = await open_noise(target, machine)
    line.say(PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, 1, 0))
    return line


class RelayLine(Line):
    """A relay client."""

    key: bytes

    def send_frame(self, kind: int, payload: bytes) -> None:
        """Send one frame."""
        self.send(derp.encode_frame(kind, payload))

    def send_packet(self, destination: bytes, data: bytes) -> None:
        """Send one packet."""
        self.send(derpframes.encode_send_packet(destination, data))

    async def frame(self) -> tuple[int, bytes]:
        """Read one frame. Raises IncompleteReadError (an EOFError) at the end."""
        kind, size = struct.unpack(">BI", await self.reader.readexactly(5))
        return kind, await self.reader.readexactly(size)

    async def packet(self) -> tuple[bytes, bytes]:
        """Read up to the next packet: its source and data."""
        while True:
            kind, payload = await self.frame()
            if kind == FrameType.RECV_PACKET:
                return derpframes.decode_recv_packet(payload)


def relay_private(number: int) -> PrivateKey:
    """Give the private node key that a relay client of this number has."""
    return PrivateKey(hashlib.sha256(b"relay node %d" % number).digest())


async def open_relay(
    target: Target, *, key_number: int | None = None, private: PrivateKey | None = None
) -> RelayLine:
    """Connect and log in; the login's answer is read."""
    line, server_raw = await open_relay_door(target)
    private = private or relay_private(key_number or 0)
    box = LoginBox(private, server_raw)
    info = derp.ClientInfo(version=derp.VERSION, can_ack_pings=True)
    line.key = private.public_raw
    line.send(derp.encode_client_info(line.key, box, info, os.urandom(24)))
    async with asyncio.timeout(CONNECT_S):
        kind, _payload = await line.frame()
    if kind != FrameType.SERVER_INFO:
        raise ConnectionRefusedError(f"frame {kind}")
    return line


async def open_relay_door(target: Target) -> tuple[RelayLine, bytes]:
    """Connect up to the relay's greeting; give its key."""
    plain = await open_tls(target)
    line = RelayLine(plain.reader, plain.writer)
    line.send(request("GET", "/derp", "Connection: Upgrade", "Upgrade: DERP"))
    async with asyncio.timeout(CONNECT_S):
        head = await line.reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            line.close()
            raise ConnectionRefusedError(head[:100])
        _kind, payload = await line.frame()
    return line, derp.decode_server_key(payload)


def member(number: int) -> Identity:
    """Give the keys of a node that also knows its private node key, as the relay asks for it."""
    who = identity(number)
    node_key = NodeKey(relay_private(number).public_raw)
    return Identity(number, who.machine, node_key, who.disco_key)
