"""Streams over real sockets, plain and TLS, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from appliance.front import plainstream
from appliance.front.clienthello import gather
from appliance.front.stream import Listener, Stream, dial, listen
from appliance.front.tlsstream import HandshakeGate, TlsStream
from appliance.wire.errors import ProtocolError
from tests.support.certificates import client_context, server_context
from tests.support.pace import patience
from tests.support.polling import until


class Recorder:
    """A sink that remembers; takes ``step`` bytes at a time, or all when 0."""

    def __init__(self, step: int = 0) -> None:
        self.step = step
        self.stream: Stream | None = None
        self.data = bytearray()
        self.shown = 0
        self.events: list[str] = []
        self.error: Exception | None = None
        self.changed = asyncio.Event()
        self.answer: Callable[[Recorder], None] | None = None

    def connected(self, stream: Stream) -> None:
        self.stream = stream
        self._note("connected")

    def received(self, buffer: bytearray, view: memoryview, end: int, /) -> int:
        self.shown += 1
        used = end - end % self.step if self.step else end
        self.data += view[:used]
        buffer[:end] = bytes(end)  # what a sink may do: the buffer is scratch
        if used != end:
            buffer[used:end] = view[used:end]
        if self.answer:
            self.answer(self)
        self.changed.set()
        return used

    def ended(self) -> None:
        self._note("ended")
        if self.stream:
            self.stream.close()

    def paused(self) -> None:
        self._note("paused")

    def resumed(self) -> None:
        self._note("resumed")

    def lost(self, error: Exception | None) -> None:
        self.error = error
        self._note("lost")

    def _note(self, event: str) -> None:
        self.events.append(event)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(patience(10)):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Keeper(Recorder):
    """A recorder that really leaves its partial step unread in the buffer."""

    def received(self, _buffer: bytearray, view: memoryview, end: int, /) -> int:
        self.shown += 1
        used = end - end % self.step
        self.data += view[:used]
        self.changed.set()
        return used


class World:
    """One listener, the sinks that it made, and a way to dial it."""

    def __init__(self, tls: bool) -> None:
        self.tls = tls
        self.sinks: list[Recorder] = []
        self.make: Callable[[], Recorder] = Recorder
        self.listener: Listener

    def factory(self) -> Recorder:
        sink = self.make()
        self.sinks.append(sink)
        return sink

    async def dial(self) -> tuple[Stream, Recorder]:
        sink = Recorder()
        stream = await dial(
            sink, "127.0.0.1", self.listener.port, tls=client_context() if self.tls else None
        )
        await until(lambda: bool(self.sinks) and self.sinks[-1].stream is not None)
        return stream, sink


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
async def world(request: Any) -> AsyncIterator[World]:
    world = World(request.param)
    context = server_context() if world.tls else None
    world.listener = await listen(
        world.factory, "127.0.0.1", 0, tls=(lambda: context) if context else None
    )
    yield world
    world.listener.close()
    world.listener.abort_streams()
    await until(lambda: not world.listener.streams)


async def test_stream_carries_bytes_both_ways(world: World) -> None:
    stream, client = await world.dial()
    server = world.sinks[0]
    stream.write(b"from the client")
    await server.until(lambda: bytes(server.data) == b"from the client")
    assert server.stream is not None
    server.stream.write(bytearray(b"from the "))
    server.stream.write(memoryview(b"server"))
    await client.until(lambda: bytes(client.data) == b"from the server")
    assert server.stream.tls is world.tls
    assert server.stream.tls_version == ("TLSv1.3" if world.tls else None)
    assert server.stream.peer is not None
    assert server.stream.peer[0] == "127.0.0.1"


async def test_stream_copies_before_write(world: World) -> None:
    """A buffer that changes right after the write must not change what is sent."""
    stream, _ = await world.dial()
    buffer = bytearray(b"a" * 4000)
    for letter in b"abcdefgh":
        buffer[:] = bytes([letter]) * 4000
        stream.write(buffer)
        stream.write(memoryview(buffer)[:100])
    server = world.sinks[0]
    await server.until(lambda: len(server.data) == 8 * 4100)
    assert bytes(server.data) == b"".join(bytes([letter]) * 4100 for letter in b"abcdefgh")


async def test_stream_moves_megabytes_with_kept_rests(world: World) -> None:
    world.make = lambda: Keeper(step=40_000)
    stream, _ = await world.dial()
    sent = bytes(i * 7 % 251 for i in range(40_000)) * 60
    stream.write_many([sent[i : i + 1000] for i in range(0, len(sent), 1000)])
    server = world.sinks[0]
    await server.until(lambda: len(server.data) == len(sent))
    assert bytes(server.data) == sent


async def test_stream_shows_kept_bytes_again(world: World) -> None:
    world.make = lambda: Keeper(step=10)
    stream, _ = await world.dial()
    server = world.sinks[0]
    for i in range(25):
        stream.write(bytes([i]))
        seen = server.shown
        await server.until(lambda seen=seen: server.shown > seen)  # type: ignore[misc]  # default argument of a lambda
    assert bytes(server.data) == bytes(range(20))


async def test_hand_over_inside_received_feeds_the_rest_to_the_new_sink(world: World) -> None:
    class Head(Recorder):
        def received(self, _buffer: bytearray, view: memoryview, end: int, /) -> int:
            cut = bytes(view[:end]).find(b"\r\n\r\n")
            if cut < 0:
                return 0
            self.next = Recorder()
            assert self.stream is not None
            self.stream.hand_over(self.next)
            self.changed.set()
            return cut + 4

    world.make = Head
    stream, _ = await world.dial()
    head = world.sinks[0]
    stream.write(b"GET / HTTP/1.1\r\n")
    stream.write(b"\r\nthe rest")
    await head.until(lambda: hasattr(head, "next"))
    after: Recorder = head.next  # type: ignore[attr-defined]  # made by Head above
    await after.until(lambda: bytes(after.data) == b"the rest")
    stream.close()
    await after.until(lambda: "lost" in after.events)
    assert after.events == ["connected", "ended", "lost"]
    assert head.events == ["connected"]


async def test_hand_over_later_shows_kept_bytes_at_once(world: World) -> None:
    world.make = lambda: Keeper(step=1000)
    stream, _ = await world.dial()
    first = world.sinks[0]
    stream.write(b"kept")
    await first.until(lambda: first.shown > 0)
    second = Recorder()
    assert first.stream is not None
    first.stream.hand_over(second)
    assert bytes(second.data) == b"kept"
    assert second.events == ["connected"]


async def test_pause_reading_holds_bytes_back(world: World) -> None:
    stream, _ = await world.dial()
    server = world.sinks[0]
    assert server.stream is not None
    server.stream.pause_reading()
    stream.write(b"x" * 1000)
    for _ in range(50):
        await asyncio.sleep(0)
    assert not server.data
    server.stream.resume_reading()
    await server.until(lambda: len(server.data) == 1000)


async def test_resume_reading_shows_what_a_sink_left(world: World) -> None:
    class Hesitant(Recorder):
        ready = False

        def received(self, buffer: bytearray, view: memoryview, end: int, /) -> int:
            if not self.ready and self.stream:
                self.stream.pause_reading()
                self.changed.set()
                self.shown += 1
                return 0
            return super().received(buffer, view, end)

    world.make = Hesitant
    stream, _ = await world.dial()
    stream.write(b"hello")
    server = world.sinks[0]
    await server.until(lambda: server.shown > 0)
    server.ready = True  # type: ignore[attr-defined]  # it is a Hesitant
    assert server.stream is not None
    server.stream.resume_reading()
    await server.until(lambda: bytes(server.data) == b"hello")


async def test_close_flushes_and_both_sides_hear_it(world: World) -> None:
    stream, client = await world.dial()
    server = world.sinks[0]
    stream.write(b"y" * 500_000)
    stream.close()
    stream.close()
    stream.write(b"after the end")
    await server.until(lambda: "lost" in server.events)
    await client.until(lambda: "lost" in client.events)
    assert len(server.data) == 500_000
    assert [e for e in server.events if e not in ("paused", "resumed")] == [
        "connected",
        "ended",
        "lost",
    ]
    assert stream.is_closing()


async def test_abort_is_heard_once(world: World) -> None:
    stream, client = await world.dial()
    stream.abort()
    await client.until(lambda: "lost" in client.events)
    server = world.sinks[0]
    await server.until(lambda: "lost" in server.events)
    assert server.events.count("lost") == 1
    assert not world.listener.streams


async def test_sink_that_takes_little_each_time_hoards_nothing(world: World) -> None:
    class Nibbler(Recorder):
        def received(self, _buffer: bytearray, view: memoryview, end: int, /) -> int:
            assert self.stream is not None
            self.data += view[: min(end, 5_000)]
            self.stream.pause_reading()
            asyncio.get_running_loop().call_soon(self.stream.resume_reading)
            self.changed.set()
            return min(end, 5_000)

    world.make = Nibbler
    stream, _ = await world.dial()
    for _ in range(20):
        stream.write(bytes(50_000))
    server = world.sinks[0]
    await server.until(lambda: len(server.data) == 1_000_000)
    assert server.events == ["connected"]


async def test_reader_that_never_reads_is_dropped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plainstream, "WRITE_STALL_S", 0.05)
    stream, client = await world.dial()
    stream.pause_reading()
    server = world.sinks[0]
    assert server.stream is not None
    for _ in range(2000):
        server.stream.write(bytes(60_000))
        if "paused" in server.events:
            break
        await asyncio.sleep(0)
    await server.until(lambda: "lost" in server.events)
    assert world.listener.stalled == 1
    stream.abort()
    await client.until(lambda: "lost" in client.events)


async def test_slow_reader_is_told_to_pause_and_resume(world: World) -> None:
    stream, client = await world.dial()
    stream.pause_reading()
    server = world.sinks[0]
    assert server.stream is not None
    written = 0
    while "paused" not in server.events:
        server.stream.write(bytes(60_000))
        written += 60_000
        await asyncio.sleep(0)
    assert server.stream.buffered() > 0
    stream.resume_reading()
    await server.until(lambda: "resumed" in server.events)
    await client.until(lambda: len(client.data) == written)


async def test_sink_that_ignores_pause_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plainstream, "MAX_BUFFERED_BYTES", 1_000_000)
    monkeypatch.setattr("appliance.front.tlsstream.MAX_BUFFERED_BYTES", 1_000_000)
    stream, _client = await world.dial()
    stream.pause_reading()
    server = world.sinks[0]
    assert server.stream is not None
    for _ in range(1000):
        server.stream.write(bytes(60_000))
    await server.until(lambda: "lost" in server.events)
    stream.abort()


async def test_sink_that_keeps_too_much_is_closed(world: World) -> None:
    world.make = lambda: Keeper(step=10_000_000)
    stream, client = await world.dial()
    stream.write(bytes(600_000))
    await client.until(lambda: "lost" in client.events)


async def test_accepted_sockets_have_no_delay(world: World) -> None:
    stream, _ = await world.dial()
    server = world.sinks[0].stream
    for each in (stream, server):
        sock = each._raw.get_extra_info("socket")  # type: ignore[union-attr]  # a SocketStream
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_listener_refuses_more_streams_than_its_bound() -> None:
    sinks: list[Recorder] = []

    def factory() -> Recorder:
        sinks.append(Recorder())
        return sinks[-1]

    listener = await listen(factory, "127.0.0.1", 0, max_streams=2)
    clients = []
    for _ in range(3):
        client = Recorder()
        clients.append(client)
        await dial(client, "127.0.0.1", listener.port)
    await clients[2].until(lambda: "lost" in clients[2].events)
    assert (listener.accepted, listener.refused) == (2, 1)
    listener.close()
    listener.abort_streams()
    await until(lambda: not listener.streams)


@pytest.mark.parametrize(
    ("files", "streams", "unfinished"),
    [(1_024, 512, 128), (1 << 20, 50_000, 4_096), (resource.RLIM_INFINITY, 50_000, 4_096)],
)
async def test_bounds_leave_files_for_other_things(
    monkeypatch: pytest.MonkeyPatch, files: int, streams: int, unfinished: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (files, files))
    listener = Listener(Recorder, None)
    assert (listener._max_streams, listener.gate._limit) == (streams, unfinished)


async def test_listen_on_every_family_uses_one_port() -> None:
    listener = await listen(Recorder, None, 0)
    assert len({port for _, port in listener.addresses}) == 1
    listener.close()


class Caller(plainstream.PlainStream):
    """An accepted stream of a certain peer, without a socket."""

    def __init__(self, owner: plainstream.Owner, host: str) -> None:
        super().__init__(owner)
        self.peer = (host, 1)


def charged(host: str, listener: Listener) -> bool:
    return listener.stream_opened(Caller(listener, host)) is not None


def test_streams_are_bounded_by_source() -> None:
    """H2: one source took every stream of a listener; a quarter is its share."""
    listener = Listener(Recorder, None, max_streams=40, exempt=lambda host: host == "192.0.2.9")
    attackers = ["192.0.2.1"] * 20 + [f"2001:db8::{n}" for n in range(20)]
    assert sum(charged(host, listener) for host in attackers) == 20
    assert listener.refused == 20
    assert charged("198.51.100.1", listener)
    first = next(iter(listener.streams))
    listener.stream_closed(first, None)
    listener.stream_closed(first, None)
    assert charged("192.0.2.1", listener)
    assert not charged("192.0.2.1", listener)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "192.0.2.9"])
def test_this_machine_and_trusted_proxies_are_no_single_source(host: str) -> None:
    listener = Listener(Recorder, None, max_streams=40, exempt=lambda host: host == "192.0.2.9")
    assert sum(charged(host, listener) for _ in range(50)) == 40


def test_stream_behind_a_proxy_counts_for_whom_its_header_names() -> None:
    """H2: without TLS the PROXY header comes when the stream is open already."""
    listener = Listener(Recorder, None, max_streams=40, exempt=lambda host: host == "192.0.2.9")
    streams = [Caller(listener, "192.0.2.9") for _ in range(12)]
    assert all(listener.stream_opened(stream) for stream in streams)
    named = [stream.rename(("203.0.113.5", 7)) for stream in streams]
    assert named == [True] * 10 + [False] * 2
    for stream in streams:
        listener.stream_closed(stream, None)
    assert not listener.streams
    assert not listener._by_source


# -- TLS only --


async def tls_listener(**limits: Any) -> tuple[Listener, list[Recorder]]:
    sinks: list[Recorder] = []

    def factory() -> Recorder:
        sinks.append(Recorder())
        return sinks[-1]

    context = server_context()
    gate = HandshakeGate(**limits)
    return await listen(factory, "127.0.0.1", 0, tls=lambda: context, gate=gate), sinks


async def test_unfinished_handshakes_time_out() -> None:
    listener, sinks = await tls_listener(timeout_s=0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(b"\x16\x03\x01")
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), patience(5)) == b""
    assert listener.gate.counters.timed_out == 1
    assert listener.gate.unfinished == 0
    assert not sinks
    writer.close()
    listener.close()


async def test_half_open_flood_is_bounded_and_others_get_in() -> None:
    """H13: silent connections cost one another's places, also while nobody's time is over."""
    listener, sinks = await tls_listener(per_source=20, timeout_s=1000.0)
    flood = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(60)]
    await until(lambda: listener.gate.counters.evicted == 40)
    assert listener.gate.unfinished == 20
    client = Recorder()
    stream = await dial(client, "127.0.0.1", listener.port, tls=client_context())
    await until(lambda: len(sinks) == 1)
    assert listener.gate.counters.refused == 0
    stream.abort()
    for sock in flood:
        sock.close()
    listener.close()
    await until(lambda: not listener.streams)


class Knocker(TlsStream):
    """A server's TLS stream without a socket: it can only be counted and aborted."""

    def __init__(self, host: str) -> None:
        super().__init__(cast(Any, None), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self.peer = (host, 1)
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize("others", [["192.0.2.1"], [f"198.51.100.{n}" for n in range(200)]])
async def test_silent_handshakes_never_cost_one_that_has_begun(others: list[str]) -> None:
    """H13: of 3,000 silent connections one made a legitimate request be reset."""
    gate = HandshakeGate(limit=200, per_source=150)
    honest = Knocker("192.0.2.1")
    assert gate.enter(honest)
    gate.greeted(honest)
    for number in range(3000):
        assert gate.enter(Knocker(others[number % len(others)]))
    late = Knocker("192.0.2.1")
    assert gate.enter(late)
    assert gate.unfinished <= 200
    assert not honest.aborted
    assert not late.aborted
    gate.close()


async def test_silent_handshakes_of_one_source_do_not_cost_those_of_others() -> None:
    gate = HandshakeGate(limit=50, per_source=40)
    quiet = [Knocker(f"198.51.100.{n}") for n in range(10)]
    for stream in quiet:
        assert gate.enter(stream)
    for _ in range(100):
        assert gate.enter(Knocker("192.0.2.1"))
    assert not any(stream.aborted for stream in quiet)
    gate.close()


async def test_young_handshakes_with_a_hello_keep_their_places() -> None:
    """In a storm nobody would ever finish, were the oldest always the one to go."""
    gate = HandshakeGate(limit=3, per_source=3)
    for n in range(3):
        stream = Knocker(f"198.51.100.{n}")
        assert gate.enter(stream)
        gate.greeted(stream)
    assert not gate.enter(Knocker("192.0.2.1"))
    assert gate.counters.refused == 1
    gate.close()


def a_hello() -> bytes:
    """Make the first bytes of a true client."""
    out = ssl.MemoryBIO()
    tls = client_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


def in_records(message: bytes, size: int) -> bytes:
    cut = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(one).to_bytes(2, "big") + one for one in cut)


