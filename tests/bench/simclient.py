"""Simulated nodes: the cheapest client of ts2021 that a server cannot tell from a stock one.

It does what the stock client does on the wire: TLS, upgrade, Noise, HTTP/2 with the windows of Go's
client, register, map poll with zstd, lite updates; and reads just enough of the maps to know who is
online. HTTP/2 frames are written by hand: this is a load generator, its cost must not hide the
server's. As a program (``python -m tests.bench.simclient``) it obeys JSON lines on standard input,
see ``simulators``. Not for tests of the protocol itself (``tests.support.controlclient``).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import hpack
import msgspec
import zstandard

from appliance.wire import tailcfg
from appliance.wire.controlbase import Session
from appliance.wire.keys import DiscoKey, MachineKey, NodeKey, PrivateKey
from tests.support.handshake import ClientHandshake, split_early_payload

CAPVER = 113
TIMEOUT_S = 300.0

# Go's http2.Transport: 4 MiB for a stream, 1 GiB for the connection, updates from 4 KiB on.
STREAM_WINDOW = 4 << 20
CONNECTION_WINDOW = 1 << 30
UPDATE_FROM_BYTES = 4 << 10

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK = 1, 1


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


_OPENING = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + _frame(_SETTINGS, 0, 0, struct.pack(">HIHIHI", 2, 0, 4, STREAM_WINDOW, 6, 10 << 20))
    + _frame(_UPDATE, 0, 0, struct.pack(">I", CONNECTION_WINDOW))
)
_SETTINGS_ACK = _frame(_SETTINGS, _ACK, 0, b"")


@dataclass(frozen=True, slots=True)
class Identity:
    """The keys of the simulated node with this number: always the same ones."""

    number: int
    machine: PrivateKey
    node_key: NodeKey
    disco_key: DiscoKey


def identity(number: int) -> Identity:
    """Make the keys of a simulated node; nothing about them is secret."""

    def raw(role: str) -> bytes:
        return hashlib.sha256(f"{role} {number}".encode()).digest()

    return Identity(
        number, PrivateKey(raw("machine")), NodeKey(raw("node")), DiscoKey(raw("disco"))
    )


def hostinfo(number: int) -> tailcfg.Hostinfo:
    """Give what a laptop says of itself, of usual size."""
    return tailcfg.Hostinfo(
        ipn_version="1.86.2-t0123456789-g0123456789",
        backend_log_id=hashlib.sha256(b"log %d" % number).hexdigest(),
        os="linux",
        os_version="6.1.0-28-amd64",
        distro="debian",
        distro_version="12.8",
        distro_code_name="bookworm",
        package="deb",
        hostname=f"sim{number}",
        machine="x86_64",
        go_arch="amd64",
        go_version="go1.24.4",
        services=(
            tailcfg.Service(proto="peerapi4", port=40000 + number % 20000),
            tailcfg.Service(proto="peerapi6", port=40000 + number % 20000),
        ),
    )


def endpoints(number: int, port: int = 41641) -> tuple[tailcfg.AddrPort, ...]:
    """Give three endpoints of a node."""
    low = f"{number >> 8 & 255}.{number & 255}"
    texts = (f"203.0.{low}:{port}", f"192.168.{low}:{port}", f"[2001:db8::{number:x}]:{port}")
    return tuple(tailcfg.AddrPort.parse(text) for text in texts)


class _Peer(msgspec.Struct, rename={"id": "ID", "online": "Online", "endpoints": "Endpoints"}):
    id: int
    online: bool | None = None
    endpoints: list[str] | None = None


class _Change(
    msgspec.Struct, rename={"id": "NodeID", "online": "Online", "endpoints": "Endpoints"}
):
    id: int
    online: bool | None = None
    endpoints: list[str] | None = None


class _Map(msgspec.Struct, rename="pascal"):
    peers: list[_Peer] | None = None
    peers_changed: list[_Peer] | None = None
    peers_removed: list[int] | None = None
    peers_changed_patch: list[_Change] | None = None
    online_change: dict[int, bool] | None = None


_decode_map = msgspec.json.Decoder(_Map).decode
_unzstd = zstandard.ZstdDecompressor()


def unpack(body: bytes) -> bytes:
    """Undo the compression of a message, which may be several zstd frames in a row."""
    parts = []
    while body:
        one = _unzstd.decompressobj()
        parts.append(one.decompress(body))
        body = one.unused_data
    return b"".join(parts)


@dataclass(slots=True)
class Heard:
    """What a simulated node has heard in its present session."""

    messages: int = 0
    size: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    full_maps: int = 0
    online: dict[int, bool] = field(default_factory=dict)
    ports: dict[int, str] = field(default_factory=dict)

    def take(self, text: bytes) -> None:
        """Note who is there, who is online, and at which port."""
        told = _decode_map(text)
        if told.peers is not None:
            self.full_maps += 1
            self.online, self.ports = {}, {}
        for peer in (*(told.peers or ()), *(told.peers_changed or ())):
            self.online[peer.id] = bool(peer.online)
            self.ports[peer.id] = _port(peer.endpoints)
        for gone in told.peers_removed or ():
            self.online.pop(gone, None)
            self.ports.pop(gone, None)
        for change in told.peers_changed_patch or ():
            if change.id not in self.online:
                continue
            if change.online is not None:
                self.online[change.id] = change.online
            if change.endpoints is not None:
                self.ports[change.id] = _port(change.endpoints)
        for peer_id, is_online in (told.online_change or {}).items():
            if peer_id in self.online:
                self.online[peer_id] = is_online


def _port(endpoints: list[str] | None) -> str:
    return endpoints[0].rpartition(":")[2] if endpoints else ""


@dataclass(frozen=True, slots=True)
class Server:
    """Where the server is: ``tls`` None means plain TCP."""

    port: int
    key: MachineKey
    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"


def tls_context() -> ssl.SSLContext:
    """Make a client's context that believes any certificate: checking it is not our subject."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class SimulatedNode(asyncio.Protocol):
    """One node and its one connection at a time. ``on_message`` gets each map message, unpacked.

    With ``watch`` it reads the maps and knows who is online, else it counts messages only.
    """

    def __init__(
        self,
        server: Server,
        who: Identity,
        *,
        watch: bool = True,
        on_message: Callable[[bytes], None] | None = None,
        capver: int = CAPVER,
        compress: str = "zstd",
    ) -> None:
        self.who = who
        self.capver = capver
        self.compress = compress
        self.heard = Heard()
        self.watch = watch
        self.on_message = on_message
        self.lost_times = 0
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._prepared: tuple[ClientHandshake, bytes, hpack.Encoder] | None = None
        self._reset()

    def _reset(self) -> None:
        self._handshake: ClientHandshake | None = None
        self._session: Session | None = None
        self._head = b""
        self._plain = bytearray()
        self._greeted = False
        self._next_stream = 1
        self._headers = hpack.Encoder()  # with Huffman codes, like Go's: decoding them costs
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._bodies: dict[int, bytearray] = {}
        self._poll = 0
        self._message = bytearray()
        self._first: asyncio.Future[None] | None = None
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unsent: dict[int, int] = {}

    # -- what a node does --

    @property
    def is_connected(self) -> bool:
        """Tell whether there is a connection, with or without a poll."""
        return self._transport is not None and not self._transport.is_closing()

    async def connect(self) -> None:
        """Open the connection: TLS, upgrade, Noise, HTTP/2."""
        self._reset()
        if self._prepared is not None:
            self._headers = self._prepared[2]
        self.heard = Heard()
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(TIMEOUT_S):
            await loop.create_connection(
                lambda: self, self._server.host, self._server.port, ssl=self._server.tls
            )
            await self._opened

    def prepare_registration(self, auth_key: str) -> None:
        """Do now what a node can do before it connects; for the next connection only."""
        self._headers = hpack.Encoder()
        frames = self._frames(1, "/machine/register", self._registration(auth_key))
        self._prepared = self._shake_hands(), frames, self._headers

    async def register(self, auth_key: str) -> tailcfg.RegisterResponse:
        """Enrol with a pre-auth key."""
        if self._prepared is not None and self._next_stream == 1:
            frames, self._prepared = self._prepared[1], None
            self._next_stream = 3
            self._write(frames)
            return tailcfg.decode_register_response(await self._answer(1))
        answer = await self._ask("/machine/register", self._registration(auth_key))
        return tailcfg.decode_register_response(answer)

    def _registration(self, auth_key: str) -> bytes:
        request = tailcfg.RegisterRequest(
            version=self.capver,
            node_key=self.who.node_key,
            auth=tailcfg.RegisterResponseAuth(auth_key=auth_key),
            hostinfo=hostinfo(self.who.number),
        )
        return tailcfg.encode(request)

    async def poll(self) -> None:
        """Open the map poll; return with the first message."""
        request = tailcfg.MapRequest(
            version=self.capver,
            compress=self.compress,
            keep_alive=True,
            node_key=self.who.node_key,
            disco_key=self.who.disco_key,
            stream=True,
            hostinfo=hostinfo(self.who.number),
            endpoints=endpoints(self.who.number),
        )
        self._first = asyncio.get_running_loop().create_future()
        self._poll = self._send("/machine/map", tailcfg.encode(request))
        async with asyncio.timeout(TIMEOUT_S):
            await self._first

    async def update(self, port: int = 41641) -> None:
        """Tell endpoints and hostinfo, without wanting a map (a "lite update")."""
        request = tailcfg.MapRequest(
            version=self.capver,
            compress=self.compress,
            node_key=self.who.node_key,
            disco_key=self.who.disco_key,
            omit_peers=True,
            hostinfo=hostinfo(self.who.number),
            endpoints=endpoints(self.who.number, port),
        )
        await self._ask("/machine/map", tailcfg.encode(request))

    def pause(self, *, paused: bool) -> None:
        """Stop reading, or read again: the server must cope."""
        if self._transport is None:
            return
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def drop(self) -> None:
        """Lose the connection, as when the network goes away."""
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio's face --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses
        self._handshake = self._prepared[0] if self._prepared else self._shake_hands()
        text = base64.b64encode(self._handshake.initiation).decode()
        self._transport.write(
            "POST /ts2021 HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Go-http-client/1.1\r\n"
            "Content-Length: 0\r\nConnection: upgrade\r\nUpgrade: tailscale-control-protocol\r\n"
            f"X-Tailscale-Handshake: {text}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Take what the server sends."""
        if self._session is None:
            self._take_handshake(data)
        else:
            self._take_plain(self._session.feed(data))

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up what was going on."""
        self._transport = None
        self.lost_times += 1
        lost = ConnectionResetError(f"node {self.who.number}: connection lost: {exc}")
        waiting = [self._opened, self._first, *self._answers.values()]
        for future in waiting:
            if future is not None and not future.done():
                future.set_exception(lost)
                future.exception()  # somebody may have stopped waiting

    # -- inside --

    def _take_handshake(self, data: bytes) -> None:
        assert self._handshake is not None
        if not self._head.endswith(b"\r\n\r\n"):
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self._opened.set_exception(ConnectionRefusedError(head[:200].decode("latin-1")))
                self.drop()
                return
            self._head = head + found
        done = self._handshake.feed(data)
        if done is None:
            return
        self._session, rest = done
        self._handshake = None
        self._write(_OPENING)
        self._opened.set_result(None)
        if rest:
            self._take_plain(self._session.feed(rest))

    def _write(self, plain: bytes) -> None:
        if self._session is not None and self._transport is not None:
            self._transport.write(self._session.seal(plain))

    def _shake_hands(self) -> ClientHandshake:
        return ClientHandshake(self.who.machine, self._server.key, self.capver, os.urandom)

    def _send(self, path: str, body: bytes) -> int:
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._write(self._frames(stream, path, body))
        return stream

    def _frames(self, stream: int, path: str, body: bytes) -> bytes:
        block = self._headers.encode(
            [
                (":authority", "unused"),
                (":method", "POST"),
                (":path", path),
                (":scheme", "https"),
                ("content-type", "application/json"),
                ("ts-lb", str(self.who.node_key)),
                ("content-length", str(len(body))),
                ("accept-encoding", "gzip"),
                ("user-agent", "Go-http-client/2.0"),
            ]
        )
        return _frame(_HEADERS, 4, stream, block) + _frame(_DATA, _END_STREAM, stream, body)

    async def _ask(self, path: str, body: bytes) -> bytes:
        if not self.is_connected:
            raise ConnectionResetError(f"node {self.who.number} is not connected")
        return await self._answer(self._send(path, body))

    async def _answer(self, stream: int) -> bytes:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[stream] = answer
        async with asyncio.timeout(TIMEOUT_S):
            return await answer

    def _take_plain(self, plain: bytes) -> None:
        buffer = self._plain
        buffer += plain
        if not self._greeted:
            split = split_early_payload(bytes(buffer))
            if split is None:
                return
            self._greeted = True
            buffer[:] = split[1]
        at, end = 0, len(buffer)
        while end - at >= 9:
            after = at + 9 + int.from_bytes(buffer[at : at + 3], "big")
            if after > end:
                break
            stream = int.from_bytes(buffer[at + 5 : at + 9], "big") & 0x7FFFFFFF
            self._take_frame(buffer[at + 3], buffer[at + 4], stream, bytes(buffer[at + 9 : after]))
            at = after
        del buffer[:at]
        self._update_windows()

    def _take_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._take_data(stream, payload, ended=bool(flags & _END_STREAM))
        elif kind == _HEADERS:
            if payload[:1] not in (b"\x88", b"\x89"):  # :status 200 or 204, both indexed
                self._fail(stream, f"header block {payload[:60]!r}")
            elif flags & _END_STREAM:
                self._finish(stream)
        elif kind == _SETTINGS and not flags & _ACK:
            self._write(_SETTINGS_ACK)
        elif kind == _PING and not flags & _ACK:
            self._write(_frame(_PING, _ACK, 0, payload))
        elif kind == _RESET:
            self._fail(stream, f"reset {payload.hex()}")
        elif kind == _GOAWAY:
            self.drop()

    def _take_data(self, stream: int, payload: bytes, *, ended: bool) -> None:
        self._unsent[stream] = self._unsent.get(stream, 0) + len(payload)
        self._unsent[0] = self._unsent.get(0, 0) + len(payload)
        if stream == self._poll:
            self._take_poll(payload)
        else:
            self._bodies.setdefault(stream, bytearray()).extend(payload)
        if ended:
            self._finish(stream)

    def _take_poll(self, payload: bytes) -> None:
        message = self._message
        message += payload
        while len(message) >= 4:
            size = int.from_bytes(message[:4], "little")
            if len(message) < 4 + size:
                return
            body = bytes(message[4 : 4 + size])
            del message[: 4 + size]
            self._take_message(body)

    def _take_message(self, body: bytes) -> None:
        heard = self.heard
        heard.messages += 1
        heard.size += len(body)
        heard.last_at = time.monotonic()
        if self.watch or self.on_message is not None:
            text = unpack(body) if self.compress else body
            if self.watch:
                heard.take(text)
            if self.on_message is not None:
                self.on_message(text)
        if self._first is not None and not self._first.done():
            heard.first_at = heard.last_at
            self._first.set_result(None)

    def _finish(self, stream: int) -> None:
        body = bytes(self._bodies.pop(stream, b""))
        answer = self._answers.pop(stream, None)
        self._unsent.pop(stream, None)
        if answer is not None and not answer.done():
            answer.set_result(body)
        if stream == self._poll:
            self.drop()  # the server has ended the poll; a stock client begins anew

    def _fail(self, stream: int, reason: str) -> None:
        error = ConnectionError(f"node {self.who.number}, stream {stream}: {reason}")
        future = self._first if stream == self._poll else self._answers.pop(stream, None)
        if future is not None and not future.done():
            future.set_exception(error)

    def _update_windows(self) -> None:
        updates = b""
        for stream, size in self._unsent.items():
            if size >= UPDATE_FROM_BYTES:
                self._unsent[stream] = 0
                updates += _frame(_UPDATE, 0, stream, struct.pack(">I", size))
        if updates:
            self._write(updates)