def test_hello_is_whole_with_its_last_byte() -> None:
    hello = a_hello()
    for data in (hello, in_records(hello[5:], 200), in_records(hello[5:], 100)):
        for end in range(len(data)):
            assert gather(memoryview(data[:end])) is None
        assert gather(memoryview(data)) is not None


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1", b"\x16\x02", b"\x15\x03\x01\x00\x02", b"\x16\x03\x01\x00\x05\x02"],
)
def test_no_hello_is_not_waited_for(data: bytes) -> None:
    assert gather(memoryview(data)) is not None


@pytest.mark.parametrize(
    "data", [in_records(b"\x01\x01\x00\x00", 4), in_records(b"\x01\x00\x10\x00" + bytes(99), 1)]
)
def test_endless_hello_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        gather(memoryview(data))


async def test_half_a_hello_costs_its_bytes() -> None:
    """H13: 3,000 of them took 117 MB, and the process kept them."""
    listener, sinks = await tls_listener()
    hello = a_hello()
    _reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(hello[:-1])
    await until(lambda: any(stream._hello for stream in listener.gate._silent._sources))
    (stream,) = listener.gate._silent._sources
    assert stream._object is None
    assert not sinks
    writer.write(hello[-1:])
    await until(lambda: listener.gate._greeted.oldest() is not None)
    assert not stream._hello
    writer.close()
    await until(lambda: listener.gate.unfinished == 0)
    listener.close()


async def test_hello_in_pieces_is_answered() -> None:
    listener, _sinks = await tls_listener()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    for byte in a_hello():
        writer.write(bytes([byte]))
        await writer.drain()
    assert (await reader.readexactly(3))[:2] == b"\x16\x03"
    writer.close()
    await until(lambda: listener.gate.unfinished == 0)
    listener.close()


async def test_garbage_instead_of_tls_gets_an_alert_and_an_end() -> None:
    listener, sinks = await tls_listener()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await asyncio.wait_for(reader.read(), patience(5))
    assert listener.gate.counters.failed == 1
    assert not sinks
    writer.close()
    listener.close()


async def test_server_name_is_known() -> None:
    listener, sinks = await tls_listener()
    client = Recorder()
    stream = await dial(
        client, "127.0.0.1", listener.port, tls=client_context(), server_hostname="localhost"
    )
    await until(lambda: len(sinks) == 1)
    assert sinks[0].stream is not None
    assert sinks[0].stream.server_name == "localhost"
    stream.abort()
    listener.close()
    await until(lambda: not listener.streams)


async def test_dial_refuses_a_wrong_certificate() -> None:
    listener, sinks = await tls_listener()
    with pytest.raises(ssl.SSLError):
        await dial(
            Recorder(),
            "127.0.0.1",
            listener.port,
            tls=ssl.create_default_context(),
            server_hostname="localhost",
        )
    await until(lambda: listener.gate.unfinished == 0)
    assert not any("received" in sink.events for sink in sinks)
    listener.close()
    await until(lambda: not listener.streams)


async def test_certificates_swap_without_a_restart() -> None:
    contexts = [server_context("localhost"), server_context("other.test")]
    listener = await listen(Recorder, "127.0.0.1", 0, tls=lambda: contexts[0])
    first = await dial(
        Recorder(), "127.0.0.1", listener.port, tls=client_context(), server_hostname="localhost"
    )
    contexts.reverse()
    second = await dial(
        Recorder(),
        "127.0.0.1",
        listener.port,
        tls=client_context("other.test"),
        server_hostname="other.test",
    )
    for stream in (first, second):
        stream.abort()
    listener.close()
    await until(lambda: not listener.streams)


async def test_client_order_of_ciphers_wins() -> None:
    context = server_context()
    listener = await listen(Recorder, "127.0.0.1", 0, tls=lambda: context)
    stream = await dial(Recorder(), "127.0.0.1", listener.port, tls=client_context())
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert context.num_tickets == 0
    stream.abort()
    listener.close()
    await until(lambda: not listener.streams)


async def test_flood_of_tiny_records_arrives_whole() -> None:
    listener, sinks = await tls_listener()
    client = Recorder()
    stream = await dial(client, "127.0.0.1", listener.port, tls=client_context())
    for i in range(5000):
        stream.write(bytes([i % 256]))
    await until(lambda: bool(sinks) and len(sinks[0].data) == 5000)
    assert bytes(sinks[0].data) == bytes(i % 256 for i in range(5000))
    stream.abort()
    listener.close()
    await until(lambda: not listener.streams)
